"""Print tables: with colours where a person looks on, plainly where a program reads.

Nothing is cut off where there is no terminal: `tramontane blade list | grep xid-79` must work.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

_GAP = "  "
# Words that say at a glance how things are; a cell is coloured when it is one of them.
_STYLES = {
    "green": {"Healthy", "Closed", "True", "passed"},
    "yellow": {
        "Suspect", "Draining", "Repairing", "Requalifying", "Qualifying", "Delivered", "Degraded",
        "Unknown",
    },
    "red": {"Quarantined", "RMA", "Lost", "Fatal", "Open", "failed"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; cells are text, empty where there is nothing to say."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = field(default=())
    title: str = ""


def show(table: Table) -> None:
    """Print a table in the way of where it goes to."""
    if sys.stdout.isatty():
        _rich(table)
    else:
        click.echo("\n".join(plain(table)))


def plain(table: Table) -> list[str]:
    """Return the lines of a table in aligned columns, at least two spaces between them."""
    every = [table.headings, *table.rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    lines = [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
    return [table.title, *lines] if table.title else lines


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return `name: value` lines, values aligned; those without a value are left out."""
    given = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in given), default=0) + 1
    return [f"{name + ':':<{width}} {value}" for name, value in given]


def show_json(content: Any) -> None:
    """Print objects as kubectl does."""
    click.echo(json.dumps(content, indent=4, ensure_ascii=False))


def list_of(objects: Sequence[Any]) -> dict[str, Any]:
    """Return objects as the list that kubectl prints."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)}


def age(seconds: float) -> str:
    """Return how long ago something was, in kubectl's way: 45s, 12m, 3h, 5d; never negative."""
    for unit_s, unit, up_to_s in ((1, "s", 120), (60, "m", 7200), (3600, "h", 172_800)):
        if seconds < up_to_s:
            return f"{max(0, int(seconds // unit_s))}{unit}"
    return f"{int(seconds // 86_400)}d"


def _rich(table: Table) -> None:
    from rich import box  # noqa: PLC0415 - slow to import; only for a terminal
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.table import Table as RichTable  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    shown = RichTable(
        box=box.SIMPLE_HEAD, title=table.title or None, title_justify="left", title_style="bold"
    )
    for heading in table.headings:
        shown.add_column(heading, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console(highlight=False).print(shown)


def _style(cell: str) -> str:
    return next((style for style, words in _STYLES.items() if cell in words), "")
