"""Keep of a pod of another controller what decides about its place, and what we do not look at.

A pod that requires something that this scheduler does not look at is never bound: it would run
where it must not. It waits with the reason.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tramontane.api import clock
from tramontane.api.errors import InvalidValue
from tramontane.api.names import (
    ANNOTATION_GANG_SIZE,
    ANNOTATION_PACK,
    LABEL_POOL,
    SCHEDULER_NAME,
)
from tramontane.scheduler.affinity import Term, decode_terms
from tramontane.scheduler.foreign.groups import ALONE, Group, group_of, size_annotation
from tramontane.scheduler.gangs import Ask, decode_ask
from tramontane.scheduler.records import Raw, pod_requests

ANNOTATION_PACK_MODE: Final = "tramontane.dev/pack-mode"
ANNOTATION_POOL: Final = LABEL_POOL
PREFERRED: Final = "Preferred"
UNSCHEDULABLE: Final = "Unschedulable"
NOTHING: Final = Ask(())
_MUST: Final = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Member:
    """Hold one unfinished pod of another controller that names this scheduler.

    `node` is empty while it is not bound. `size` is what it says of its group, `said` the reason
    why it waits that its condition shows, `limit_s` for how long it may run. `key` is
    `namespace/name`.
    """

    key: str
    uid: str
    group: Group = ALONE
    size: int | None = None
    pool: str = ""
    pack: str = ""
    required: bool = False
    ask: Ask = NOTHING
    priority: int = 0
    created_s: float = 0.0
    gated: bool = False
    deleting: bool = False
    node: str = ""
    bound_s: float | None = None
    limit_s: float | None = None
    said: str = ""
    flaw: str = ""

    @property
    def name(self) -> str:
        """Return the name within the namespace."""
        return self.key.partition("/")[2]

    @property
    def family(self) -> str:
        """Return the key of the group, which no Gang can have: a name has no colon."""
        namespace, _, name = self.key.partition("/")
        group = self.group.name
        return f"{namespace}/pods:{group}" if group else f"{namespace}/pod:{name}"


def is_foreign(raw: Raw) -> bool:
    """Return whether a pod is to be bound by us; the operator's own pods name no scheduler."""
    return bool((raw.get("spec") or {}).get("schedulerName") == SCHEDULER_NAME)


def decode_member(raw: Raw) -> Member:
    """Return the record of a pod that names this scheduler."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    notes = meta.get("annotations") or {}
    affinity, flaw = _affinity(spec)
    size, bad = _size(notes)
    scheduled: Raw = next(
        (c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"), {}
    )
    waits = scheduled.get("status") == "False" and scheduled.get("reason") == UNSCHEDULABLE
    since = scheduled.get("lastTransitionTime")
    return Member(
        key=sys.intern(f"{meta['namespace']}/{meta['name']}"),
        uid=meta.get("uid", ""),
        group=group_of(raw),
        size=size,
        pool=sys.intern(
            (spec.get("nodeSelector") or {}).get(LABEL_POOL) or notes.get(ANNOTATION_POOL) or ""
        ),
        pack=sys.intern(notes.get(ANNOTATION_PACK) or ""),
        required=notes.get(ANNOTATION_PACK_MODE) != PREFERRED,
        ask=replace(decode_ask(spec), requests=pod_requests(spec), affinity=affinity),
        priority=int(spec.get("priority") or 0),
        created_s=clock.parse(at) if (at := meta.get("creationTimestamp")) else 0.0,
        gated=bool(spec.get("schedulingGates")),
        deleting=bool(meta.get("deletionTimestamp")),
        node=sys.intern(spec.get("nodeName") or ""),
        bound_s=clock.parse(since) if since and scheduled.get("status") == "True" else None,
        limit_s=None if (limit := spec.get("activeDeadlineSeconds")) is None else float(limit),
        said=str(scheduled.get("message") or "").partition(":")[0] if waits else "",
        flaw=flaw or bad or _unsupported(spec),
    )


def _size(notes: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the size of its group that a pod says, and what is wrong with it in words."""
    said = notes.get(ANNOTATION_GANG_SIZE)
    text = size_annotation(notes) if said is None else said
    if text is None:
        return None, ""
    if text.isdecimal() and int(text) > 0:
        return int(text), ""
    return None, (
        f'annotation {ANNOTATION_GANG_SIZE} must be a number of pods (got "{text}"); correct it'
    )


def _affinity(spec: Raw) -> tuple[tuple[Term, ...], str]:
    """Return the terms of a required node affinity, and why they cannot be read."""
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    try:
        return decode_terms(required.get("nodeSelectorTerms") or ()), ""
    except InvalidValue as error:
        return (), str(error)


def _unsupported(spec: Raw) -> str:
    """Return what a pod asks for that is not looked at, so that it must not be bound."""
    affinity = spec.get("affinity") or {}
    found = [
        word
        for word, asked in {
            "pod affinity": (affinity.get("podAffinity") or {}).get(_MUST),
            "pod anti-affinity": (affinity.get("podAntiAffinity") or {}).get(_MUST),
            "topologySpreadConstraints": [
                c
                for c in spec.get("topologySpreadConstraints") or ()
                if c.get("whenUnsatisfiable") != "ScheduleAnyway"
            ],
            "resourceClaims": spec.get("resourceClaims"),
        }.items()
        if asked
    ]
    if not found:
        return ""
    return (
        f"the pods must not require what this scheduler does not look at (got {', '.join(found)}); "
        f"leave it out, and say {ANNOTATION_PACK} instead"
    )
