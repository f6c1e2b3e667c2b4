"""The API server in memory: what the real one cannot be made to do on order, and its parts."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from tramontane.api.errors import InvalidValue
from tramontane.kube.client import Client
from tramontane.kube.errors import Conflict, Gone, Invalid, NotFound, Unreachable
from tramontane.kube.informer import Informer
from tramontane.kube.resources import BLADES, CONFIGMAPS, PODS
from tramontane.lab.sim import owning
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.client import SimClient, Weather
from tramontane.lab.sim.kinds import kind_of
from tramontane.lab.sim.owning import Owner
from tramontane.lab.sim.patching import json_patched, merge_patched
from tramontane.lab.sim.store import matching
from tramontane.lab.sim.virtual import VirtualLoop, run
from tramontane.lab.sim.watching import collect_garbage, forget_often

Raw = dict[str, Any]
NS = "default"


def config(name: str, **data: str) -> Raw:
    return {"metadata": {"name": name, "namespace": NS}, "data": data}


def a_server() -> ApiServer:
    return ApiServer(lambda: 1_800_000_000.0)


# Objects


def test_what_was_given_out_stays_as_it_was() -> None:
    api = a_server()
    first = api.create(CONFIGMAPS, config("a", x="1"), NS, "me")
    api.merge_patch(CONFIGMAPS, "a", NS, {"data": {"x": "2"}}, subresource=None, by="me")
    assert first["data"] == {"x": "1"}
    assert api.get(CONFIGMAPS, "a", NS)["data"] == {"x": "2"}


def test_a_write_that_changes_nothing_is_no_event() -> None:
    api = a_server()
    api.create(CONFIGMAPS, config("a", x="1"), NS, "me")
    before = api.writes
    api.merge_patch(CONFIGMAPS, "a", NS, {"data": {"x": "1"}}, subresource=None, by="me")
    assert api.writes == before


def test_pods_request_what_they_are_limited_to() -> None:
    api = a_server()
    container = {"name": "a", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    pod = {"metadata": {"name": "p", "namespace": NS}, "spec": {"containers": [container]}}
    made = api.create(PODS, pod, NS, "me")
    assert made["spec"]["containers"][0]["resources"]["requests"] == {"nvidia.com/gpu": "8"}


def test_orphans_have_no_owner_left() -> None:
    api = a_server()
    one, two = (api.create(CONFIGMAPS, config(name), NS, "me") for name in ("one", "two"))
    body = config("both")
    body["metadata"]["ownerReferences"] = [
        {"uid": one["metadata"]["uid"]},
        {"uid": two["metadata"]["uid"]},
    ]
    api.create(CONFIGMAPS, body, NS, "me")
    api.delete(CONFIGMAPS, "one", NS, None, None)
    assert api.orphans_of(one["metadata"]["uid"]) == []
    api.delete(CONFIGMAPS, "two", NS, None, None)
    assert [name for _, name, _, _ in api.orphans_of(two["metadata"]["uid"])] == ["both"]


def test_compaction_makes_old_versions_gone() -> None:
    api = a_server()
    api.create(CONFIGMAPS, config("a"), NS, "me")
    api.create(CONFIGMAPS, config("b"), NS, "me")
    page = api.list_page(CONFIGMAPS, NS, matching(None, None), 1, None)
    assert [event.key for event in api.since(1)] == [f"{NS}/b"]
    api.create(CONFIGMAPS, config("c"), NS, "me")
    api.compact()
    with pytest.raises(Gone):
        api.since(1)
    with pytest.raises(Gone):
        api.list_page(CONFIGMAPS, NS, matching(None, None), 1, page["metadata"]["continue"])
    assert api.since(3) == []


def test_our_kinds_have_the_lists_of_their_crds() -> None:
    schema = kind_of(BLADES).schema
    assert schema.keys["status", "conditions"] == ("type",)
    assert ("status", "report", "faults") not in schema.keys


# Owners


def test_a_list_with_keys_is_owned_item_by_item() -> None:
    schema = owning.schema_of(keys={("status", "conditions"): ("type",)})
    ready = {"type": "Ready", "status": "True"}
    other = {"type": "Other", "status": "True"}
    one, two = Owner("one", applies=True), Owner("two", applies=True)
    first = owning.applied({}, {}, {"status": {"conditions": [ready]}}, one, schema)
    both = owning.applied(first.raw, first.owners, {"status": {"conditions": [other]}}, two, schema)
    assert both.raw["status"]["conditions"] == [ready, other]
    left = owning.applied(both.raw, both.owners, {}, one, schema)
    assert left.raw["status"]["conditions"] == [other]
    assert left.owners.keys() == {two}


def test_a_list_without_keys_is_owned_whole() -> None:
    schema = owning.schema_of()
    one, two = Owner("one", applies=True), Owner("two", applies=True)
    first = owning.applied({}, {}, {"spec": {"lost": [1]}}, one, schema)
    taken = owning.applied(first.raw, first.owners, {"spec": {"lost": [2]}}, two, schema)
    assert [who for who, _ in taken.conflicts] == ["one"]
    assert taken.raw["spec"]["lost"] == [2]


# Patches and selectors


@pytest.mark.parametrize(
    ("target", "patch", "after"),
    [
        pytest.param({"a": 1}, {"a": None}, {}, id="null removes"),
        pytest.param({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}, id="maps merge"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="lists are replaced"),
        pytest.param({"a": 1}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}, id="no nulls are left"),
    ],
)
def test_merge_patches(target: Raw, patch: Raw, after: Raw) -> None:
    assert merge_patched(target, patch) == after


def test_json_patches_do_all_or_nothing() -> None:
    target = {"spec": {"taints": [{"key": "a"}, {"key": "b"}]}}
    good: list[Raw] = [
        {"op": "test", "path": "/spec/taints/1/key", "value": "b"},
        {"op": "remove", "path": "/spec/taints/1"},
        {"op": "add", "path": "/spec/taints/-", "value": {"key": "c"}},
        {"op": "add", "path": "/spec/a~1b", "value": "x"},
        {"op": "replace", "path": "/spec/taints/0/key", "value": "z"},
    ]
    assert json_patched(target, good)["spec"] == {
        "taints": [{"key": "z"}, {"key": "c"}],
        "a/b": "x",
    }
    for bad in (
        {"op": "remove", "path": "/spec/none"},
        {"op": "add", "path": "/none/a", "value": 1},
        {"op": "replace", "path": "/spec/none", "value": 1},
        {"op": "move", "path": "/spec/taints", "from": "/a"},
    ):
        with pytest.raises(Invalid):
            json_patched(target, [*good, bad])
    assert target == {"spec": {"taints": [{"key": "a"}, {"key": "b"}]}}


@pytest.mark.parametrize("selector", ["a b", "in (x)", "a in x"])
def test_a_selector_that_cannot_be_read_is_refused(selector: str) -> None:
    with pytest.raises(InvalidValue, match="selector must be"):
        matching(selector, None)


# Weather


def virtually(work: Any) -> Any:
    loop = VirtualLoop(1_800_000_000.0)
    return run(work(ApiServer(loop.wall)), loop)


def test_an_informer_keeps_up_whatever_the_weather() -> None:
    async def work(api: ApiServer) -> None:
        weather = Weather(watch_s=1, break_every_s=20, forget_every_s=30, seed=5)
        informer = Informer[Raw](
            cast("Client", SimClient(api, "me", weather)), CONFIGMAPS, lambda raw: raw
        )
        tasks = [
            asyncio.create_task(informer.run()),
            asyncio.create_task(forget_often(api, weather.forget_every_s)),
        ]
        for number in range(200):
            api.create(CONFIGMAPS, config(f"c{number}", x=str(number)), NS, "you")
            if number % 3 == 0:
                api.delete(CONFIGMAPS, f"c{number}", NS, None, None)
            await asyncio.sleep(1)
        await asyncio.sleep(120)
        there = {raw["metadata"]["name"]: raw["data"] for raw in api.objects(CONFIGMAPS)}
        seen = {raw["metadata"]["name"]: raw["data"] for raw in informer.cache.values()}
        for task in tasks:
            task.cancel()
        assert seen == there
        assert len(there) == 133

    virtually(work)


def test_watches_break_come_late_and_end_with_a_bookmark() -> None:
    async def work(api: ApiServer) -> None:
        loop = asyncio.get_running_loop()
        late = SimClient(api, "me", Weather(watch_s=2))
        async with late.stream(CONFIGMAPS, NS, params={"timeoutSeconds": "50"}) as lines:
            api.create(CONFIGMAPS, config("a"), NS, "you")
            began = loop.time()
            assert json.loads(await anext(lines))["type"] == "ADDED"
            assert 1 <= loop.time() - began <= 4
            assert json.loads(await anext(lines))["type"] == "BOOKMARK"
            assert loop.time() == pytest.approx(50, abs=1)
        breaking = SimClient(api, "me", Weather(break_every_s=1))
        now = {"resourceVersion": str(api.writes)}
        async with breaking.stream(CONFIGMAPS, NS, params=now) as lines:
            with pytest.raises(Unreachable):
                await anext(lines)
        api.compact()
        async with late.stream(CONFIGMAPS, NS, params={"resourceVersion": "0"}) as lines:
            error = json.loads(await anext(lines))
        assert (error["type"], error["object"]["code"]) == ("ERROR", 410)

    virtually(work)


def test_garbage_goes_a_moment_later_and_down_to_the_last() -> None:
    async def work(api: ApiServer) -> None:
        task = asyncio.create_task(collect_garbage(api))
        uid = api.create(CONFIGMAPS, config("top"), NS, "me")["metadata"]["uid"]
        for name in ("middle", "bottom"):
            body = config(name)
            body["metadata"]["ownerReferences"] = [{"uid": uid}]
            uid = api.create(CONFIGMAPS, body, NS, "me")["metadata"]["uid"]
        await asyncio.sleep(1)
        api.delete(CONFIGMAPS, "top", NS, None, None)
        assert api.find(CONFIGMAPS, "middle", NS) is not None
        await asyncio.sleep(3)
        task.cancel()
        assert list(api.objects(CONFIGMAPS)) == []

    virtually(work)


def test_requests_take_their_time_and_evictions_delete() -> None:
    async def work(api: ApiServer) -> None:
        client = SimClient(api, "me", Weather(request_s=0.25))
        loop = asyncio.get_running_loop()
        pod = {"metadata": {"name": "p", "namespace": NS}, "spec": {"containers": []}}
        await client.create(PODS, pod)
        assert loop.time() == pytest.approx(0.25)
        body = {"metadata": {"name": "p", "namespace": NS}}
        await client.create(PODS, body, NS, name="p", subresource="eviction")
        with pytest.raises(NotFound):
            await client.get(PODS, "p", NS)
        with pytest.raises(NotFound, match="not simulated"):
            await client.create(PODS, body, NS, name="p", subresource="binding")
        assert client.requests == 4

    virtually(work)


def test_another_objects_uid_is_refused_but_where_only_a_status_is_taken() -> None:
    api = a_server()
    api.create(CONFIGMAPS, config("a"), NS, "me")
    body = config("a")
    body["metadata"]["uid"] = "other"
    writes: list[Callable[[], Raw]] = [
        lambda: api.replace(CONFIGMAPS, body, None, "me"),
        lambda: api.apply(CONFIGMAPS, body, "me", None, force=True),
        lambda: api.merge_patch(
            CONFIGMAPS, "a", NS, {"metadata": {"uid": "other"}}, subresource=None, by="me"
        ),
        lambda: api.delete(CONFIGMAPS, "a", NS, None, "other"),
    ]
    for write in writes:
        with pytest.raises((Conflict, Invalid)):
            write()
    blade = {"metadata": {"name": "b"}, "spec": {"pool": "hall"}}
    api.create(BLADES, blade, None, "me")
    other = {"metadata": {"name": "b", "uid": "other"}, "status": {"state": "Lost"}}
    assert api.apply(BLADES, other, "me", "status", force=True)["status"] == {"state": "Lost"}
