"""Take one picture of each board, and say of each panel whether it shows anything."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tramontane.lab.observe.pictures.browser import Page
from tramontane.lab.observe.pictures.image import shrink
from tramontane.lab.paths import LabError

WIDTH = 1600
_FIRST_HEIGHT = 3200  # panels must be inside the window to be drawn
_MOST_HEIGHT = 8000


@dataclass(frozen=True, slots=True)
class PanelReport:
    """What the page says of one panel: `data`, `empty`, `error`, or `still` (text, rows)."""

    title: str
    type: str
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture that was taken."""

    board: str
    path: Path
    size: int
    height: int
    panels: tuple[PanelReport, ...]

    @property
    def lacking(self) -> tuple[PanelReport, ...]:
        """The panels that show nothing."""
        return tuple(panel for panel in self.panels if panel.state in {"empty", "error"})


@dataclass(frozen=True, slots=True)
class Scene:
    """What all pictures of one run have in common: times (s since 1970) and chosen variables."""

    start: float
    end: float
    show: Mapping[str, str | Sequence[str]]

    def address(self, server: str, board: str) -> str:
        """Return the address of one board's page."""
        chosen = [
            (f"var-{name}", value)
            for name, values in self.show.items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        times = [("from", str(round(self.start * 1000))), ("to", str(round(self.end * 1000)))]
        return f"{server}/?{urlencode([('board', board), *times, *chosen])}"


def read_boards(folder: Path) -> dict[str, Any]:
    """Return the classic JSON of all boards in a folder, by short name.

    Raises:
        LabError: there is none.
    """
    boards = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not boards:
        raise LabError(f"boards: must lie in {folder} (got none); run `make generate`")
    return boards


def _write(path: Path, png: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    return path


async def take(page: Page, server: str, board: str, scene: Scene, out: Path) -> Shot:
    """Draw one board and write `OUT/BOARD.png`.

    Raises:
        LabError: the page failed altogether; a panel that fails is in the report.
    """
    page.console.clear()
    await page.go(scene.address(server, board), width=WIDTH, height=_FIRST_HEIGHT)
    report = await page.ask("window.pictures")
    height = min(report["height"], _MOST_HEIGHT)
    png = await asyncio.to_thread(shrink, await page.photograph(width=WIDTH, height=height))
    path = await asyncio.to_thread(_write, out / f"{board}.png", png)
    panels = tuple(PanelReport(**panel) for panel in report["panels"])
    return Shot(board, path, len(png), height, panels)
