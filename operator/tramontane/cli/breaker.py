"""`tramontane breaker`: quarantines have stopped because too many blades failed at once.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.api.nodepool import NodePool
    from tramontane.kube.client import Client


@click.group()
def breaker() -> None:
    """Look at the breaker of a pool, and close it."""


@breaker.command()
@click.argument("pool")
@options.kubeconfig
def show(*, pool: str, kubeconfig: Path | None) -> None:
    """Show whether the breaker is open, why, and which blades wait behind it."""
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.api.nodepool import BreakerState, NodePool  # noqa: PLC0415
    from tramontane.cli import bladeview, poolview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    async def look(client: "Client") -> tuple["NodePool", list[Blade]]:
        found = NodePool.model_validate(await session.get(client, NODEPOOLS, pool))
        blades = [Blade.model_validate(raw) for raw in await session.blades_of(client, pool)]
        return found, blades

    found, blades = session.run(kubeconfig, look)
    now = time.time()
    facts = [("Pool", pool), *poolview.breaker_facts(found, now)]
    click.echo("\n".join(tables.facts(facts)))
    concerned = bladeview.behind_breaker(blades)
    if concerned:
        click.echo("\nOut, or to go out once it is closed:")
        tables.show(bladeview.table(concerned, now, wide=False))
    state = found.status.breaker.state if found.status.breaker is not None else None
    if state is BreakerState.OPEN:
        click.echo(f"\nWhen the cause is found: tramontane breaker close {pool}")


@breaker.command()
@click.argument("pool")
@options.reason(required=False)
@options.by
@options.kubeconfig
def close(*, pool: str, reason: str | None, by: str | None, kubeconfig: Path | None) -> None:
    """Close the breaker: faults take blades out again, counted from now."""
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import session, wishes  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    who = session.person(by, kubeconfig)

    async def work(client: "Client") -> tuple["NodePool", bool]:
        found = NodePool.model_validate(await session.get(client, NODEPOOLS, pool))
        patch = wishes.close_breaker(found, reason, who, time.time())
        if patch is not None:
            await client.merge_patch(NODEPOOLS, pool, patch)
        return found, patch is not None

    found, done = session.run(kubeconfig, work)
    if not done:
        click.echo(f"NodePool {pool}: the breaker is closed; left as it is")
        return
    opened = found.status.breaker
    rule = found.spec.remediation.breaker
    why = f" ({opened.reason})" if opened is not None and opened.reason else ""
    click.echo(
        f"NodePool {pool}: breaker closed by {who}{why}\n"
        f"Faults take blades out again; {rule.threshold} within {rule.window} open it again.\n"
        "To stop them altogether: "
        f"kubectl patch nodepool {pool} --type merge "
        '-p \'{"spec":{"remediation":{"mode":"DryRun"}}}\''
    )
