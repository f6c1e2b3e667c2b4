"""`tramontane pool`: what a NodePool has and what it lacks.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import time

import click

from tramontane.cli import options


@click.group(cls=options.Group)
def pool() -> None:
    """Look at pools: blades by state, tranches, spares, breaker."""


@pool.command("list")
@options.output
@options.cluster
def list_(*, cluster: options.Cluster, output: str) -> None:
    """List pools with their counts."""
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import poolview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    found = session.run(cluster, lambda client: session.every(client, NODEPOOLS))
    if tables.show_for_programs(output, lambda: tables.list_of(found)):
        return
    if not found:
        click.echo("no pools found", err=True)
    else:
        pools = [NodePool.model_validate(raw) for raw in found]
        tables.show(poolview.table(pools, wide=output == "wide"))


@pool.command()
@click.argument("name", shell_complete=options.complete("nodepools"))
@options.output
@options.cluster
def show(*, name: str, cluster: options.Cluster, output: str) -> None:
    """Show all that is known of one pool."""
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import poolview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    raw = session.run(cluster, lambda client: session.get(client, NODEPOOLS, name))
    tables.show_answer(
        output, lambda: raw, lambda: poolview.story(NodePool.model_validate(raw), time.time())
    )
