"""Build the images or renew their lock: `python -m tramontane.lab.image build|lock`."""

import sys
import time
from pathlib import Path

import click

from tramontane.api.errors import TramontaneError
from tramontane.lab.image import debian
from tramontane.lab.image.build import OUT, build
from tramontane.lab.image.recipe import IMAGES, read_base
from tramontane.lab.image.smoke import lacking, smoke


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Build Tramontane's two images without a container engine and without root."""


@main.command("build")
@click.option(
    "--out",
    default=OUT,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the archives; it is emptied first.",
)
@click.option(
    "--image",
    "names",
    multiple=True,
    type=click.Choice(IMAGES),
    help="Only this one [default: all].",
)
@click.option(
    "--accept-newer",
    is_flag=True,
    help="Take a newer Debian package where the mirror has no longer the one of the lock.",
)
def build_command(*, out: Path, names: tuple[str, ...], accept_newer: bool) -> None:
    """Write OCI archives, bills of materials and images.txt, and start what must start."""
    began = time.monotonic()
    built = build(out, names or IMAGES, accept_newer=accept_newer, say=click.echo)
    if reason := lacking():
        click.echo(f"smoke: skipped: {reason}")
    else:
        for one in built:
            for line in smoke(one):
                click.echo(f"{one.name}: {line}")
    click.echo(f"image: {len(built)} in {out}, {time.monotonic() - began:.0f} s")


@main.command("lock")
def lock_command() -> None:
    """Take the newest versions of Debian's packages into images/base.lock."""
    packages = debian.Apt(read_base()).newest()
    debian.write_lock(packages)
    click.echo(f"lock: {len(packages)} packages in {debian.LOCK}")


if __name__ == "__main__":
    try:
        main()
    except TramontaneError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
