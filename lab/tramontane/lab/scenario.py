"""Play a scenario of the demo: start a lab, let a story happen in it, say what was measured.

A story gets the running lab and a bystander (`watcher`), and returns what it found. The exit
status is 0 only if every invariant held.
"""

import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tramontane.lab.cluster import Lab, Setup
from tramontane.lab.invariants import Violation
from tramontane.lab.paths import own_command
from tramontane.lab.processes import rss_mib
from tramontane.lab.timeline import Timeline, measured
from tramontane.lab.watcher import Watcher, watching

Row = tuple[str, str, str]


@dataclass(slots=True)
class Findings:
    """What a story measured (figure, value, budget) and what was broken in it."""

    rows: list[Row] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)  # shown before what was measured


# What to look at in a cluster that stays up.
LOOK = ("kubectl get nodepools,trainingjobs,gangs,blades -A",)
Story = Callable[[Lab, Watcher, Timeline], Awaitable[Findings]]


async def play(
    folder: Path,
    console: Console,
    setup: Setup,
    opening: str,
    story: Story,
    *,
    keep: bool,
    look: Sequence[str] = LOOK,
) -> int:
    """Play a story in a lab of its own; returns 0, or 1 when an invariant was broken.

    Raises:
        LabError, TimeoutError: something did not come up or did not happen in time.
    """
    timeline = Timeline(console)
    lab = Lab(folder, setup, attached=not keep, say=timeline.say)
    timeline.say(opening)
    with timeline.during("starting the cluster"):
        await lab.start()
    try:
        async with watching(lab.client) as watcher:
            findings = await story(lab, watcher, timeline)
    except BaseException:
        await lab.close()
        lab.stop()
        raise
    _report(lab, console, findings)
    await lab.close()
    if keep:
        console.print(staying(folder, lab.plane.kubeconfig, look), soft_wrap=True, highlight=False)
    else:
        lab.stop()
    return 1 if findings.violations else 0


def staying(folder: Path, kubeconfig: Path, look: Sequence[str]) -> str:
    """Return what to type to look at a cluster that stays up, and to end it."""
    lines = (
        f"export KUBECONFIG={shlex.quote(str(kubeconfig))}",
        *look,
        f"{own_command()} lab down --dir {shlex.quote(str(folder))}",
    )
    return "\nThe cluster stays up.\n" + "\n".join(f"  {line}" for line in lines)


def _report(lab: Lab, console: Console, found: Findings) -> None:
    rows = list(found.rows)
    for name in ("operator", "scheduler"):
        rss = rss_mib(lab.processes.get(name).pid)
        rows.append((f"{name}, resident memory", f"{rss:.0f} MiB", "238 MiB"))
    for table in (*found.tables, measured(rows, "What was measured")):
        console.print()
        console.print(table)
    if found.violations:
        console.print(f"\n{len(found.violations)} broken invariants:", style="bold red")
        for violation in found.violations:
            console.print(f"  {violation}", style="red", soft_wrap=True)
    else:
        console.print("\nEvery invariant held.", style="bold green")
