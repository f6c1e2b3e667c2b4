"""An API server that takes no work pods: people are told, and everything else goes on."""

from typing import Any

import pytest

from tramontane.kube.errors import ApiError, from_status
from tramontane.kube.resources import NODEPOOLS, PODS, SERVICES, Resource
from unit.nodepool.hall import SYSTEM, Hall, Raw, fault
from unit.nodepool.steps import BLADE, QUALIFICATION, TEMPLATE, clean, healthy, message, pool, wait

SECURITY = 'violates PodSecurity "baseline:latest": host namespaces'
IN_PAIRS = {
    "soak": "0s",
    "collective": {"template": TEMPLATE, "groupSize": 2, "minBandwidth": 300},
}


def refuse(hall: Hall, *kinds: Resource, status: int = 403, but: int = 0) -> None:
    """Have the API server refuse what is created; the first `but` are let through."""
    create, left = hall.api.create, but

    async def refused(resource: Resource, body: Raw, namespace: str, **more: Any) -> Raw:
        nonlocal left
        if resource in (kinds or (PODS,)):
            left -= 1
            if left < 0:
                name = body["metadata"]["name"]
                text = f'{resource.plural} "{name}" is forbidden: {SECURITY}'
                raise from_status(status, {"reason": "Forbidden", "message": text})
        return await create(resource, body, namespace, **more)

    hall.api.create = refused  # type: ignore[method-assign] # what an admission plugin does


def told(hall: Hall, name: str) -> list[str]:
    return [note for who, _, note in hall.recorder.said if who == name and SECURITY in note]


async def new_ones(hall: Hall, *names: str, **qualification: Any) -> None:
    pool(hall, remediation={"maxUnavailable": "50%"}, qualification=qualification)
    for name in names:
        hall.node(name)
    await hall.settle()
    for name in names:
        await clean(hall, name)


@pytest.mark.parametrize("status", [403, 422, 400, 404])
@pytest.mark.parametrize("kind", [PODS, SERVICES])
async def test_the_pool_still_says_what_is_so(kind: Resource, status: int) -> None:
    async with Hall() as hall:
        old = [f"gpu-{number}" for number in range(8)]
        pool(hall, remediation={"maxUnavailable": "50%"})
        for name in old:
            hall.node(name)
        await hall.settle()
        for name in old:
            await clean(hall, name)
        refuse(hall, kind, status=status)
        await new_ones(hall, "gpu-8", "gpu-9", **IN_PAIRS)
        await wait(hall, 60, *old, "gpu-8", "gpu-9")
        for name in old[:4]:
            hall.report(name, fault(at=hall.now, action="Drain"))
            await hall.settle()
        await hall.advance(5)
        status_ = hall.api.objects[NODEPOOLS]["paris"]["status"]
        assert status_["breaker"]["state"] == "Open"
        assert status_["blades"]["quarantined"] == 3
        assert hall.pool_condition("paris", "BreakerOpen")["status"] == "True"


async def test_any_other_error_does_not_freeze_the_pool_either() -> None:
    async with Hall() as hall:
        refuse(hall, status=500)
        await new_ones(hall, "gpu-1", "gpu-2", **IN_PAIRS)
        await wait(hall, 60, "gpu-1", "gpu-2")
        assert hall.api.objects[NODEPOOLS]["paris"]["status"]["blades"]["qualifying"] == 2


async def test_a_group_waits_and_everybody_learns_why() -> None:
    async with Hall() as hall:
        names = [f"gpu-{number}" for number in range(4)]
        refuse(hall)
        await new_ones(hall, *names, **IN_PAIRS)
        await wait(hall, 3600, *names)
        assert SECURITY in message(hall, "gpu-0")
        assert SECURITY in message(hall, "gpu-3")
        assert len(told(hall, "paris")) == 1, "once, not at every try"
        tries = sum(what == "services" for verb, what, _ in hall.api.writes if verb == "create")
        assert tries < 20, "later each time"


async def test_a_group_of_which_only_some_were_let_in_leaves_nothing_behind() -> None:
    async with Hall() as hall:
        names = ["gpu-1", "gpu-2"]
        refuse(hall, but=1)
        await new_ones(hall, *names, **IN_PAIRS)
        await wait(hall, 2, *names)
        assert hall.works() == []
        assert hall.api.objects[SERVICES] == {}


async def test_groups_run_as_soon_as_they_may() -> None:
    async with Hall() as hall:
        names = ["gpu-1", "gpu-2"]
        create = hall.api.create
        refuse(hall)
        await new_ones(hall, *names, **IN_PAIRS)
        await wait(hall, 60, *names)
        hall.api.create = create  # type: ignore[method-assign] # the policy was put right
        await wait(hall, 900, *names)
        assert len(hall.works()) == 2
        assert "runs in group" in message(hall, "gpu-1")


async def test_a_burn_in_says_why_it_does_not_begin() -> None:
    async with Hall() as hall:
        refuse(hall)
        await new_ones(hall, BLADE, **QUALIFICATION)
        await wait(hall, 7200)
        assert hall.state(BLADE) == "Qualifying"
        assert SECURITY in message(hall)
        assert told(hall, BLADE)
        assert len(told(hall, "paris")) == 1
        tries = [name for verb, what, name in hall.api.writes if (verb, what) == ("create", "pods")]
        assert len(tries) < 3 * 13, "three at once, then every ten minutes"


async def test_a_reset_says_why_it_does_not_begin() -> None:
    async with Hall() as hall:
        await healthy(hall, remediation={"maxUnavailable": 2, "reset": {"template": TEMPLATE}})
        refuse(hall)
        hall.report(BLADE, fault(at=hall.now, code="xid-95", action="Reset", bootID="boot-1"))
        await hall.settle()
        await wait(hall, 30)
        assert hall.state(BLADE) == "Repairing"
        assert SECURITY in message(hall)
        assert told(hall, BLADE)
        assert len(told(hall, "paris")) == 1
        await wait(hall, 4 * 3600)
        assert hall.blade(BLADE)["status"]["repair"]["attempts"] <= 1, "it was no attempt"
        assert len(told(hall, "paris")) == 1


async def test_what_is_only_put_off_is_tried_again_without_a_word() -> None:
    async with Hall() as hall:
        refused = 0
        create = hall.api.create

        async def overloaded(resource: Resource, body: Raw, namespace: str, **more: Any) -> Raw:
            nonlocal refused
            if resource is PODS and refused < 2:
                refused += 1
                raise ApiError(500, "InternalError", "etcdserver: leader changed")
            return await create(resource, body, namespace, **more)

        hall.api.create = overloaded  # type: ignore[method-assign] # for a moment
        await new_ones(hall, BLADE, **QUALIFICATION)
        await wait(hall, 90)
        assert [name.startswith("burnin") for name in hall.works()] == [True]
        assert not [note for _, _, note in hall.recorder.said if "leader changed" in note]


async def test_the_last_word_goes_with_the_blade() -> None:
    async with Hall() as hall:
        refuse(hall)
        await new_ones(hall, BLADE, **QUALIFICATION)
        await wait(hall, 90)
        assert hall.controller._works.on(BLADE)
        hall.api.drop(NODEPOOLS, "paris")
        await hall.settle()
        assert not hall.controller._works.on(BLADE)
        assert f"{SYSTEM}/burnin" not in str(hall.api.objects[PODS])
