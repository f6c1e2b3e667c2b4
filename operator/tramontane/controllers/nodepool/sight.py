"""Read the signs of a blade from what the caches show of it: pure.

A Node that was deleted and made again has another UID. The Blade remembers the UID it knew
(annotation `tramontane.dev/node-uid`). When it differs, the report at hand is of an earlier life:
its stamp goes to `tramontane.dev/stale-report`, and it does not count until one of these holds:
the report's stamp has changed; its boot is the one that the new Node's kubelet reports; or, where
kubelets report no boot, the agent has kept up its heartbeat for a minute of the Node's new life.

A release that lies ahead of our clock was given on a machine whose clock does. It counts from when
it was first seen, not from what it says: else it would forgive all that happens until then. That is
remembered too (annotation `tramontane.dev/release-seen`: what it says, and when it was seen).

A blade counts in the tranche that it was delivered with, also when its Node is gone: annotation
`tramontane.dev/tranche` has what the Node's label said last.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.blade import Action, Blade, Hold, Release, Report
from tramontane.api.names import LABEL_TRANCHE
from tramontane.api.nodepool import RemediationMode
from tramontane.controllers.informers import Node
from tramontane.controllers.nodepool import verdict
from tramontane.controllers.nodepool.around import UNTESTED, Around, Collective
from tramontane.controllers.nodepool.owners import Claim
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.state import NodeSign, Signs
from tramontane.controllers.nodepool.works import WorkPod

ANNOTATION_NODE_UID = "tramontane.dev/node-uid"
ANNOTATION_STALE_REPORT = "tramontane.dev/stale-report"
ANNOTATION_RELEASE_SEEN = "tramontane.dev/release-seen"
# Set where the tranche label on the Node is a copy of another label: then it is ours to remove.
ANNOTATION_TRANCHE_COPIED = "tramontane.dev/tranche-copied"
ANNOTATION_TRANCHE = LABEL_TRANCHE
_REMEMBERED = frozenset({ANNOTATION_NODE_UID, ANNOTATION_STALE_REPORT, ANNOTATION_TRANCHE_COPIED})
_OURS = _REMEMBERED | {ANNOTATION_RELEASE_SEEN, ANNOTATION_TRANCHE}

# What a pod of ours does, the stronger last.
_REPAIRS = (Action.RESET, Action.REBOOT)
# Two heartbeats: after that a running agent has looked, and would have reported what it saw.
_PROVEN_S = 60.0


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is known of one blade.

    Attributes:
        policy: of the pool that owns the Node; of the Blade's pool where the Node is gone, or
            the Blade is kept from moving: `kept_from` then says whose the Node is by now.
        gangs: whose placement names the blade, as `namespace/name`.
        heard_at: the agent's last heartbeat, by its own clock; None if there never was one.
        agent_silence_s: since then, infinite if there never was one.
        machine_silence_s: since agent or kubelet last spoke.
        guests: pods that use the blade and have not ended, as `namespace/name`: those of gangs,
            and others that hold GPUs.
        strangers: those of them that no controller of ours looks after, and that stay.
        works: the blade's work pods.
        collective: what the tests of its groups have shown.
        idle_slot: whether one more idle blade may run its burn-in again.
        breaker_open: whether the pool's breaker is open.
    """

    name: str
    now: float
    node: Node | None = None
    blade: Blade | None = None
    policy: Policy | None = None
    gangs: tuple[str, ...] = ()
    heard_at: float | None = None
    agent_silence_s: float = float("inf")
    machine_silence_s: float = 0.0
    guests: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    works: tuple[WorkPod, ...] = ()
    collective: Collective = UNTESTED
    idle_slot: bool = False
    breaker_open: bool = False
    kept_from: Claim | None = None


def around_of(sight: Sight, policy: Policy, signs: Signs) -> Around:
    """Return what the blade's way depends on, besides its health."""
    blade = sight.blade
    report = blade.status.report if blade is not None else None
    faults = (
        () if report is None else verdict.standing(report, policy, sight.now, signs.released_at)
    )
    return Around(
        name=sight.name,
        now=sight.now,
        boot_id=(report.agent.boot_id or "") if signs.reported and report is not None else "",
        node_boot_id=sight.node.boot_id if sight.node is not None else "",
        resets=frozenset(fault.gpu for fault in faults if fault.action is Action.RESET),
        owed=max(
            (fault.action for fault in faults if fault.action in _REPAIRS),
            key=_REPAIRS.index,
            default=Action.NONE,
        ),
        born_at=sight.node.created_at if sight.node is not None else sight.now,
        reported=signs.reported,
        unknown_after_s=policy.unknown_after_s,
        busy=signs.busy,
        users=sight.gangs or sight.guests,
        strangers=sight.strangers,
        works=tuple(work for work in sight.works if not work.deleting),
        collective=sight.collective,
        release=signs.release,
        idle_slot=sight.idle_slot,
        watches=policy.mode is not RemediationMode.AUTO,
        breaker_open=sight.breaker_open,
    )


def stamp(report: Report | None) -> str:
    """Return what tells one report from the next: the boot and the time of its last change."""
    return "" if report is None else f"{report.agent.boot_id or ''}/{report.agent.time or ''}"


def ours_among(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return those of a Blade's annotations that `annotations_of` decides about."""
    return {key: value for key, value in annotations.items() if key in _OURS}


def tranche_of(node: Node | None, blade: Blade | None, policy: Policy) -> str:
    """Return the tranche of a blade; empty where it came in none."""
    if node is not None:
        return node.labels.get(policy.tranche_label, "")
    return blade.metadata.annotations.get(ANNOTATION_TRANCHE, "") if blade is not None else ""


def annotations_of(
    node: Node | None, blade: Blade | None, policy: Policy, now: float
) -> dict[str, str]:
    """Return the annotations that the Blade must have."""
    known_of = blade.metadata.annotations if blade is not None else {}
    kept = {key: value for key, value in known_of.items() if key in _REMEMBERED}
    if blade is not None:
        kept |= _release_seen(blade, now)
    if tranche := tranche_of(node, blade, policy):
        kept[ANNOTATION_TRANCHE] = tranche
    if node is None:
        return kept
    known = kept.get(ANNOTATION_NODE_UID)
    if known is not None and known != node.uid and blade is not None:
        kept[ANNOTATION_STALE_REPORT] = stamp(blade.status.report)
    kept[ANNOTATION_NODE_UID] = node.uid
    if policy.tranche_label == LABEL_TRANCHE:
        kept.pop(ANNOTATION_TRANCHE_COPIED, None)
    else:
        kept[ANNOTATION_TRANCHE_COPIED] = policy.tranche_label
    return kept


def _release_seen(blade: Blade, now: float) -> dict[str, str]:
    """Return what to remember of a release that lies, or lay, ahead of our clock."""
    release, known = blade.spec.release, blade.metadata.annotations.get(ANNOTATION_RELEASE_SEEN, "")
    if release is None or not release.at:
        return {}
    if known.partition(" ")[0] == release.at:
        return {ANNOTATION_RELEASE_SEEN: known}
    ahead = clock.parse(release.at) > now
    return {ANNOTATION_RELEASE_SEEN: f"{release.at} {clock.utc(now)}"} if ahead else {}


def _release(blade: Blade | None, annotations: Mapping[str, str], now: float) -> Release | None:
    """Return the release in force, not later than it was first seen; see the module."""
    release = blade.spec.release if blade is not None else None
    if release is None or not release.at:
        return release
    said, _, seen = annotations.get(ANNOTATION_RELEASE_SEEN, "").partition(" ")
    at = clock.parse(seen) if said == release.at else now
    if clock.parse(release.at) <= at:
        return release
    return release.model_copy(update={"at": clock.utc(at)})


def signs_of(sight: Sight, policy: Policy, annotations: Mapping[str, str]) -> Signs:
    """Return what the state machine asks for."""
    node, blade = sight.node, sight.blade
    report = blade.status.report if blade is not None else None
    reported = report is not None and _is_current(report, node, sight, annotations)
    reported_at = None
    if report is not None and report.agent.time:
        reported_at = clock.parse(report.agent.time)
    hold = blade.spec.hold if blade is not None else None
    release = _release(blade, annotations, sight.now)
    released_at = clock.parse(release.at) if release is not None and release.at else None
    finding = verdict.NOTHING
    if reported and report is not None:
        finding = verdict.judge(report, policy, sight.now, released_at)
    silence_s, heard_at = sight.agent_silence_s, sight.heard_at
    if heard_at is None and reported and reported_at is not None and reported_at <= sight.now:
        # No Lease yet: the report itself is a sign of life.
        silence_s, heard_at = sight.now - reported_at, reported_at
    return Signs(
        now=sight.now,
        node=_node_sign(node),
        reported=reported,
        reported_at=reported_at if reported else None,
        boot_id=(report.agent.boot_id or "") if reported and report is not None else "",
        finding=finding,
        agent_silence_s=silence_s,
        machine_silence_s=sight.machine_silence_s,
        heard_at=heard_at,
        hold=hold if hold is not None and not _ends(release, hold) else None,
        release=release,
        released_at=released_at,
        replaced=not reported and ANNOTATION_STALE_REPORT in annotations,
        seated=bool(sight.gangs),
        busy=bool(sight.gangs or sight.guests),
    )


def is_kept(blade: Blade) -> bool:
    """Return whether a Blade must outlive its Node: held or given up, until a person says more.

    A Node that is registered again under the name, the same machine or another, must not work
    because somebody deleted the old one.
    """
    hold, release, repair = blade.spec.hold, blade.spec.release, blade.status.repair
    if hold is not None and not _ends(release, hold):
        return True
    if repair is None or repair.action is not Action.REPLACE:
        return False
    if release is None or not release.at or not repair.since:
        return True
    return clock.parse(release.at) < clock.parse(repair.since)


def _node_sign(node: Node | None) -> NodeSign:
    if node is None:
        return NodeSign.ABSENT
    if node.ready:
        return NodeSign.READY
    return NodeSign.NOT_READY if "Ready" in node.conditions else NodeSign.NEW


def _is_current(
    report: Report, node: Node | None, sight: Sight, annotations: Mapping[str, str]
) -> bool:
    """Return whether the report is of the Node's present life; see the module."""
    stale = annotations.get(ANNOTATION_STALE_REPORT)
    if stale is None or node is None or stamp(report) != stale:
        return True
    boot = report.agent.boot_id
    if node.boot_id and boot:
        return node.boot_id == boot
    return sight.heard_at is not None and sight.heard_at >= node.created_at + _PROVEN_S


def _ends(release: Release | None, hold: Hold) -> bool:
    """Return whether a release ends a hold: it is not older. One without a time is the newest."""
    if release is None:
        return False
    if not release.at or not hold.at:
        return True
    return clock.parse(release.at) >= clock.parse(hold.at)
