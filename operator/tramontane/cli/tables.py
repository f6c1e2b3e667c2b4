"""Print answers: with colours where a person looks on, plainly where a program reads.

Nothing is cut off where there is no terminal: `tramontane blade list | grep xid-79` must work.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click

from tramontane.cli import options

_GAP = "  "
# Words that say at a glance how things are; a cell is coloured when it is one of them.
_STYLES = {
    "green": {"Healthy", "Closed", "True", "passed", "Running", "Serving", "Succeeded", "Placed"},
    "yellow": {
        "Suspect", "Draining", "Repairing", "Requalifying", "Qualifying", "Delivered", "Degraded",
        "Unknown", "Queued", "Starting", "Recovering", "Checkpointing", "Suspended", "Pending",
        "Preempting", "Waiting", "Loading", "RollingOut", "RolledBack", "Warning",
    },
    "red": {"Quarantined", "RMA", "Lost", "Fatal", "Open", "failed", "Failed"},
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


def styled(table: Table) -> list[str]:
    """Return the lines of a table as `plain` does, with words coloured that say how things are."""
    head, *rest = plain(replace(table, title=""))
    widths = [
        max(len(row[column]) for row in (table.headings, *table.rows))
        for column in range(len(table.headings))
    ]
    lines = []
    for row, text in zip(table.rows, rest, strict=True):
        line = text
        # From the right, so that what is inserted moves nothing that is still to be found.
        for column in reversed(range(len(row))):
            if color := _style(row[column]):
                start = sum(widths[:column]) + len(_GAP) * column
                end = start + len(row[column])
                line = f"{line[:start]}{click.style(line[start:end], fg=color)}{line[end:]}"
        lines.append(line)
    return [*([table.title] if table.title else []), click.style(head, dim=True), *lines]


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return `name: value` lines, values aligned; those without a value are left out."""
    given = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in given), default=0) + 1
    return [f"{name + ':':<{width}} {value}" for name, value in given]


def show_json(content: Any) -> None:
    """Print objects as kubectl does."""
    click.echo(json.dumps(content, indent=4, ensure_ascii=False))


def show_for_programs(output: str, content: Callable[[], Any]) -> bool:
    """Print all of an answer where it was asked for as JSON or YAML; return whether it was."""
    if output == "json":
        show_json(content())
    elif output == "yaml":
        import yaml  # noqa: PLC0415 - slow to import

        click.echo(yaml.safe_dump(content(), sort_keys=False, allow_unicode=True), nl=False)
    return output in {"json", "yaml"}


def show_answer(
    output: str, content: Callable[[], Any], view: Callable[[], tuple[list[str], Iterable[Table]]]
) -> None:
    """Print an answer: for programs as it is, for people as lines and tables after them."""
    if show_for_programs(output, content):
        return
    lines, more = view()
    say(*lines)
    for one in more:
        click.echo()
        show(one)


def say(*lines: str) -> None:
    """Print lines that may be styled; the styles go where nobody wants them."""
    if lines:
        click.echo("\n".join(lines), color=None if options.wants_color() else False)


def list_of(objects: Sequence[Any]) -> dict[str, Any]:
    """Return objects as the list that kubectl prints."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)}


def counted(count: int, what: str) -> str:
    """Return a number with its noun: `1 gang`, `1,024 gangs`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def cut(text: str, width: int | None) -> str:
    """Return a text that is no longer than `width`; all of it where that is None."""
    return text if width is None or len(text) <= width else f"{text[: max(0, width - 1)]}…"


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
    Console(highlight=False, no_color=not options.wants_color() or None).print(shown)


def _style(cell: str) -> str:
    """Return the style of a word; empty for all that is no such word."""
    return next((style for style, words in _STYLES.items() if cell in words), "")
