"""`tramontane breaker`: quarantines have stopped because too many blades failed at once.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.api.blade import Blade
    from tramontane.api.nodepool import NodePool
    from tramontane.cli.tables import Table
    from tramontane.kube.client import Client

_pool = click.argument("pool", shell_complete=options.complete("nodepools"))


@click.group(cls=options.Group)
def breaker() -> None:
    """Look at the breaker of a pool, and close it."""


@breaker.command(epilog=options.examples("tramontane breaker show paris-a"))
@_pool
@options.output
@options.cluster
def show(*, pool: str, cluster: options.Cluster, output: str) -> None:
    """Show whether the breaker is open, why, and which blades wait behind it."""
    from tramontane.api.nodepool import BreakerState  # noqa: PLC0415
    from tramontane.cli import bladeview, poolview, session, tables  # noqa: PLC0415

    found, blades = session.run(cluster, lambda client: _look(client, pool))
    concerned = bladeview.behind_breaker(blades)
    breaker = found.status.breaker
    now = time.time()

    def content() -> dict[str, Any]:
        names = [one.metadata.name for one in concerned]
        told = breaker.to_dict() if breaker is not None else {"state": BreakerState.CLOSED.value}
        return {"pool": pool, "breaker": told, "blades": names}

    def view() -> tuple[list[str], list["Table"]]:
        is_open = breaker is not None and breaker.state is BreakerState.OPEN
        lines = tables.facts([("Pool", pool), *poolview.breaker_facts(found, now)])
        if is_open:
            lines.append(f"\nWhen the cause is found: tramontane breaker close {pool}")
        table = bladeview.table(concerned, now, wide=output == "wide")
        title = "Out, or to go out once it is closed" if is_open else "Out by a fault"
        return lines, [replace(table, title=title)] if concerned else []

    tables.show_answer(output, content, view)


@breaker.command(
    epilog=options.examples(
        'tramontane breaker close paris-a --reason "switch 12 replaced"',
        "tramontane breaker close paris-a --dry-run",
    )
)
@_pool
@options.reason(required=False)
@options.by
@options.changing
@options.cluster
def close(
    *,
    pool: str,
    reason: str | None,
    by: str | None,
    cluster: options.Cluster,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Close the breaker: faults take blades out again, counted from now."""
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import changes, effects, session, wishes  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    who = session.person(by, cluster)
    found, blades = session.run(cluster, lambda client: _look(client, pool))

    def left(why: str) -> changes.Done:
        return changes.Done(NODEPOOLS.kind, pool, f"{why}; left as it is", written=False)

    if wishes.close_breaker(found, reason, who, time.time()) is None:
        changes.show(output, None, [left("the breaker is closed")])
        return
    plan = effects.close_breaker(found, blades, reason, who)
    if not changes.agreed(plan, yes=yes, dry_run=dry_run, output=output):
        return

    async def work(client: "Client") -> bool:
        # What was shown may be old: a breaker that opened anew since has a newer time.
        fresh = NodePool.model_validate(await session.get(client, NODEPOOLS, pool))
        patch = wishes.close_breaker(fresh, reason, who, time.time())
        if patch is not None:
            await client.merge_patch(NODEPOOLS, pool, patch)
        return patch is not None

    if not session.run(cluster, work):
        changes.show(output, plan, [left("somebody has closed the breaker")])
        return
    opened = found.status.breaker
    rule = found.spec.remediation.breaker
    why = f" ({opened.reason})" if opened is not None and opened.reason else ""
    changes.show(
        output,
        plan,
        [changes.Done(NODEPOOLS.kind, pool, f"breaker closed by {who}{why}")],
        f"Faults take blades out again; {rule.threshold} within {rule.window} open it again.",
        "To stop them altogether: "
        f"kubectl patch nodepool {pool} --type merge "
        '-p \'{"spec":{"remediation":{"mode":"DryRun"}}}\'',
    )


async def _look(client: "Client", pool: str) -> tuple["NodePool", list["Blade"]]:
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.api.nodepool import NodePool  # noqa: PLC0415
    from tramontane.cli import session  # noqa: PLC0415
    from tramontane.kube.resources import NODEPOOLS  # noqa: PLC0415

    found = NodePool.model_validate(await session.get(client, NODEPOOLS, pool))
    return found, [Blade.model_validate(raw) for raw in await session.blades_of(client, pool)]
