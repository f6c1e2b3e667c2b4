"""List what every plan for the pods of gangs can ask for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a pod; `grace_s` None leaves the pod its own grace, 0 is by force."""

    name: str
    uid: str
    grace_s: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Said:
    """An event for people, recorded once the status holds what it tells."""

    type_: str
    reason: str
    note: str
