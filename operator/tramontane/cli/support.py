"""`tramontane support`: one file for whoever helps, with secrets taken out.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import contextlib
import io
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
@options.system_namespace
@options.cluster
def support(*, path: Path | None, namespace: str, cluster: options.Cluster) -> None:
    """Collect objects, Events, logs and a snapshot into one file, with secrets taken out.

    No Secret and no ConfigMap is read. Values of environment variables, arguments, headers and
    attributes of volumes, and what looks like a key, a token or a password, are replaced. Look into
    the file before you send it: names of jobs, nodes and people are in it.
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
    folder = f"tramontane-support-{stamp}"
    unread = count = 0

    async def work(client: "Client", tar: tarfile.TarFile) -> None:
        nonlocal unread, count
        said = collect(client, namespace, strip, lambda what: click.echo(f"  {what}", err=True))
        async for name, content in said:
            _add(tar, f"{folder}/{name}", content)
            count += 1
            if name == UNREAD:
                unread = content.count("could not be read: ")

    with _archive(target) as tar:
        session.run(cluster, lambda client: work(client, tar))
        _add(tar, f"{folder}/README.txt", _readme(stamp, namespace, strip.removed))
    size_kib = target.stat().st_size / 1024
    taken = strip.removed.total()
    plural = "" if taken == 1 else "s"
    click.echo(f"{target}: {count + 1} files, {size_kib:.0f} KiB, {taken} value{plural} taken out")
    if unread:
        click.echo(f"{unread} of what was asked for could not be read: {UNREAD} says why", err=True)


@contextlib.contextmanager
def _archive(target: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive that is readable by its owner only, and there once it is whole."""
    part = target.with_name(f".{target.name}.part")
    opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    try:
        with os.fdopen(opened, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as tar:
            yield tar
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), _OWNER_ONLY, int(time.time())
    tar.addfile(entry, io.BytesIO(data))


def _readme(stamp: str, namespace: str, removed: Mapping[str, int]) -> str:
    taken = "".join(f"  {kind}: {count}\n" for kind, count in sorted(removed.items()))
    return (
        f"Tramontane support file of {stamp} UTC, components in namespace {namespace}.\n\n"
        "doctor.json    what `tramontane doctor` found\n"
        "*.json         the objects, without managed fields\n"
        "snapshot.json  for `tramontane why|simulate --snapshot` and `tramontane replay`\n"
        "logs/          the last lines of operator, scheduler and agents\n"
        "unread.txt     what could not be read, and why\n\n"
        f"Taken out:\n{taken or '  nothing'}\n"
    )
