"""`tramontane weights`: the digest of a directory of weights, and who vouches for it.

The same code runs in the pods. `verify` ends with 3 where the weights are not what they should be,
and with 1 where that cannot be told. Everything heavy is imported inside the commands, so that
`--help` answers at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tramontane.cli import options

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Unfit(click.ClickException):
    """Say that weights are not what they should be."""

    exit_code = options.NO


@click.group(cls=options.Group)
def weights() -> None:
    """Digest, sign and check directories of weights."""


@weights.command()
@click.argument("directory", type=_DIRECTORY)
@options.output
def digest(*, directory: Path, output: str) -> None:
    """Print the digest for model.digest: that of the manifest of all files.

    A saved manifest must agree with the files.
    """
    text = _digest_of(directory)
    _show(output, text, digest=text)


@weights.command()
@click.argument("directory", type=_DIRECTORY)
@options.changing
def manifest(*, directory: Path, yes: bool, dry_run: bool, output: str) -> None:
    """Save the manifest beside the weights, so that a mismatch names the file; print the digest.

    A dry run prints the manifest. Before another one is replaced you are asked.
    """
    from tramontane.cli import changes, tables  # noqa: PLC0415
    from tramontane.controllers.inferencedeployment.podfiles import weightfiles  # noqa: PLC0415

    with _explained():
        root = str(directory)
        listed = weightfiles.entries(root, weightfiles.sizes(root))
        text = weightfiles.manifest_of(listed)
        if not dry_run:
            if other := _otherwise(root, text):
                what = f"{directory / weightfiles.MANIFEST}, in place of the one that is there"
                lines = tables.facts([("Will write", what), ("It differs", other)])
                changes.agreed(changes.Plan(tuple(lines)), yes=yes, dry_run=False, output=output)
            weightfiles.write_manifest(root, text)
    is_digest = weightfiles.digest_of(text)
    _show(
        output,
        text.rstrip("\n") if dry_run else is_digest,
        digest=is_digest,
        files=[one._asdict() for one in listed],
        written=not dry_run,
    )


@weights.command()
@click.argument("what", metavar="DIRECTORY|DIGEST")
@click.option(
    "--key",
    type=_FILE,
    required=True,
    help="Private Ed25519 key in PEM: openssl genpkey -algorithm ed25519 -out key.pem",
)
@options.output
def sign(*, what: str, key: Path, output: str) -> None:
    """Print the signature for model.verify.signature: of a directory's digest, or of a digest."""
    from tramontane.controllers.inferencedeployment import signing  # noqa: PLC0415
    from tramontane.controllers.inferencedeployment.podfiles import weightfiles  # noqa: PLC0415

    if Path(what).is_dir():
        text = _digest_of(Path(what))
    else:
        try:
            text = weightfiles.checked_digest(what)
        except weightfiles.WeightsError as error:
            raise click.BadParameter(f"must be a directory or a digest; {error}") from error
    signature = signing.sign(text, key.read_bytes())
    click.echo(f"digest {text}", err=True)
    _show(output, signature, digest=text, signature=signature)


@weights.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--digest", "wanted", metavar="DIGEST", help="What the digest must be.")
@click.option("--signature", metavar="BASE64", help="A signature of the digest.")
@click.option(
    "--key",
    "keys",
    type=_FILE,
    multiple=True,
    help="Public key in PEM that is trusted; may be given again.",
)
@click.option(
    "--engine",
    type=click.Choice(["vllm", "sglang", "llamacpp", "custom"]),
    default="vllm",
    show_default=True,
    help="What is to serve it: each needs other files.",
)
@click.option("--adapter", is_flag=True, help="The directory is a LoRA adapter.")
@options.output
def verify(
    *,
    directory: Path,
    wanted: str | None,
    signature: str | None,
    keys: tuple[Path, ...],
    engine: str,
    adapter: bool,
    output: str,
) -> None:
    """Check a directory as a pod does before it serves: whole, the right bytes, signed."""
    from tramontane.controllers.inferencedeployment import signing  # noqa: PLC0415
    from tramontane.controllers.inferencedeployment.podfiles import (  # noqa: PLC0415
        weightchecks,
        weightfiles,
    )

    if bool(signature) != bool(keys):
        raise click.UsageError("--signature and --key must be given together")
    root = str(directory)
    if wanted is not None:
        try:
            weightfiles.checked_digest(wanted)
        except weightfiles.WeightsError as error:
            raise click.BadParameter(str(error), param_hint="--digest") from error
    with _explained(_Unfit):
        found = weightfiles.sizes(root)
        if adapter:
            weightchecks.check_adapter(root, found, None, {}, ())
        else:
            weightchecks.check_model(root, found, engine)
        text = weightfiles.manifest_of(weightfiles.verified(root, wanted, found))
    is_digest = weightfiles.digest_of(text)
    why = None
    if signature:
        pems = {path.name: path.read_text(errors="replace") for path in keys}
        is_trusted, why = signing.is_trusted(is_digest, signature, pems)
        if not is_trusted:
            raise _Unfit(why)
        click.echo(why, err=True)
    _show(output, is_digest, digest=is_digest, trust=why)


def _show(output: str, said: str, **content: Any) -> None:
    from tramontane.cli import tables  # noqa: PLC0415

    tables.show_answer(output, lambda: content, lambda: ([said], []))


def _otherwise(root: str, text: str) -> str:
    """Return in words how a manifest differs from the saved one; empty where none is saved."""
    from tramontane.controllers.inferencedeployment.podfiles import weightfiles  # noqa: PLC0415

    try:
        old = weightfiles.saved(root)
        if old is None:
            return ""
        return weightfiles.differences(weightfiles.parsed(old), weightfiles.parsed(text))
    except weightfiles.Mismatch as error:
        return str(error)


def _digest_of(directory: Path) -> str:
    from tramontane.controllers.inferencedeployment.podfiles import weightfiles  # noqa: PLC0415

    with _explained():
        return weightfiles.digest_of(
            weightfiles.manifest_of(weightfiles.verified(str(directory), None))
        )


@contextmanager
def _explained(unfit: type[click.ClickException] = click.ClickException) -> Iterator[None]:
    """Turn what is wrong into a message; `unfit` is raised where it is the weights."""
    from tramontane.controllers.inferencedeployment.podfiles import weightfiles  # noqa: PLC0415

    try:
        yield
    except weightfiles.WeightsError as error:
        raise unfit(str(error)) from error
    except OSError as error:
        raise click.ClickException(str(error)) from error
