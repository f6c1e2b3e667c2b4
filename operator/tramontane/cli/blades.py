"""`tramontane blade`, `quarantine`, `release`: what is known of GPU servers, and a person's word.

`blade hold` and `blade release` are other names of the latter two. Everything heavy is imported
inside the commands, so that `--help` answers at once.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.api.blade import Blade


@click.group(cls=options.Group)
def blade() -> None:
    """Look at blades one by one; hold them, release them."""


@blade.command("list", epilog=options.examples("tramontane blade list --state quarantined"))
@options.pool
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only in this state.")
@options.output
@options.cluster
def list_(
    *, cluster: options.Cluster, pool: str | None, states: tuple[str, ...], output: str
) -> None:
    """List blades with their state and what is wrong with them."""
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.cli import bladeview, session, tables  # noqa: PLC0415

    wanted = _states(states)
    found = session.run(cluster, lambda client: session.blades_of(client, pool))
    if wanted:
        found = [raw for raw in found if (raw.get("status") or {}).get("state") in wanted]
    if tables.show_for_programs(output, lambda: tables.list_of(found)):
        return
    if not found:
        click.echo("no blades found", err=True)
    else:
        blades = [Blade.model_validate(raw) for raw in found]
        tables.show(bladeview.table(blades, time.time(), wide=output == "wide"))


@blade.command()
@click.argument("name", shell_complete=options.complete("blades"))
@options.output
@options.cluster
def show(*, name: str, cluster: options.Cluster, output: str) -> None:
    """Show all that is known of one blade: faults, tests, repairs, incidents."""
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.cli import bladeview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    raw = session.run(cluster, lambda client: session.get(client, BLADES, name))
    tables.show_answer(
        output, lambda: raw, lambda: bladeview.story(Blade.model_validate(raw), time.time())
    )


_names = click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="BLADE...",
    shell_complete=options.complete("blades"),
)


@click.command(
    epilog=options.examples(
        'tramontane quarantine gpu-0417 gpu-0422 --reason "fan swap, ticket 4711"',
        'tramontane quarantine gpu-0417 --reason "fan swap" --dry-run',
    )
)
@_names
@options.reason(required=True)
@options.by
@options.changing
@options.cluster
def quarantine(
    *,
    names: tuple[str, ...],
    reason: str,
    by: str | None,
    cluster: options.Cluster,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Take blades out of work: nothing new starts there, what trains may end, what serves moves.

    Budget and breaker do not refuse a person, but what is held counts in the budget. The plan says
    who uses the blades, and what is left of budget and spares.
    """
    from tramontane.cli import bladeword, changes, effects, session, wishes  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    who = session.person(by, cluster)
    names = _plain(names)
    scene = session.run(cluster, lambda client: bladeword.look(client, names, with_uses=True))
    plan = effects.hold(scene.blades, scene.uses, scene.pools, reason, who)
    if not changes.agreed(plan, yes=yes, dry_run=dry_run, output=output):
        return

    def word(one: "Blade") -> Any:
        return wishes.hold(one, reason, who, time.time())

    session.run(cluster, lambda client: bladeword.write(client, names, word))
    changes.show(
        output,
        plan,
        [changes.Done(BLADES.kind, name, f"held by {who}: {reason}") for name in names],
        "No new work starts there; gangs that train stay until they end, replicas of models move.",
        f'Undo: tramontane release {" ".join(names)} --reason "…"',
    )


@click.command(
    epilog=options.examples(
        'tramontane release gpu-0417 --reason "new fan"',
        'tramontane release gpu-0417 --reason "was no fault" --skip-burn-in',
    )
)
@_names
@options.reason(required=True)
@click.option("--skip-burn-in", is_flag=True, help="Back to work without the pool's tests.")
@options.by
@options.changing
@options.cluster
def release(
    *,
    names: tuple[str, ...],
    reason: str,
    skip_burn_in: bool,
    by: str | None,
    cluster: options.Cluster,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Take blades back: ends a hold, a quarantine, a failed test or an RMA until now.

    A fault that the blade's agent still reports takes it out again.
    """
    from tramontane.cli import bladeword, changes, effects, session, wishes  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    who = session.person(by, cluster)
    names = _plain(names)
    scene = session.run(cluster, lambda client: bladeword.look(client, names))
    fine = [one.metadata.name for one in scene.blades if wishes.is_working(one)]
    left = f"{effects.HEALTHY}; left as it is"
    told = [changes.Done(BLADES.kind, name, left, written=False) for name in fine]
    outs = tuple(name for name in names if name not in fine)
    if not outs:
        changes.show(output, None, told)
        return
    plan = effects.release(scene.blades, scene.pools, reason, who, skip_burn_in=skip_burn_in)
    if not changes.agreed(plan, yes=yes, dry_run=dry_run, output=output):
        return

    def word(one: "Blade") -> Any:
        if wishes.is_working(one):
            return None
        return wishes.release(one, reason, who, time.time(), skip_burn_in=skip_burn_in)

    done = session.run(cluster, lambda client: bladeword.write(client, outs, word))
    for name in outs:
        message = f"released by {who}: {reason}" if name in done else left
        told.append(changes.Done(BLADES.kind, name, message, written=name in done))
    tests = "at once, untested" if skip_burn_in else "when it has passed what tests its pool has"
    undo = f'Undo: tramontane quarantine {" ".join(done)} --reason "…"'
    changes.show(output, plan, told, *((f"It works again {tests}.", undo) if done else ()))


blade.add_command(quarantine, "hold")
blade.add_command(release)


def _plain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names without `blade/` before them, each once."""
    from tramontane.cli import objects  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    return tuple(dict.fromkeys(objects.parse(name, [BLADES]).name for name in names))


def _states(given: tuple[str, ...]) -> frozenset[str]:
    """Return the states as the API spells them, whatever their case."""
    from tramontane.api.blade import BladeState  # noqa: PLC0415

    known = {state.value.lower(): state.value for state in BladeState}
    for one in given:
        if one.lower() not in known:
            raise click.BadParameter(
                f'must be one of {", ".join(known.values())} (got "{one}")', param_hint="--state"
            )
    return frozenset(known[one.lower()] for one in given)
