"""`tramontane lab`: a whole cluster on this machine, to try things and to break them.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from tramontane.lab.paths import own_command, state_dir

_SCENARIOS = ("thousand", "tranche", "serve")

_folder = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=state_dir,
    show_default="your state folder",
    help="Where this lab keeps keys, logs and data; one lab per folder.",
)
# As `tramontane.cli.options` has it, which the lab may not import.
_output = click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "wide", "json", "yaml")),
    default="table",
    show_default=True,
    help="json, yaml: for programs.",
)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, or to SIGTERM, which is handled like Ctrl-C: by cleaning up."""

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    try:
        asyncio.run(watched())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.ClickException("stopped; nothing is left running") from None


@click.group()
def lab() -> None:
    """Run a real control plane with simulated blades, and a few real nodes, on this machine."""


@lab.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="All of them, also kubectl and helm.")
@click.option("--real-nodes", is_flag=True, help="Also what real nodes run: kubelet, CoreDNS.")
def build(*, names: tuple[str, ...], everything: bool, real_nodes: bool) -> None:
    """Build the control plane's programs, or those NAMEd, into the cache (minutes, once).

    Says where each is: `tramontane lab build kubectl`.
    """
    from tramontane.lab.binaries import (  # noqa: PLC0415
        BINARIES,
        CONTROL_PLANE,
        REAL_NODES,
        ensure,
    )

    if unknown := set(names) - set(BINARIES):
        raise click.BadParameter(
            f"must be among {', '.join(sorted(BINARIES))} (got {', '.join(sorted(unknown))})",
            param_hint="NAME",
        )
    chosen = names or (*CONTROL_PLANE, *(REAL_NODES if real_nodes else ()))
    for name, path in ensure(tuple(BINARIES) if everything else chosen).items():
        click.echo(f"{name:24} {path}")


@lab.command()
@_folder
@click.option("--blades", type=click.IntRange(0, 20_000), default=136, show_default=True)
@click.option(
    "--real-nodes",
    type=click.IntRange(0, 16),
    default=0,
    show_default=True,
    help="Also so many real kubelets with containers, real-0001 and so on (as root).",
)
@click.option(
    "--gpus", type=click.IntRange(1, 16), default=8, show_default=True, help="GPUs per blade."
)
@click.option("--rack", type=click.Choice(["8", "16"]), default="16", show_default=True)
@click.option(
    "--real-agents",
    default="",
    metavar="BLADE,...",
    help="Blades whose agent is a process of its own over a simulated NVML library.",
)
@click.option(
    "--pool",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A NodePool to apply instead of the plain one that takes all blades.",
)
@click.option("--no-pool", is_flag=True, help="Apply no NodePool.")
@click.option("--no-components", is_flag=True, help="Start neither operator nor scheduler.")
def up(
    *,
    folder: Path,
    blades: int,
    real_nodes: int,
    gpus: int,
    rack: str,
    real_agents: str,
    pool: Path | None,
    no_pool: bool,
    no_components: bool,
) -> None:
    """Start a cluster that stays up until `tramontane lab down`."""
    import yaml  # noqa: PLC0415

    from tramontane.lab.binaries import CONTROL_PLANE, REAL_NODES, ensure  # noqa: PLC0415
    from tramontane.lab.cluster import COMPONENTS, Lab, Setup, pool_of  # noqa: PLC0415
    from tramontane.lab.fleet import Layout  # noqa: PLC0415
    from tramontane.lab.nodes.plan import node_name  # noqa: PLC0415

    if not blades and not real_nodes:
        raise click.BadParameter(
            "must be at least 1 (got 0), or use --real-nodes", param_hint="--blades"
        )
    layout = Layout(blades=blades, rack=int(rack), gpus=gpus)
    chosen = yaml.safe_load(pool.read_text()) if pool else pool_of(layout)
    real = tuple(name.strip() for name in real_agents.split(",") if name.strip())
    if unknown := set(real) - set(layout.names()):
        names = list(layout.names())
        known = f"among {names[0]} to {names[-1]}" if names else "none, without simulated blades"
        raise click.BadParameter(
            f"must be {known} (got {', '.join(sorted(unknown))})",
            param_hint="--real-agents",
        )
    setup = Setup(
        layout=layout,
        pool=None if no_pool or no_components else chosen,
        components=() if no_components else tuple(COMPONENTS),
        simulated_agents=not no_components,  # without blades they would only ask for them
        real_agents=real,
        real_nodes=real_nodes,
    )
    ensure((*CONTROL_PLANE, *(REAL_NODES if real_nodes else ())))

    async def start() -> None:
        cluster = Lab(folder, setup, attached=False, say=click.echo)
        await cluster.start()
        await cluster.close()

    _run(start())
    where = "" if folder == state_dir() else f" --dir {folder}"
    first = next(iter(layout.names()), node_name(1))
    ours = own_command()
    power = f"{ours} lab power off {node_name(1)}{where}\n" if real_nodes else ""
    click.echo(
        f"\nexport KUBECONFIG={folder / 'kubeconfig'}\n"
        f"{ours} lab status{where}\n"
        f"{ours} lab inject {first} gpu-lost --gpu 3{where}\n"
        f"{power}"
        f"{ours} lab down{where}"
    )


@lab.command()
@click.option("--keep", is_flag=True, help="Leave the cluster up and print its KUBECONFIG.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Folder of the cluster (default: own)."
)
@click.option(
    "--scenario",
    type=click.Choice(_SCENARIOS),
    default=_SCENARIOS[0],
    show_default=True,
    help="thousand: 1,024 GPUs train, one falls off the bus, the job is whole again. "
    "tranche: 64 blades arrive, five are bad in different ways, and each is found. "
    "serve: trained weights are served, a slow canary is rolled back, a blade dies, and no request "
    "is lost (real kubelets: needs root and containerd).",
)
def demo(*, keep: bool, folder: Path | None, scenario: str) -> None:
    """Show what Tramontane does, in a cluster of its own."""
    import tempfile  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from tramontane.lab import demo as thousand  # noqa: PLC0415
    from tramontane.lab import demo_serve as serve  # noqa: PLC0415
    from tramontane.lab import demo_tranche as tranche  # noqa: PLC0415
    from tramontane.lab.binaries import CONTROL_PLANE, REAL_NODES, ensure  # noqa: PLC0415

    run = {"thousand": thousand, "tranche": tranche, "serve": serve}[scenario].run
    if scenario == "serve":
        serve.check_machine()  # before minutes go into building
    ensure((*CONTROL_PLANE, *(REAL_NODES if scenario == "serve" else ())))

    async def show(where: Path) -> None:
        if broken := await run(where, Console(highlight=False), keep=keep):
            raise SystemExit(broken)

    if keep or folder:
        _run(show(folder or state_dir()))
    else:
        with tempfile.TemporaryDirectory(prefix="tramontane-demo-") as temporary:
            _run(show(Path(temporary)))


@lab.command()
@_folder
def down(*, folder: Path) -> None:
    """Stop the cluster and throw its data away, unasked: a lab is for trying. The logs stay."""
    from tramontane.lab.cluster import down as stop  # noqa: PLC0415

    count = stop(folder)
    click.echo(f"{count} processes stopped" if count else "nothing was running")


@lab.command()
@_folder
def kubeconfig(*, folder: Path) -> None:
    """Print the path of the kubeconfig: export KUBECONFIG=$(tramontane lab kubeconfig)."""
    from tramontane.lab.description import Description  # noqa: PLC0415

    Description.load(folder)
    click.echo(folder / "kubeconfig")


@lab.command()
@_folder
@_output
def status(*, folder: Path, output: str) -> None:
    """Show the processes, the blades by state, and the faults."""
    from tramontane.lab.description import Description  # noqa: PLC0415
    from tramontane.lab.processes import Processes, alive, rss_mib  # noqa: PLC0415

    description = Description.load(folder)
    processes = [
        {
            "name": one.name,
            "pid": one.pid,
            "memoryMiB": round(rss_mib(one.pid)) if alive(one) else None,
            "log": one.log,
        }
        for one in Processes.load(folder).records
    ]
    for_people = output not in {"json", "yaml"}
    # First of all: what does not answer below may be what has ended.
    for one in processes if for_people else ():
        state = "     ENDED" if one["memoryMiB"] is None else f"{one['memoryMiB']:6} MiB"
        click.echo(f"{one['name']:26} {one['pid']:8} {state}  {one['log']}")

    async def said() -> None:
        hall = await _hall(folder, description)
        if for_people:
            _say(hall)
        else:
            _say_to_programs({"processes": processes, **hall}, output)

    _run(said())


async def _hall(folder: Path, description: Any) -> dict[str, Any]:
    from tramontane.kube.client import Client  # noqa: PLC0415
    from tramontane.kube.resources import BLADES, NODES  # noqa: PLC0415
    from tramontane.lab.fleet import is_ready  # noqa: PLC0415
    from tramontane.lab.remote import Remote  # noqa: PLC0415

    async with await Client.connect(folder / "kubeconfig") as client:
        nodes = await client.list_all(NODES)
        blades = await client.list_all(BLADES)
    async with Remote(folder, description) as remote:
        faults = await remote.faults()
    ready = sum(map(is_ready, nodes))
    states = Counter(blade.get("status", {}).get("state", "without state") for blade in blades)
    return {
        "nodes": {"ready": ready, "notReady": len(nodes) - ready},
        "blades": dict(states.most_common()),
        "faults": faults,
    }


def _say(hall: dict[str, Any]) -> None:
    click.echo(f"\nnodes   {hall['nodes']['ready']} Ready, {hall['nodes']['notReady']} not")
    states = ", ".join(f"{count} {state}" for state, count in hall["blades"].items())
    click.echo(f"blades  {states or 'none (is there a NodePool?)'}")
    for blade, faults in hall["faults"].items():
        click.echo(f"fault   {blade}: {', '.join(faults)}")


def _say_to_programs(content: dict[str, Any], output: str) -> None:
    import json  # noqa: PLC0415

    import yaml  # noqa: PLC0415

    if output == "json":
        click.echo(json.dumps(content, indent=4))
    else:
        click.echo(yaml.safe_dump(content, sort_keys=False), nl=False)


class _Inject(click.Command):
    """A command whose help ends with the faults that there are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the faults."""
        from tramontane.lab.faults import KINDS  # noqa: PLC0415

        super().format_epilog(ctx, formatter)
        with formatter.section("Faults"):
            formatter.write_dl(
                [(f"{name} {kind.takes_code}".strip(), kind.help) for name, kind in KINDS.items()]
            )


@lab.command(cls=_Inject)
@_folder
@click.argument("blade")
@click.argument("fault", nargs=-1, required=True)
@click.option("--gpu", default=0, show_default=True, help="Which GPU has it.")
def inject(*, folder: Path, blade: str, fault: tuple[str, ...], gpu: int) -> None:
    """Let BLADE have FAULT: `inject gpu-0017 gpu-lost --gpu 3`."""
    from tramontane.lab.description import Description  # noqa: PLC0415
    from tramontane.lab.faults import parse_fault  # noqa: PLC0415
    from tramontane.lab.remote import Remote  # noqa: PLC0415

    description = Description.load(folder)
    wanted = parse_fault(" ".join(fault), gpu, description.layout.gpus)

    async def order() -> None:
        async with Remote(folder, description) as remote:
            await remote.inject(blade, wanted)

    _run(order())
    click.echo(f"{blade}: {wanted}")


@lab.command()
@_folder
@click.argument("blade")
def clear(*, folder: Path, blade: str) -> None:
    """Repair BLADE: its GPUs are as new, it has power, its agent runs."""
    from tramontane.lab.description import Description  # noqa: PLC0415
    from tramontane.lab.remote import Remote  # noqa: PLC0415

    description = Description.load(folder)

    async def order() -> list[str]:
        async with Remote(folder, description) as remote:
            return await remote.clear(blade)

    async def said() -> None:
        had = await order()
        click.echo(f"{blade}: {', '.join(had)} cleared" if had else f"{blade}: had no fault")

    _run(said())


@lab.command()
@_folder
@click.argument("state", type=click.Choice(["off", "on"]))
@click.argument("node")
def power(*, folder: Path, state: str, node: str) -> None:
    """Cut a real NODE's power, so that its peers notice nothing, or give it back."""
    from tramontane.lab.starting import real_nodes  # noqa: PLC0415

    nodes = real_nodes(folder)
    _run(nodes.power_on(node) if state == "on" else nodes.power_off(node))
    click.echo(f"{node}: {'boots' if state == 'on' else 'has no power'}")


@lab.command()
@_folder
@click.argument("state", type=click.Choice(["down", "up"]))
@click.argument("node")
def link(*, folder: Path, state: str, node: str) -> None:
    """Pull a real NODE's network cable, or plug it in; what runs there runs on."""
    from tramontane.lab.starting import real_nodes  # noqa: PLC0415

    _run(real_nodes(folder).link(node, up=state == "up"))
    click.echo(f"{node}: link {state}")
