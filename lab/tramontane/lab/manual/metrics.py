"""Write the reference of metrics: every one that a component exports, from the collectors.

A metric of several components, as of the client that all have, is listed once.
"""

from collections.abc import Iterable

from tramontane.lab.manual.markdown import cell, code, page, table
from tramontane.lab.observe.exported import COMPONENTS, Family, families

_OPENING = """\
Each component serves `/metrics` on the port of `metrics.port`, 8080 by default. The scrape adds
the target's labels: `component`, `blade` for agents, and `cluster` where `monitoring.cluster` is
set. Of two replicas only the leader shows pools, jobs and queues. Series of a job, a deployment
or a blade go when it goes. `metrics.detail: low` leaves out all that are per blade, per job or
per deployment.

A histogram `x` is asked for as `x_bucket`, `x_sum` and `x_count`."""
_SHARED = "All components"


def grouped(found: Iterable[Family]) -> dict[str, list[Family]]:
    """Return the families by who exports them; those of more than one component come last."""
    found = tuple(found)
    owners: dict[str, set[str]] = {}
    for family in found:
        owners.setdefault(family.name, set()).add(family.component)
    groups: dict[str, dict[str, Family]] = {
        name: {} for name in (*(one.capitalize() for one in COMPONENTS), _SHARED)
    }
    for family in found:
        group = _SHARED if len(owners[family.name]) > 1 else family.component.capitalize()
        groups[group].setdefault(family.name, family)
    return {
        group: sorted(members.values(), key=lambda one: one.name)
        for group, members in groups.items()
        if members
    }


def _row(family: Family) -> tuple[str, ...]:
    labels = ", ".join(code(label) for label in family.labels)
    return code(family.name), family.kind, labels, cell(family.help)


def render(found: Iterable[Family] | None = None) -> str:
    """Return the page."""
    groups = grouped(families() if found is None else found)
    parts: list[str] = []
    for group, members in groups.items():
        head = ("Metric", "Type", "Labels", "What it is")
        parts += [f"## {group}", table(head, map(_row, members))]
    return page("Metrics", _OPENING, *parts)
