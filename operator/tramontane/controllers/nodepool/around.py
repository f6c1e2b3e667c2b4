"""Say what is around a blade on its way: who uses it, which tests and repairs run on it."""

from dataclasses import dataclass

from tramontane.api.blade import Action, Release
from tramontane.controllers.nodepool.works import Want, WorkPod

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What the group showed in which the blade ran last."""

    group: str
    passed: bool
    value: float | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Collective:
    """What is known of a blade from the tests of its groups.

    Attributes:
        good: the tests show it, True or False; None: not yet.
        group: the group in which it runs now; empty: none.
        result: of a group that has ended and is not in its record yet.
        waits_for: for the message, while it is in no group.
    """

    good: bool | None = None
    group: str = ""
    result: GroupResult | None = None
    evidence: str = ""
    waits_for: str = "other blades to test with"


UNTESTED = Collective()


@dataclass(frozen=True, slots=True)
class Around:
    """What is seen around a blade, besides its health.

    Attributes:
        boot_id: of the report; empty where it has none.
        node_boot_id: as the Node's kubelet has it; empty where it does not say.
        resets: GPUs whose faults ask for a reset now; None among them: one of the whole blade.
        owed: the strongest of Reset and Reboot that the report's faults ask for; else None.
        born_at: when its Node was created.
        busy: a gang has a seat on it, or a pod uses it; `users`: which, `namespace/name`.
        strangers: those pods whose controllers read no Blade: nobody else makes them leave.
        works: its work pods that are not being deleted.
        collective: what the tests of its groups have shown (groups.py).
        idle_slot: whether one more idle blade may run its burn-in again.
        watches: the pool only watches (mode DryRun or Off): no repair begins.
        breaker_open: the pool's breaker is open: no repair begins until a person closes it.
    """

    name: str
    now: float
    boot_id: str = ""
    node_boot_id: str = ""
    resets: frozenset[int | None] = frozenset()
    owed: Action = Action.NONE
    born_at: float = 0.0
    reported: bool = False
    unknown_after_s: float = 90.0
    busy: bool = False
    users: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    works: tuple[WorkPod, ...] = ()
    collective: Collective = UNTESTED
    release: Release | None = None
    idle_slot: bool = False
    watches: bool = False
    breaker_open: bool = False

    @property
    def leaving(self) -> str:
        """Return who must leave first, for a message."""
        return ", ".join(self.users[:_MOST_NAMED]) or "the work on it"

    def work(self, want: Want) -> WorkPod | None:
        """Return the pod of a want, if it is there."""
        return next((one for one in self.works if one.name == want.name), None)
