"""`tramontane fleet`: pools, racks or blades at a glance, and what is wrong first.

`simulate fleet`, which plays a hall that need not exist, is in `fleet`. Everything heavy is
imported inside the command, so that `--help` answers at once.
"""

import shutil
import sys
import time
from typing import Any

import click

from tramontane.cli import options


def _levels(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
    return [one for one in ("pool", "block", "rack", "blade") if one.startswith(incomplete)]


@click.command(
    epilog=options.examples(
        "tramontane fleet",
        "tramontane fleet --pool paris-a --by rack",
        "tramontane fleet --by blade --no-color",
    )
)
@options.pool
@click.option(
    "--by",
    "by",
    metavar="pool|LEVEL|blade",
    default="pool",
    show_default=True,
    shell_complete=_levels,
    help="A bar for each pool, or for each domain of a level (rack, block, ...); "
    "or a map with a sign for each blade.",
)
@options.output
@options.cluster
def fleet(*, cluster: options.Cluster, pool: str | None, by: str, output: str) -> None:
    """Show pools, racks or blades at a glance, and what is wrong first.

    Signs tell the states apart where there are no colours; the last line says what they mean.
    """
    from tramontane.cli import hallask, hallview, session, tables  # noqa: PLC0415

    hall = session.run(cluster, lambda client: hallask.look(client, pool, with_cells=by != "pool"))
    if by not in {"pool", "blade"} and not hallview.depths(hall.pools, by):
        known = {level.name for one in hall.pools for level in one.spec.topology.levels}
        there = ", ".join(("pool", *sorted(known), "blade"))
        raise click.BadParameter(f'must be one of {there} (got "{by}")', param_hint="--by")
    now = time.time()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if not hall.pools and output not in {"json", "yaml"}:
        click.echo("no pools found", err=True)
        return
    tables.show_answer(
        output,
        lambda: hallview.content(hall, by, now),
        lambda: hallview.story(hall, by, now, width),
    )
