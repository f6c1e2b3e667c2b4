"""Which GPU is reset: the one whose fault asks for it, as the pool's rules have it."""

import pytest

from tramontane.api.clock import utc
from tramontane.kube.resources import PODS
from unit.nodepool.hall import SYSTEM, Hall, Raw, fault
from unit.nodepool.steps import BLADE, healthy, wait

RULES = [
    {"match": {"code": "xid-94"}, "severity": "Fatal", "action": "Reset"},
    {"match": {"code": "row-remap-pending"}, "severity": "Ignore"},
]
WANTED = {"code": "xid-94", "severity": "Info", "action": "RestartApp", "gpu": 3}
IGNORED = {"code": "row-remap-pending", "check": "row-remap", "action": "Reset", "gpu": 5}


def gpu_of_reset(hall: Hall) -> str:
    (pod,) = [name for name in hall.works() if name.startswith("reset")]
    raw: Raw = hall.api.objects[PODS][f"{SYSTEM}/{pod}"]
    (container,) = raw["spec"]["containers"]
    return str({one["name"]: one["value"] for one in container["env"]}["TRAMONTANE_GPU"])


@pytest.mark.parametrize(
    ("faults", "gpu"),
    [
        pytest.param([WANTED], "3", id="a rule asks for it"),
        pytest.param([WANTED, IGNORED], "3", id="beside one that a rule ignores"),
        pytest.param([WANTED, {**WANTED, "gpu": 6}], "all", id="two of them"),
    ],
)
async def test_by_the_rules(faults: list[Raw], gpu: str) -> None:
    async with Hall() as hall:
        health = {"clearAfter": "10m", "unknownAfter": "90s", "rules": RULES}
        await healthy(hall, health=health)
        hall.report(BLADE, *(fault(at=hall.now, bootID="boot-1", **one) for one in faults))
        await hall.settle()
        await wait(hall, 1)
        assert gpu_of_reset(hall) == gpu


async def test_not_one_that_a_person_has_forgiven() -> None:
    async with Hall() as hall:
        await healthy(hall)
        old = fault(at=hall.now, code="xid-95", action="Reset", gpu=5, bootID="boot-1")
        hall.now += 60
        hall.spec(BLADE, release={"reason": "known", "by": "anna", "at": utc(hall.now)})
        await hall.settle()
        hall.now += 60
        new = fault(at=hall.now, code="xid-95", action="Reset", gpu=3, bootID="boot-1")
        hall.report(BLADE, old, new)
        await hall.settle()
        await wait(hall, 1)
        assert gpu_of_reset(hall) == "3"
