"""Hold what `tramontane doctor` reads of a cluster, and what it says about it.

A thing that could not be read is an `Unreadable`, never an empty list: whoever lacks a right learns
that nothing is known, not that all is well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

Raw = dict[str, Any]

_MOST_NAMED: Final = 5


class Level(StrEnum):
    """Say how a finding is, from good to bad; Unknown is not good."""

    OK = "OK"
    UNKNOWN = "Unknown"
    WARNING = "Warning"
    PROBLEM = "Problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: what was looked at, how it is, and what to do where it is not well.

    Attributes:
        check: what was looked at; the same word for all findings of one check.
        remedy: empty where there is nothing to do.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return what a program reads."""
        return {
            "check": self.check,
            "level": self.level.value,
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Say why something could not be read."""

    why: str


@dataclass(frozen=True, slots=True)
class Access:
    """Ask whether an account may do something; `wanted` is how it must be."""

    component: str
    verb: str
    group: str
    resource: str
    subresource: str = ""
    wanted: bool = True

    def __str__(self) -> str:
        """Return it as a person would say it."""
        return f"{self.verb} {'/'.join(filter(None, (self.resource, self.subresource)))}"


@dataclass(frozen=True, slots=True)
class Facts:
    """Hold all that was read, at one time.

    Attributes:
        now: by the clock of the machine that asks (Unix s).
        skew_s: that clock minus the API server's; None where no answer told.
        namespace: where the components should be.
        crds, leases, workloads: by name; workloads are Deployments and DaemonSets of ours.
        access: for each question, what the API server said.
        groups: names of the API groups that are served.
        pod_security: the standard that `namespace` is held to by its label; empty without one.
    """

    now: float
    namespace: str
    client_version: str
    skew_s: float | None = None
    server_version: Raw | Unreadable = field(default_factory=dict)
    groups: Sequence[str] | Unreadable = ()
    crds: Mapping[str, Raw] | Unreadable = field(default_factory=dict)
    leases: Mapping[str, Raw] | Unreadable = field(default_factory=dict)
    workloads: Mapping[str, Raw] | Unreadable = field(default_factory=dict)
    policies: Sequence[str] | Unreadable = ()
    pod_security: str | Unreadable = ""
    monitors: Sequence[str] | Unreadable = ()
    access: Mapping[Access, bool] | Unreadable = field(default_factory=dict)
    pools: Sequence[Raw] | Unreadable = ()
    blades: Sequence[Raw] | Unreadable = ()
    nodes: Sequence[Raw] | Unreadable = ()


def blind(check: str, read: object) -> Finding | None:
    """Return a finding where something could not be read."""
    if isinstance(read, Unreadable):
        return Finding(check, Level.UNKNOWN, f"could not be looked at: {read.why}")
    return None


def condition(raw: Raw, type_: str) -> Mapping[str, Any]:
    """Return a condition of an object, empty where it has none of that type."""
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == type_), {})


def is_true(raw: Raw, type_: str) -> bool:
    """Return whether a condition is there and True."""
    return condition(raw, type_).get("status") == "True"


def message_of(raw: Raw, type_: str) -> str:
    """Return what a condition says, or its type where it says nothing."""
    return str(condition(raw, type_).get("message", type_))


def some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
