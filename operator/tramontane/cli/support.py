"""`tramontane support`: one file for whoever helps, with secrets taken out.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import io
import os
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tramontane.api.names import SYSTEM_NAMESPACE
from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.kube.client import Client

_OWNER_ONLY = 0o600


@click.command()
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=options.no_format,
    help="File to write (default: tramontane-support-TIME.tar.gz here).",
)
@click.option(
    "-n",
    "--namespace",
    default=SYSTEM_NAMESPACE,
    show_default=True,
    help="Namespace of the components.",
)
@options.cluster
def support(*, path: Path | None, namespace: str, cluster: options.Cluster) -> None:
    """Collect objects, Events, logs and a snapshot into one file, with secrets taken out.

    No Secret and no ConfigMap is read; values of environment variables and what looks like a key,
    a token or a password are replaced. Look into the file before you send it: names of jobs, nodes
    and people are in it.
    """
    from tramontane.api.errors import InvalidValue  # noqa: PLC0415
    from tramontane.cli import session  # noqa: PLC0415
    from tramontane.cli.supportask import UNREAD, collect  # noqa: PLC0415
    from tramontane.cli.supportstrip import Stripper  # noqa: PLC0415

    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    target = path or Path(f"tramontane-support-{stamp}.tar.gz")
    if target.exists():
        raise InvalidValue(f"{target}: must not exist yet", remedy="name another file by -o")
    strip = Stripper()

    async def work(client: "Client") -> dict[str, str]:
        said = collect(client, namespace, strip, lambda what: click.echo(f"  {what}", err=True))
        return {name: content async for name, content in said}

    files = session.run(cluster, work)
    files["README.txt"] = _readme(stamp, namespace, strip)
    _write(target, files, f"tramontane-support-{stamp}")
    size_kib = target.stat().st_size / 1024
    click.echo(f"{target}: {len(files)} files, {size_kib:.0f} KiB, {_count(strip)}")
    if unread := files[UNREAD].count("could not be read: "):
        click.echo(f"{unread} of what was asked for could not be read: {UNREAD} says why", err=True)


def _write(target: Path, files: dict[str, str], folder: str) -> None:
    """Write the archive, readable by its owner only; all of it or nothing."""
    part = target.with_name(f".{target.name}.part")
    opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    try:
        with os.fdopen(opened, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for name, content in sorted(files.items()):
                data = content.encode()
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mode, entry.mtime = len(data), _OWNER_ONLY, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _readme(stamp: str, namespace: str, strip: "object") -> str:
    from tramontane.cli.supportstrip import Stripper  # noqa: PLC0415

    assert isinstance(strip, Stripper)
    taken = "".join(f"  {kind}: {count}\n" for kind, count in sorted(strip.removed.items()))
    return (
        f"Tramontane support file of {stamp} UTC, components in namespace {namespace}.\n\n"
        "doctor.json    what `tramontane doctor` found\n"
        "*.json         the objects, without managed fields\n"
        "snapshot.json  for `tramontane why|simulate --snapshot` and `tramontane replay`\n"
        "logs/          the last lines of operator, scheduler and agents\n"
        "unread.txt     what could not be read, and why\n\n"
        f"Taken out:\n{taken or '  nothing'}\n"
    )


def _count(strip: "object") -> str:
    from tramontane.cli.supportstrip import Stripper  # noqa: PLC0415

    assert isinstance(strip, Stripper)
    count = strip.removed.total()
    return f"{count} value{'' if count == 1 else 's'} taken out"
