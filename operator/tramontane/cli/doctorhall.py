"""Judge the hall itself: agents, clocks, nodes and pools, from what was read of them: pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from tramontane.api import clock
from tramontane.api.names import GPU_RESOURCE, heartbeat_lease
from tramontane.cli.doctorfacts import (
    Facts,
    Finding,
    Level,
    Raw,
    Unreadable,
    blind,
    condition,
    is_true,
    message_of,
    some,
)

# An agent renews every 30 s, and is silent for good after a pool's unknownAfter, 90 s by default.
_HEARTBEAT_STALE_S: Final = 90.0
# Rules compare times across machines in steps of 10 s and more; a second or two costs nobody.
MOST_SKEW_S: Final = 2.0
# A writer takes its time before it writes: so long a write may be under way where much is written.
_MOST_DELAY_S: Final = 10.0
_MOST_LINES: Final = 5


def agents(facts: Facts) -> Iterator[Finding]:
    """Look for an agent's heartbeat of each blade."""
    if (lost := blind("agents", facts.blades) or blind("agents", facts.leases)) is not None:
        yield lost
        return
    assert not isinstance(facts.blades, Unreadable)
    assert not isinstance(facts.leases, Unreadable)
    names = [raw["metadata"]["name"] for raw in facts.blades]
    silent = [name for name in names if _beat_age(facts, facts.leases, name) > _HEARTBEAT_STALE_S]
    if not names:
        yield Finding(
            "agents",
            Level.WARNING,
            "no NodePool has taken a node",
            "write a NodePool that selects your GPU nodes: docs/examples/nodepool.yaml",
        )
    elif silent:
        yield Finding(
            "agents",
            Level.PROBLEM if len(silent) == len(names) else Level.WARNING,
            f"{len(silent)} of {len(names)} blades have no heartbeat: {some(silent)}",
            "kubectl get pods -A -l app.kubernetes.io/component=agent -o wide",
        )
    else:
        yield Finding("agents", Level.OK, f"{len(names)} blades have an agent with a heartbeat")


def _beat_age(facts: Facts, leases: Mapping[str, Raw], blade: str) -> float:
    lease = leases.get(heartbeat_lease(blade))
    renewed = ((lease or {}).get("spec") or {}).get("renewTime")
    return float("inf") if not renewed else facts.now - clock.parse(renewed)


def clocks(facts: Facts) -> Iterator[Finding]:
    """Compare the clocks of this machine and of all who write Leases with the API server's."""
    if facts.skew_s is None:
        yield Finding("clocks", Level.UNKNOWN, "the API server did not tell its time")
    elif abs(facts.skew_s) > MOST_SKEW_S:
        yield Finding(
            "clocks",
            Level.WARNING,
            f"this machine's clock must agree with the API server's (got {facts.skew_s:+.0f} s)",
            "ages in this command's output are off by that; set the clock",
        )
    if isinstance(facts.leases, Unreadable):
        return
    off = {
        name: skew
        for name, lease in facts.leases.items()
        if abs(skew := renewal_skew(lease)) > MOST_SKEW_S
    }
    for name, skew in sorted(off.items(), key=lambda one: (-abs(one[1]), one[0]))[:_MOST_LINES]:
        is_slow = -_MOST_DELAY_S <= skew < 0
        yield Finding(
            "clocks",
            Level.WARNING if is_slow else Level.PROBLEM,
            f"whoever writes Lease {name} must have the API server's time (got {skew:+.0f} s)",
            "its clock is behind, or its last write was slow to arrive: look again"
            if is_slow
            else "faults and heartbeats carry its times; run a time service there",
        )
    if len(off) > _MOST_LINES:
        yield Finding(
            "clocks",
            Level.WARNING,
            f"so it is with {len(off) - _MOST_LINES:,} more of {len(facts.leases):,} writers",
            "if it is all of them, look at the API server's own clock",
        )
    if not off and facts.leases:
        yield Finding(
            "clocks", Level.OK, f"{len(facts.leases)} writers of Leases agree on the time"
        )


def renewal_skew(lease: Raw) -> float:
    """Return how far the writer of a Lease is ahead of the API server (s); 0 where nobody can tell.

    `renewTime` is by the writer's clock, the time of its entry in `managedFields` by the API
    server's, in whole seconds: what lies within that second is no skew.
    """
    renewed = (lease.get("spec") or {}).get("renewTime")
    written = [
        entry["time"]
        for entry in lease["metadata"].get("managedFields") or ()
        if entry.get("time") and "f:renewTime" in str(entry.get("fieldsV1"))
    ]
    if not renewed or not written:
        return 0.0
    ahead = clock.parse(renewed) - max(map(clock.parse, written))
    return ahead if ahead < 0 else max(0.0, ahead - 1.0)


def pools(facts: Facts) -> Iterator[Finding]:
    """Look at breakers, spares and how many blades are healthy."""
    if (lost := blind("pools", facts.pools)) is not None:
        yield lost
        return
    assert not isinstance(facts.pools, Unreadable)
    for raw in facts.pools:
        name, status = raw["metadata"]["name"], raw.get("status") or {}
        breaker = status.get("breaker") or {}
        if breaker.get("state") == "Open":
            yield Finding(
                "pools",
                Level.PROBLEM,
                f"{name}: the breaker is open: {breaker.get('reason', 'no reason is known')}",
                f"tramontane breaker show {name}",
            )
        elif is_true(raw, "TooFewSpares"):
            yield Finding(
                "pools", Level.WARNING, f"{name}: {message_of(raw, 'TooFewSpares')}",
                f"tramontane pool show {name}",
            )  # fmt: skip
        elif condition(raw, "Ready").get("status") == "False":
            yield Finding(
                "pools", Level.WARNING, f"{name} is not ready: {message_of(raw, 'Ready')}",
                f"tramontane explain np/{name}",
            )  # fmt: skip
        else:
            blades = status.get("blades") or {}
            good, total = blades.get("healthy", 0), blades.get("total", 0)
            yield Finding("pools", Level.OK, f"{name}: {good} of {total} blades healthy")


def nodes(facts: Facts) -> Iterator[Finding]:
    """Look at what the nodes of pools must bring: GPUs that are advertised, topology labels."""
    if (lost := blind("nodes", facts.nodes) or blind("nodes", facts.blades)) is not None:
        yield lost
        return
    assert not isinstance(facts.nodes, Unreadable)
    assert not isinstance(facts.blades, Unreadable)
    pool_of = {raw["metadata"]["name"]: raw["spec"]["pool"] for raw in facts.blades}
    mine = [raw for raw in facts.nodes if raw["metadata"]["name"] in pool_of]
    bare = [raw["metadata"]["name"] for raw in mine if not _gpus(raw)]
    if bare:
        yield Finding(
            "nodes",
            Level.PROBLEM if len(bare) == len(mine) else Level.WARNING,
            f"{len(bare)} of {len(mine)} nodes advertise no {GPU_RESOURCE}: {some(bare)}",
            "install NVIDIA's device plugin (or its DRA driver) on them",
        )
    elif mine:
        yield Finding("nodes", Level.OK, f"{len(mine)} nodes advertise {GPU_RESOURCE}")
    if isinstance(facts.pools, Unreadable):
        return
    for pool in facts.pools:
        for level in ((pool["spec"].get("topology") or {}).get("levels")) or ():
            without = [
                raw["metadata"]["name"]
                for raw in mine
                if pool_of[raw["metadata"]["name"]] == pool["metadata"]["name"]
                and level["label"] not in raw["metadata"].get("labels", {})
            ]
            if without:
                yield Finding(
                    "nodes",
                    Level.WARNING,
                    f"{len(without)} nodes of {pool['metadata']['name']} have no label "
                    f"{level['label']}: {some(without)}",
                    f"gangs that ask for one {level['name']} do not go there; label the nodes",
                )


def _gpus(node: Raw) -> int:
    return int(((node.get("status") or {}).get("allocatable") or {}).get(GPU_RESOURCE, 0))
