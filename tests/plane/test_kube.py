"""The transport, the informer, the lease and the events against a real API server."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest

from plane.harness import Plane
from support.scripted import until
from tramontane.kube.client import (
    AlreadyExists,
    Client,
    Conflict,
    Gone,
    Invalid,
    NotFound,
)
from tramontane.kube.errors import from_status
from tramontane.kube.events import EventRecorder
from tramontane.kube.informer import Informer
from tramontane.kube.lease import LeaderElector, renew_heartbeat
from tramontane.kube.resources import CONFIGMAPS, CRDS, EVENTS, LEASES, NODEPOOLS, Resource

pytestmark = pytest.mark.plane
NAMESPACE = "default"
_BY_US = "reportingController=tramontane.dev/tests"
THINGS = Resource("tests.tramontane.dev", "v1", "things", "Thing", namespaced=True)


@pytest.fixture
async def client(plane: Plane) -> AsyncIterator[Client]:
    async with await plane.client() as client:
        yield client


@pytest.fixture
async def things(client: Client) -> AsyncIterator[Resource]:
    """A kind whose watch cache begins now: only here is resourceVersion 1 surely too old."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": THINGS.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    spec = {
        "group": THINGS.group,
        "names": {"plural": THINGS.plural, "singular": "thing", "kind": THINGS.kind},
        "scope": "Namespaced",
        "versions": [version],
    }
    name = f"{THINGS.plural}.{THINGS.group}"
    await client.create(CRDS, {"metadata": {"name": name}, "spec": spec})
    async with asyncio.timeout(20):
        while True:
            with suppress(NotFound):
                await client.list_all(THINGS)
                break
            await asyncio.sleep(0.05)
    yield THINGS
    await client.delete(CRDS, name)


def config(name: str, **data: str) -> dict[str, Any]:
    labels = {"tests": "kube"}
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}, "data": data}


async def test_applying_the_same_twice_changes_nothing(client: Client) -> None:
    first = await client.apply(CONFIGMAPS, config("a", x="1", y="1"), manager="one")
    second = await client.apply(CONFIGMAPS, config("a", x="1", y="1"), manager="one")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert second["metadata"]["managedFields"][0]["manager"] == "one"


async def test_apply_owns_what_it_names_and_gives_up_what_it_leaves_out(client: Client) -> None:
    await client.apply(CONFIGMAPS, config("a", x="1", y="1"), manager="one")
    await client.apply(CONFIGMAPS, config("a", z="1"), manager="two")
    left = await client.apply(CONFIGMAPS, config("a", x="2"), manager="one")
    assert left["data"] == {"x": "2", "z": "1"}
    with pytest.raises(Conflict):
        await client.apply(CONFIGMAPS, config("a", x="3"), manager="two", force=False)
    taken = await client.apply(CONFIGMAPS, config("a", x="3"), manager="two")
    assert taken["data"] == {"x": "3"}


async def test_the_answers_become_their_errors(client: Client) -> None:
    made = await client.create(CONFIGMAPS, config("a", x="1"))
    with pytest.raises(AlreadyExists, match="create configmaps default/a: must succeed"):
        await client.create(CONFIGMAPS, config("a", x="1"))
    changed = await client.merge_patch(CONFIGMAPS, "a", {"data": {"x": "2"}}, NAMESPACE)
    with pytest.raises(Conflict):
        await client.replace(CONFIGMAPS, made)
    assert (await client.replace(CONFIGMAPS, changed))["data"] == {"x": "2"}
    with pytest.raises(Conflict):
        await client.delete(CONFIGMAPS, "a", NAMESPACE, uid="00000000-0000-0000-0000-000000000000")
    test = {"op": "test", "path": "/data/x", "value": "9"}
    with pytest.raises(Invalid):
        await client.json_patch(CONFIGMAPS, "a", [test], NAMESPACE)
    await client.delete(CONFIGMAPS, "a", NAMESPACE, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.get(CONFIGMAPS, "a", NAMESPACE)
    with pytest.raises(NotFound):
        await client.list_all(Resource("no.such", "v1", "things", "Thing", namespaced=True))
    with pytest.raises(Invalid, match="422 Invalid"):
        await client.create(NODEPOOLS, {"metadata": {"name": "No Good Name"}, "spec": {}})


async def test_pages(client: Client) -> None:
    for i in range(7):
        await client.create(CONFIGMAPS, config(f"c{i}"))
    page = await client.list_page(CONFIGMAPS, NAMESPACE, label_selector="tests=kube", limit=3)
    assert [item["metadata"]["name"] for item in page["items"]] == ["c0", "c1", "c2"]
    assert page["metadata"]["continue"]
    everything = await client.list_all(CONFIGMAPS, NAMESPACE, label_selector="tests=kube", limit=3)
    assert [item["metadata"]["name"] for item in everything] == [f"c{i}" for i in range(7)]
    named = await client.list_all(CONFIGMAPS, NAMESPACE, field_selector="metadata.name=c5")
    assert [item["metadata"]["name"] for item in named] == ["c5"]


async def test_an_old_resource_version_is_410(client: Client, things: Resource) -> None:
    params = {"resourceVersion": "1"}
    async with client.stream(things, NAMESPACE, params=params, silence_s=20) as lines:
        event = json.loads(await anext(lines))
    assert event["type"] == "ERROR"
    assert type(from_status(event["object"]["code"], event["object"])) is Gone


class OldWatch(Client):
    """A client whose first watch begins when told to, and too far in the past."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.go = asyncio.Event()
        self.streams = 0

    def stream(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        silence_s: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        self.streams += 1
        if self.streams > 1:
            return super().stream(resource, namespace, params=params, silence_s=silence_s)
        old = {**(params or {}), "resourceVersion": "1"}
        late = super().stream(resource, namespace, params=old, silence_s=silence_s)

        @asynccontextmanager
        async def wait() -> AsyncIterator[AsyncIterator[bytes]]:
            await self.go.wait()
            async with late as lines:
                yield lines

        return wait()


def data(raw: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(raw.get("data", {}).items()))


@asynccontextmanager
async def informing(
    client: Client, changes: list[Any], resource: Resource = CONFIGMAPS
) -> AsyncIterator[Informer[Any]]:
    informer = Informer(client, resource, data, namespace=NAMESPACE, label_selector="tests=kube")
    informer.add_listener(lambda key, old, new: changes.append((key, old, new)))
    task = asyncio.create_task(informer.run())
    try:
        await informer.wait_synced()
        yield informer
    finally:
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_informer_follows(client: Client) -> None:
    await client.create(CONFIGMAPS, config("a", x="1"))
    changes: list[Any] = []
    async with informing(client, changes) as informer:
        assert informer.cache == {"default/a": (("x", "1"),)}
        await client.create(CONFIGMAPS, config("b", x="1"))
        await client.merge_patch(CONFIGMAPS, "b", {"data": {"x": "2"}}, NAMESPACE)
        await client.merge_patch(
            CONFIGMAPS, "b", {"metadata": {"labels": {"not": "viewed"}}}, NAMESPACE
        )
        await client.delete(CONFIGMAPS, "b", NAMESPACE)
        # A change that takes an object out of the selection is its end.
        await client.merge_patch(
            CONFIGMAPS, "a", {"metadata": {"labels": {"tests": None}}}, NAMESPACE
        )
        large = "x" * 900_000
        await client.create(CONFIGMAPS, config("large", x=large))
        await until(lambda: len(changes) == 6)
    assert changes == [
        ("default/a", None, (("x", "1"),)),
        ("default/b", None, (("x", "1"),)),
        ("default/b", (("x", "1"),), (("x", "2"),)),
        ("default/b", (("x", "2"),), None),
        ("default/a", (("x", "1"),), None),
        ("default/large", None, (("x", large),)),
    ]


async def test_a_real_410_and_what_happened_before_it(
    plane: Plane, client: Client, things: Resource
) -> None:
    for name in ("changed", "deleted", "kept"):
        await client.create(things, config(name, x="1"))
    changes: list[Any] = []
    async with (
        await OldWatch.connect(plane.kubeconfig) as late,
        informing(late, changes, things) as informer,
    ):
        changes.clear()
        await client.delete(things, "deleted", NAMESPACE)
        await client.merge_patch(things, "changed", {"data": {"x": "2"}}, NAMESPACE)
        await client.create(things, config("new", x="1"))
        late.go.set()
        await until(lambda: len(changes) == 3)
        assert changes == [
            ("default/deleted", (("x", "1"),), None),
            ("default/changed", (("x", "1"),), (("x", "2"),)),
            ("default/new", None, (("x", "1"),)),
        ]
        await client.create(things, config("later", x="1"))
        await until(lambda: "default/later" in informer.cache)


async def test_two_electors_contest_a_lease(client: Client) -> None:
    leading: list[str] = []
    ends = {"one": asyncio.Event(), "two": asyncio.Event(), "three": asyncio.Event()}

    def start(identity: str) -> asyncio.Task[None]:
        async def lead() -> None:
            assert not leading, "two leaders at a time"
            leading.append(identity)
            try:
                await ends[identity].wait()
            finally:
                leading.remove(identity)

        elector = LeaderElector(
            client, "contest", NAMESPACE, identity, lease_s=2, renew_s=1.5, retry_s=0.05
        )
        return asyncio.create_task(elector.run(lead))

    tasks = {identity: start(identity) for identity in ("one", "two")}
    await until(lambda: leading)
    first = leading[0]
    second = "two" if first == "one" else "one"
    acquired = await client.get(LEASES, "contest", NAMESPACE)
    await asyncio.sleep(0.3)
    assert leading == [first]
    ends[first].set()
    await tasks[first]
    await until(lambda: leading == [second])
    lease = await client.get(LEASES, "contest", NAMESPACE)
    assert lease["spec"]["holderIdentity"] == second
    assert lease["spec"]["leaseTransitions"] == acquired["spec"]["leaseTransitions"] + 1
    ends[second].set()
    await tasks[second]
    # A leader that died without giving it back: its Lease runs out.
    lease = await client.get(LEASES, "contest", NAMESPACE)
    lease["spec"] |= {"holderIdentity": "dead", "leaseDurationSeconds": 1}
    await client.replace(LEASES, lease)
    third = start("three")
    await until(lambda: leading == ["three"])
    ends["three"].set()
    await third


async def test_heartbeats(client: Client) -> None:
    await renew_heartbeat(client, "blade-n", NAMESPACE, "n", 40)
    first = await client.get(LEASES, "blade-n", NAMESPACE)
    await renew_heartbeat(client, "blade-n", NAMESPACE, "n", 40)
    second = await client.get(LEASES, "blade-n", NAMESPACE)
    assert second["spec"]["renewTime"] > first["spec"]["renewTime"]
    assert second["metadata"]["labels"] == {"tramontane.dev/heartbeat": "true"}


async def test_events_are_valid_and_become_series(client: Client) -> None:
    now_s = 1_800_000_000.0
    recorder = EventRecorder(client, "tramontane.dev/tests", "pod-1", now=lambda: now_s)
    about = await client.create(CONFIGMAPS, config("about"))

    def record() -> None:
        recorder.record(
            {"apiVersion": "v1", "kind": "ConfigMap", **about},
            "Normal",
            "Tested",
            "note",
            "Testing",
        )

    task = asyncio.create_task(recorder.run())
    record()
    await until(lambda: next(iter(recorder._series.values())).created)
    now_s += 100
    record()
    await until(lambda: recorder.written == 2)
    task.cancel()
    (event,) = await client.list_all(EVENTS, NAMESPACE, field_selector=_BY_US)
    assert event["series"]["count"] == 2
    assert event["regarding"]["uid"] == about["metadata"]["uid"]
    await client.delete(EVENTS, event["metadata"]["name"], NAMESPACE)
