"""Pack the bundle: `python -m tramontane.lab.bundle`."""

import sys
import time
from pathlib import Path

import click

from tramontane.api.errors import TramontaneError
from tramontane.lab.bundle.pack import OUT, pack


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    default=OUT,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the tar, and for the images below it.",
)
@click.option(
    "--accept-newer",
    is_flag=True,
    help="Take a newer Debian package where the mirror has no longer the one of the lock.",
)
def main(*, out: Path, accept_newer: bool) -> None:
    """Pack all that a hall without a network needs into one tar; images are built anew."""
    began = time.monotonic()
    path = pack(out, accept_newer=accept_newer, say=click.echo)
    click.echo(f"bundle: {path}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except TramontaneError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
