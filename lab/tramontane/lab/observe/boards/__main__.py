"""Write the boards into a folder, by default the chart's: `python -m ... [DIR]`."""

import sys
from pathlib import Path
from typing import Final

from tramontane.lab.observe.boards import all_boards

FOLDER: Final = Path(__file__).resolve().parents[5] / "charts/tramontane/files/dashboards"


def write(folder: Path) -> None:
    """Write one file per board, and remove those of boards that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    boards = all_boards()
    for stale in set(folder.glob("*.json")) - {folder / board.file_name for board in boards}:
        stale.unlink()
    for board in boards:
        (folder / board.file_name).write_text(board.text(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
