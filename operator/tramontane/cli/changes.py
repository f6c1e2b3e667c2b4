"""Show what a change would do before it is done, and ask: nothing is written unseen.

| terminal | --yes | --dry-run | what happens                                          |
|----------|-------|-----------|-------------------------------------------------------|
| any      | any   | yes       | the plan is shown; nothing is written                 |
| any      | yes   | no        | the plan is shown and done                            |
| yes      | no    | no        | the plan is shown, a person is asked; no is status 1  |
| no       | no    | no        | the plan is shown; nothing is written; status 2       |
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from tramontane.cli import tables
from tramontane.cli.tables import Table


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what a change writes and what follows from it, for people."""

    lines: tuple[str, ...]
    tables: Sequence[Table] = ()


def agreed(plan: Plan, *, yes: bool, dry_run: bool) -> bool:
    """Show the plan; return whether to do it.

    It goes to standard error, so that standard output says what was done.

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
