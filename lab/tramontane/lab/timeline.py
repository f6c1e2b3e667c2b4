"""Tell a person what happens, as it happens: one line per event, with the time since the start.

On a terminal the line that is still going on is alive (spinner and progress); anywhere else
every line is printed once, plainly, and nothing moves.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Timeline:
    """A story on a console, timed from its making."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()

    def say(self, text: str, *, at: float | None = None, style: str = "") -> None:
        """Print an event; `at` (monotonic, s) when it happened, else now."""
        happened = (time.monotonic() if at is None else at) - self.began
        self.console.print(Text.assemble((f"{happened:7.2f} s  ", "dim"), (text, style)))

    def good(self, text: str, *, at: float | None = None) -> None:
        """Print an event that was hoped for."""
        self.say(text, at=at, style="green")

    def bad(self, text: str, *, at: float | None = None) -> None:
        """Print an event that hurts."""
        self.say(text, at=at, style="bold red")

    @contextmanager
    def during(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show on a terminal that something is going on; print nothing elsewhere.

        What is yielded takes how far it is, for the line that is alive.
        """
        if not self.console.is_terminal:
            yield lambda _: None
            return
        with self.console.status(text) as status:
            yield lambda more: status.update(f"{text}: {more}")


def measured(rows: list[tuple[str, str, str]], title: str) -> Table:
    """Return a table of what was measured: figure, value, budget."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("budget", justify="right", style="dim")
    for row in rows:
        table.add_row(*row)
    return table


def plain(title: str, *columns: str) -> Table:
    """Return a table that looks like kubectl's."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column.upper(), no_wrap=True, header_style="")
    return table
