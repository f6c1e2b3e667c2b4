import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from support.scripted import Scripted, status, until
from tramontane.kube.client import Client
from tramontane.kube.lease import LeaderElector, LeadershipLost, renew_heartbeat

COLLECTION = "/apis/coordination.k8s.io/v1/namespaces/sys/leases"
PATH = f"{COLLECTION}/leader"


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def elector(client: Client, clock: Clock) -> Callable[[str], LeaderElector]:
    def make(identity: str) -> LeaderElector:
        return LeaderElector(
            client,
            "leader",
            "sys",
            identity,
            retry_s=0.005,
            monotonic=clock,
            wall=lambda: 1_800_000_000.25,
        )

    return make


def spec(server: Scripted) -> dict[str, Any]:
    return dict(server.objects[PATH]["spec"])


def held_by(server: Scripted, holder: str, **more: Any) -> None:
    fields = {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3}
    server.put(COLLECTION, "leader", spec={**fields, **more})


class Work:
    """The leader's work: it runs until it is told to end."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.end = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> None:
        self.started.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_it_makes_the_lease_and_gives_it_back(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    work, one = Work(), elector("one")
    task = asyncio.create_task(one.run(work))
    await work.started.wait()
    assert spec(server) == {
        "holderIdentity": "one",
        "leaseDurationSeconds": 15,
        "acquireTime": "2027-01-15T08:00:00.250000Z",
        "renewTime": "2027-01-15T08:00:00.250000Z",
        "leaseTransitions": 0,
    }
    assert one.leading
    await until(lambda: server.seen("PUT", PATH) >= 2)
    work.end.set()
    await task
    assert not one.leading
    assert spec(server)["holderIdentity"] == ""


@pytest.mark.parametrize(
    ("holder", "acquire_time", "transitions"),
    [
        pytest.param("", "2027-01-15T08:00:00.250000Z", 4, id="given-back"),
        pytest.param("one", "then", 3, id="still-ours-after-a-restart"),
    ],
)
async def test_it_takes_a_free_lease_at_once(
    server: Scripted,
    elector: Callable[[str], LeaderElector],
    holder: str,
    acquire_time: str,
    transitions: int,
) -> None:
    held_by(server, holder, acquireTime="then")
    work = Work()
    task = asyncio.create_task(elector("one").run(work))
    await work.started.wait()
    assert spec(server)["holderIdentity"] == "one"
    assert spec(server)["acquireTime"] == acquire_time
    assert spec(server)["leaseTransitions"] == transitions
    work.end.set()
    await task


async def test_it_judges_by_its_own_clock_when_the_lease_has_run_out(
    server: Scripted, elector: Callable[[str], LeaderElector], clock: Clock
) -> None:
    # The time inside lies far in the past: that means nothing.
    held_by(server, "other", renewTime="2001-01-01T00:00:00.000000Z")
    work = Work()
    task = asyncio.create_task(elector("one").run(work))
    await until(lambda: server.seen("GET", PATH) > 2)
    clock.now_s += 14.9
    reads = server.seen("GET", PATH)
    await until(lambda: server.seen("GET", PATH) > reads + 1)
    held_by(server, "other")  # it renews: 15 s more
    reads = server.seen("GET", PATH)
    await until(lambda: server.seen("GET", PATH) > reads + 1)
    clock.now_s += 14.9
    reads = server.seen("GET", PATH)
    await until(lambda: server.seen("GET", PATH) > reads + 1)
    assert server.seen("PUT", PATH) == 0
    clock.now_s += 0.2
    await work.started.wait()
    assert spec(server)["leaseTransitions"] == 4
    work.end.set()
    await task


async def test_409_means_that_somebody_else_was_first(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    held_by(server, "")

    def steal(_: web.Request) -> None:
        held_by(server, "other")

    server.answers += [lambda _: None, steal]  # between our read and our write
    work = Work()
    task = asyncio.create_task(elector("one").run(work))
    await until(lambda: server.seen("GET", PATH) > 2)
    assert not work.started.is_set()
    assert spec(server)["holderIdentity"] == "other"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert spec(server)["holderIdentity"] == "other", "what we do not hold we do not give back"


async def test_of_two_only_one_leads_and_the_other_follows(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    works = {"one": Work(), "two": Work()}
    tasks = {name: asyncio.create_task(elector(name).run(work)) for name, work in works.items()}
    await until(lambda: any(work.started.is_set() for work in works.values()))
    first = spec(server)["holderIdentity"]
    second = "two" if first == "one" else "one"
    reads = server.seen("GET", PATH)
    await until(lambda: server.seen("GET", PATH) > reads + 3)
    assert not works[second].started.is_set()
    works[first].end.set()
    await tasks[first]
    await works[second].started.wait()  # no need to wait 15 s for it
    works[second].end.set()
    await tasks[second]


async def test_failures_cost_nothing_until_the_deadline(
    server: Scripted, elector: Callable[[str], LeaderElector], clock: Clock
) -> None:
    work, one = Work(), elector("one")
    task = asyncio.create_task(one.run(work))
    await work.started.wait()
    broken = True

    def trouble(request: web.Request) -> web.Response | None:
        if broken:
            server.answers.append(trouble)
            if request.transport is not None and len(server.requests) % 2:
                request.transport.abort()
            return status(500, "InternalError")
        return None

    server.answers.append(trouble)
    tries = len(server.requests)
    await until(lambda: len(server.requests) > tries + 4)
    clock.now_s += 9.9
    assert one.leading
    broken = False
    before = spec(server)
    await until(
        lambda: (
            server.objects[PATH]["metadata"]["resourceVersion"] and one._renewed_at == clock.now_s
        )
    )
    assert spec(server) == before
    broken = True
    server.answers.append(trouble)
    clock.now_s += 10.1
    assert not one.leading
    with pytest.raises(LeadershipLost, match=r"must be renewed within 10 s \(got no success\)"):
        await task
    assert work.cancelled


async def test_a_lease_that_somebody_else_holds_is_lost_at_once(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    work = Work()
    task = asyncio.create_task(elector("one").run(work))
    await work.started.wait()
    held_by(server, "other")
    with pytest.raises(LeadershipLost, match=r"must be held by one \(got other\)"):
        await task
    assert work.cancelled
    assert spec(server)["holderIdentity"] == "other"


async def test_a_deleted_lease_is_lost(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    work = Work()
    task = asyncio.create_task(elector("one").run(work))
    await work.started.wait()
    server.remove(COLLECTION, "leader")
    with pytest.raises(LeadershipLost, match=r"\(got nobody\)"):
        await task


async def test_a_renewal_that_broke_off_and_was_done_is_ours(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    work, one = Work(), elector("one")
    task = asyncio.create_task(one.run(work))
    await work.started.wait()
    held_by(server, "one")  # the version moves on, and we have not seen the answer
    writes = server.seen("PUT", PATH)
    await until(lambda: server.seen("PUT", PATH) > writes + 2)
    assert not task.done()
    work.end.set()
    await task
    assert spec(server)["holderIdentity"] == ""


async def test_work_that_fails_ends_the_renewals(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    async def fail() -> None:
        raise RuntimeError("fault")

    with pytest.raises(RuntimeError, match="fault"):
        await elector("one").run(fail)
    assert spec(server)["holderIdentity"] == ""
    writes = len(server.requests)
    await asyncio.sleep(0.03)
    assert len(server.requests) == writes


async def test_a_cancelled_leader_gives_the_lease_back(
    server: Scripted, elector: Callable[[str], LeaderElector]
) -> None:
    work = Work()
    task = asyncio.create_task(elector("one").run(work))
    await work.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled
    assert spec(server)["holderIdentity"] == ""


async def test_heartbeat(server: Scripted, client: Client) -> None:
    path = f"{COLLECTION}/blade-n"
    await renew_heartbeat(client, "blade-n", "sys", "n", 40)
    assert server.objects[path]["metadata"]["labels"] == {"tramontane.dev/heartbeat": "true"}
    first = server.objects[path]["spec"]
    assert first["holderIdentity"] == "n"
    assert first["leaseDurationSeconds"] == 40
    await renew_heartbeat(client, "blade-n", "sys", "n", 40)
    assert server.objects[path]["spec"]["renewTime"] > first["renewTime"]
    assert [method for method, _ in server.requests] == ["PATCH", "POST", "PATCH"]
