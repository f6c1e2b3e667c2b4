"""Put the generated pages together, and compare them with what is there.

A page whose source is missing is an error here, not an empty page: `make generate` must say so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tramontane.lab.manual import alerts, cli, crds, faults, metrics, reasons, values

FOLDER = Path(__file__).resolve().parents[4] / "docs" / "reference"
PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "crds.md": crds.render,
        "reasons.md": reasons.render,
        "faults.md": faults.render,
        "metrics.md": metrics.render,
        "alerts.md": alerts.render,
        "values.md": values.render,
        "cli.md": cli.render,
    }
)


def write(folder: Path) -> list[Path]:
    """Write all pages into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, render in PAGES.items():
        path = folder / name
        path.write_text(render(), encoding="utf-8")
        written.append(path)
    return written


def stale(folder: Path) -> list[Path]:
    """Return the pages that are missing in a folder or are not what the code says."""
    paths = {folder / name: render for name, render in PAGES.items()}
    return [
        path
        for path, render in paths.items()
        if not path.exists() or path.read_text(encoding="utf-8") != render()
    ]
