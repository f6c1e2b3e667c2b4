"""`tramontane pool`: what a NodePool has and what it lacks.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import time
from pathlib import Path

import click

from tramontane.cli import options


@click.group()
def pool() -> None:
    """Look at pools: blades by state, tranches, spares, breaker."""


@pool.command("list")
@options.kubeconfig
@options.as_list
def list_(*, kubeconfig: Path | None, output: str | None) -> None:
    """List pools with their counts."""
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import poolview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    found = session.run(kubeconfig, lambda client: session.every(client, NODEPOOLS))
    if output == "json":
        tables.show_json(tables.list_of(found))
    elif not found:
        click.echo("no pools found", err=True)
    else:
        pools = [NodePool.model_validate(raw) for raw in found]
        tables.show(poolview.table(pools, wide=output == "wide"))


@pool.command()
@click.argument("name")
@options.kubeconfig
@options.as_one
def show(*, name: str, kubeconfig: Path | None, output: str | None) -> None:
    """Show all that is known of one pool."""
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import poolview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    raw = session.run(kubeconfig, lambda client: session.get(client, NODEPOOLS, name))
    if output == "json":
        tables.show_json(raw)
        return
    lines, more = poolview.story(NodePool.model_validate(raw), time.time())
    click.echo("\n".join(lines))
    for one in more:
        click.echo()
        tables.show(one)
