"""Show what a change would do before it is done, and ask: nothing is written unseen.

| terminal | --yes | --dry-run | what happens                                          |
|----------|-------|-----------|-------------------------------------------------------|
| any      | any   | yes       | the plan is shown; nothing is written                 |
| any      | yes   | no        | the plan is shown and done                            |
| yes      | no    | no        | the plan is shown, a person is asked; no is status 1  |
| no       | no    | no        | the plan is shown; nothing is written; status 2       |

Plan and question are for people, on standard error. Standard output says what was done; to programs
it is one object, `{"plan": …, "result": […]}`, and after a dry run the result is empty.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from tramontane.cli import tables
from tramontane.cli.tables import Table


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what a change writes and what follows from it: for people, and for programs."""

    lines: tuple[str, ...]
    tables: Sequence[Table] = ()
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """Hold what became of one object; `message` begins in lower case, as after its name."""

    kind: str
    name: str
    message: str
    written: bool = True

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.message}"


def agreed(plan: Plan, *, yes: bool, dry_run: bool, output: str) -> bool:
    """Show the plan; return whether to do it.

    Raises:
        click.UsageError: there is nobody to ask.
        click.Abort: a person said no.
    """
    click.echo("\n".join(plan.lines), err=True)
    for one in plan.tables:
        click.echo("\n".join(("", *tables.plain(one))), err=True)
    click.echo(err=True)
    if dry_run:
        click.echo("dry run: nothing is written", err=True)
        show(output, plan, [])
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(
            "a change must be confirmed (got no terminal to ask on); give --yes to make it. "
            "Nothing is written"
        )
    if not click.confirm("Do it?", err=True):
        click.echo("nothing is written", err=True)
        raise click.Abort
    return True


def show(output: str, plan: Plan | None, done: Sequence[Done], *more: str) -> None:
    """Print what was done, and to people `more` below it; no plan where nothing was to be done."""
    tables.show_answer(
        output,
        lambda: {
            "plan": None if plan is None else dict(plan.content),
            "result": [asdict(one) for one in done],
        },
        lambda: ([*map(str, done), *more], []),
    )
