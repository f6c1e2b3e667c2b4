"""Write the reference of faults: the agent's checks, and what each XID and SXID code means.

A check's sentence is the first one of its module, so that the file that judges is the file that
says what it judges.
"""

import inspect
from types import ModuleType

from tramontane.health import catalogue, checks
from tramontane.health.checks.base import Check
from tramontane.lab.manual.markdown import cell, code, page, table

_OPENING = """\
What the agent on a blade looks for. A fault has a code, a severity and an action; they are in
`Blade.status.report.faults`, and `tramontane explain blade/NAME` shows them. A pool changes them
for its own hardware with `spec.health.rules`; `--disable-check` in `agent.extraArgs` switches one
off.

| Severity | What follows |
|---|---|
| Info | it is noted; nothing follows |
| Degraded | no new work comes to the blade; what runs there runs on |
| Unknown | as Degraded: what could not be seen is not healthy |
| Fatal | the blade leaves service within its pool's budget, and jobs on it are moved |

| Action | Who does it |
|---|---|
| None, RestartApp | nobody, or the job |
| Drain | the operator lets the work end or move |
| Reset, Reboot | a pod that the pool names (`spec.remediation`), else a person |
| Inspect, Replace | a person |"""


def _module_of(check: Check) -> ModuleType:
    """Return the module that a check is in."""
    return next(
        module
        for module in vars(checks).values()
        if inspect.ismodule(module) and getattr(module, "CHECK", None) is check
    )


def _sentence(check: Check) -> str:
    """Return the first sentence of the module that a check is in, without its name."""
    text = " ".join((inspect.getdoc(_module_of(check)) or "").split("\n\n")[0].split())
    text = text.removeprefix(f"{check.name}:").strip()
    return text[:1].upper() + text[1:]


def _codes(rows: dict[int, catalogue.Xid]) -> str:
    return table(
        ("Code", "What NVIDIA calls it", "Severity", "Action"),
        [
            (str(row.code), cell(row.description), row.severity.value, row.action.value)
            for row in sorted(rows.values(), key=lambda one: one.code)
        ],
    )


def render() -> str:
    """Return the page."""
    listed = table(
        ("Check", "What must hold", "Source of its threshold"),
        [(code(check.name), cell(_sentence(check)), cell(check.source)) for check in checks.CHECKS],
    )
    return page(
        "Faults",
        _OPENING,
        "## Checks",
        "Each looks at all GPUs, or at the blade, with each reading. One that cannot see what it"
        " judges says so (`report.checks.unknown`); it opens no fault and clears none. A blade is"
        " Unknown where nothing can be seen of it, or of one of its GPUs.",
        listed,
        "## XID codes",
        "Errors of a GPU as the driver reports them; the fault is called `xid-<code>`. A code that"
        " is not listed is Degraded, to be inspected. Where the kernel log says how bad it was, the"
        " log counts.",
        _codes(dict(catalogue.table())),
        "## SXID codes",
        "Errors of an NVSwitch; the fault is called `sxid-<code>`. They are in the kernel log only,"
        " which the agent reads with the chart's `agent.access: Host`.",
        _codes(dict(catalogue.switch_table())),
    )
