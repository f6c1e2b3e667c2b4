"""`tramontane blade`: what is known of GPU servers, and a person's word on them.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.api.blade import Blade
    from tramontane.kube.client import Client


@click.group()
def blade() -> None:
    """Look at blades, hold them, release them."""


@blade.command("list")
@options.kubeconfig
@click.option("--pool", metavar="NAME", help="Only blades of this pool.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only in this state.")
@options.as_list
def list_(
    *, kubeconfig: Path | None, pool: str | None, states: tuple[str, ...], output: str | None
) -> None:
    """List blades with their state and what is wrong with them."""
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.cli import bladeview, session, tables  # noqa: PLC0415

    wanted = _states(states)
    found = session.run(kubeconfig, lambda client: session.blades_of(client, pool))
    if wanted:
        found = [raw for raw in found if (raw.get("status") or {}).get("state") in wanted]
    if output == "json":
        tables.show_json(tables.list_of(found))
    elif not found:
        click.echo("no blades found", err=True)
    else:
        blades = [Blade.model_validate(raw) for raw in found]
        tables.show(bladeview.table(blades, time.time(), wide=output == "wide"))


@blade.command()
@click.argument("name")
@options.kubeconfig
@options.as_one
def show(*, name: str, kubeconfig: Path | None, output: str | None) -> None:
    """Show all that is known of one blade: faults, tests, repairs, incidents."""
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.cli import bladeview, session, tables  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    raw = session.run(kubeconfig, lambda client: session.get(client, BLADES, name))
    if output == "json":
        tables.show_json(raw)
        return
    lines, more = bladeview.story(Blade.model_validate(raw), time.time())
    click.echo("\n".join(lines))
    for one in more:
        click.echo()
        tables.show(one)


@blade.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@options.reason(required=True)
@options.by
@options.kubeconfig
def hold(*, names: tuple[str, ...], reason: str, by: str | None, kubeconfig: Path | None) -> None:
    """Take blades out of work: nothing new starts there, what runs may end.

    Budget and breaker do not refuse a person, but what is held counts in the budget.
    """
    from tramontane.cli import session, wishes  # noqa: PLC0415

    who = session.person(by, kubeconfig)

    def word(one: "Blade") -> Any:
        return wishes.hold(one, reason, who, time.time())

    _patch_all(kubeconfig, names, word)
    for name in names:
        click.echo(f"Blade {name}: held by {who}: {reason}")
    click.echo(
        "No new work starts there; what runs stays until it ends.\n"
        f'Undo: tramontane blade release {" ".join(names)} --reason "…"'
    )


@blade.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@options.reason(required=True)
@click.option("--skip-burn-in", is_flag=True, help="Back to work without the pool's tests.")
@options.by
@options.kubeconfig
def release(
    *,
    names: tuple[str, ...],
    reason: str,
    skip_burn_in: bool,
    by: str | None,
    kubeconfig: Path | None,
) -> None:
    """Take blades back: ends a hold, a quarantine, a failed test or an RMA until now.

    A fault that is seen again afterwards takes the blade out again.
    """
    from tramontane.cli import session, wishes  # noqa: PLC0415

    who = session.person(by, kubeconfig)

    def word(one: "Blade") -> Any:
        if wishes.is_working(one):
            return None
        return wishes.release(one, reason, who, time.time(), skip_burn_in=skip_burn_in)

    done = _patch_all(kubeconfig, names, word)
    for name in names:
        told = f"released by {who}: {reason}" if name in done else "Healthy already; left as it is"
        click.echo(f"Blade {name}: {told}")
    if done:
        tests = "at once, untested" if skip_burn_in else "when it has passed the pool's tests"
        click.echo(
            f'It works again {tests}.\nUndo: tramontane blade hold {" ".join(done)} --reason "…"'
        )


def _patch_all(kubeconfig: Path | None, names: tuple[str, ...], word: Any) -> list[str]:
    """Write a word to all blades, if all of them exist; return those that needed it."""
    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.cli import session  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    async def work(client: "Client") -> list[str]:
        # A name that is wrong must not leave half of the blades held.
        blades = [
            Blade.model_validate(await session.get(client, BLADES, name))
            for name in dict.fromkeys(names)
        ]
        done = []
        for one in blades:
            patch = word(one)
            if patch is not None:
                await client.merge_patch(BLADES, one.metadata.name, patch)
                done.append(one.metadata.name)
        return done

    return session.run(kubeconfig, work)


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
