"""Take the pictures of all boards: of a live lab of our own, or of a Prometheus that is told.

python -m tramontane.lab.observe.pictures
python -m tramontane.lab.observe.pictures --prometheus http://127.0.0.1:9090 --only fleet
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tramontane.lab.observe.pictures import bundle, scenes
from tramontane.lab.observe.pictures.browser import chromium, find
from tramontane.lab.observe.pictures.server import application, serving
from tramontane.lab.observe.pictures.shots import Scene, Shot, read_boards, take
from tramontane.lab.paths import LabError

ROOT = Path(__file__).resolve().parents[5]
BOARDS = ROOT / "charts" / "tramontane" / "files" / "dashboards"
PICTURES = ROOT / "docs" / "images" / "boards"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tramontane.lab.observe.pictures", description=__doc__)
    parser.add_argument("--prometheus", help="its address; without it a live lab is started")
    parser.add_argument("--scrape", type=float, default=2.0, help="its scrape interval (s)")
    parser.add_argument("--minutes", type=float, default=6.0, help="how much to show (6)")
    parser.add_argument("--until", type=float, help="the end (s since 1970), for old data; now")
    parser.add_argument("--boards", type=Path, default=BOARDS, help="folder of the boards' JSON")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder for the pictures")
    parser.add_argument("--only", action="append", default=[], help="a board's short name")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="choose")
    parser.add_argument("--strict", action="store_true", help="fail if a panel shows nothing")
    return parser.parse_args(argv)


async def photograph(options: argparse.Namespace, live: scenes.Live) -> list[Shot]:
    """Take the pictures that the command line asks for."""
    boards = read_boards(options.boards)
    if unknown := set(options.only) - set(boards):
        raise LabError(f"--only: must name boards of {options.boards} (got {sorted(unknown)})")
    chosen = dict(word.split("=", 1) for word in options.var)
    end = options.until or time.time() - 2 * live.scrape_s
    scene = Scene(end - options.minutes * 60, end, {**live.show, **chosen})
    app = application(bundle.build(), boards, live.prometheus, live.scrape_s)
    shots = []
    async with serving(app) as server, chromium() as page:
        for name in options.only or boards:
            shot = await take(page, server, name, scene, options.out)
            _tell(shot)
            shots.append(shot)
    return shots


def _tell(shot: Shot) -> None:
    drawn = sum(panel.state == "data" for panel in shot.panels)
    print(  # noqa: T201 - what the command is run for
        f"{shot.path}: 1600 x {shot.height}, {shot.size / 1000:.0f} kB, {drawn} panels with data"
    )
    for panel in shot.lacking:
        print(f"  {panel.state}: {panel.title} ({panel.type}) {panel.message}".rstrip())  # noqa: T201


async def run(options: argparse.Namespace) -> int:
    """Do it all; return the exit code: 1 where `--strict` finds a panel that shows nothing."""
    find()  # before minutes are spent on a lab
    bundle.build()
    if options.prometheus:
        live = scenes.Live(options.prometheus, options.scrape, {})
        shots = await photograph(options, live)
    else:
        async with scenes.lab(options.minutes) as live:
            shots = await photograph(options, live)
    return int(options.strict and any(shot.lacking for shot in shots))


def main() -> None:
    """Take the pictures."""
    try:
        sys.exit(asyncio.run(run(parse(sys.argv[1:]))))
    except LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
