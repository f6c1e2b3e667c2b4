"""One script of requests that says how an API server answers; it runs on the real one and on ours.

Each line of the transcript is what a step showed of what Tramontane relies on: the error's class,
or the parts of the object. What differs by nature (uids, versions, times, defaults) is left out.
"""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, NotFound
from tramontane.kube.resources import BLADES, CONFIGMAPS, NODES, PODS

NS = "default"
Raw = dict[str, Any]
Line = tuple[str, Any]
_STRANGER = "11111111-1111-4111-8111-111111111111"
_PATIENCE_S = 30.0


class Script:
    """The steps, and what they showed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lines: list[Line] = []

    async def run(self) -> list[Line]:
        for part in (
            self.plain, self.ownership, self.patches, self.preconditions, self.statuses,
            self.conditions, self.pods, self.pages, self.finalizers, self.garbage, self.watch,
        ):  # fmt: skip
            await part()
        return self.lines

    def say(self, step: str, shown: Any) -> None:
        self.lines.append((step, json.loads(json.dumps(shown, sort_keys=True))))

    async def tell(self, step: str, request: Awaitable[Raw], *path: str) -> Raw:
        """Do a request; say its error, or what is at the path of the answer."""
        try:
            answer = await request
        except ApiError as error:
            self.say(step, type(error).__name__)
            return {}
        shown: Any = answer
        for name in path:
            shown = shown.get(name) if isinstance(shown, dict) else None
        self.say(step, shown if path else "ok")
        return answer

    async def plain(self) -> None:
        c = self.client
        await self.tell("create", c.create(CONFIGMAPS, config("a", x="1")), "data")
        await self.tell("create again", c.create(CONFIGMAPS, config("a", x="2")))
        await self.tell("get", c.get(CONFIGMAPS, "a", NS), "data")
        await self.tell("get none", c.get(CONFIGMAPS, "nothing", NS))
        await self.tell("delete none", c.delete(CONFIGMAPS, "nothing", NS))

    async def ownership(self) -> None:
        c = self.client

        def apply(manager: str, *, force: bool = True, **data: str) -> Awaitable[Raw]:
            return c.apply(CONFIGMAPS, config("b", **data), manager=manager, force=force)

        first = await self.tell("apply makes", apply("one", x="1", y="1"), "data")
        second = await self.tell("apply the same", apply("one", x="1", y="1"), "data")
        self.say("same version", version(first) == version(second))
        await self.tell("apply beside", apply("two", z="1"), "data")
        await self.tell("apply gives up", apply("one", x="2"), "data")
        await self.tell("apply against", apply("two", force=False, x="3"))
        await self.tell("apply with force", apply("two", x="3"), "data")
        await self.tell("taken from one", apply("one", force=False, x="4"))
        await self.tell("owned by both", apply("one", force=False, x="3"), "data")
        await self.tell("one of both leaves", apply("two"), "data")
        await self.tell("the other leaves", apply("one"), "data")

    async def patches(self) -> None:
        c = self.client
        await c.apply(CONFIGMAPS, config("p", x="1", y="1"), manager="one")
        patch = {"data": {"x": "2", "y": None, "n": "1"}}
        await self.tell("merge patch", c.merge_patch(CONFIGMAPS, "p", patch, NS), "data")
        again = c.apply(CONFIGMAPS, config("p", x="3"), manager="one", force=False)
        await self.tell("a patch takes fields", again)
        await self.tell("patch none", c.merge_patch(CONFIGMAPS, "nothing", patch, NS))
        one = {"op": "test", "path": "/data/x", "value": "9"}
        await self.tell("json test fails", c.json_patch(CONFIGMAPS, "p", [one], NS))
        absent = {"op": "test", "path": "/data/q", "value": None}
        add = {"op": "add", "path": "/data/q", "value": "1"}
        gone = {"op": "remove", "path": "/data/n"}
        await self.tell(
            "json patch", c.json_patch(CONFIGMAPS, "p", [absent, add, gone], NS), "data"
        )
        await self.tell("json remove none", c.json_patch(CONFIGMAPS, "p", [gone], NS))

    async def preconditions(self) -> None:
        c = self.client
        made = await c.create(CONFIGMAPS, config("c", x="1"))
        changed = await c.merge_patch(CONFIGMAPS, "c", {"data": {"x": "2"}}, NS)
        await self.tell("replace an old one", c.replace(CONFIGMAPS, made))
        fresh = {**changed, "data": {"x": "3"}}
        await self.tell("replace", c.replace(CONFIGMAPS, fresh), "data")
        strange = {**fresh, "metadata": {**changed["metadata"], "uid": _STRANGER}}
        del strange["metadata"]["resourceVersion"]
        await self.tell("replace another uid", c.replace(CONFIGMAPS, strange))
        wrong = {"metadata": {"uid": _STRANGER}, "data": {"x": "4"}}
        await self.tell("patch another uid", c.merge_patch(CONFIGMAPS, "c", wrong, NS))
        body = config("c", x="5")
        body["metadata"]["uid"] = _STRANGER
        await self.tell("apply another uid", c.apply(CONFIGMAPS, body, manager="one"))
        body = config("none", x="5")
        body["metadata"]["uid"] = _STRANGER
        await self.tell("apply a uid that is not", c.apply(CONFIGMAPS, body, manager="one"))
        await self.tell("delete another uid", c.delete(CONFIGMAPS, "c", NS, uid=_STRANGER))
        await self.tell("delete by uid", c.delete(CONFIGMAPS, "c", NS, uid=made["metadata"]["uid"]))
        await self.tell("get deleted", c.get(CONFIGMAPS, "c", NS))

    async def statuses(self) -> None:
        c = self.client
        body = {"metadata": {"name": "s"}, "spec": {"pool": "hall"}}
        full = {**body, "status": {"state": "Healthy"}}
        made = await self.tell("create drops status", c.apply(BLADES, full, manager="op"), "status")
        self.say("generation", made["metadata"]["generation"])

        def status(manager: str, **fields: Any) -> Awaitable[Raw]:
            said = {"metadata": {"name": "s"}, "status": fields}
            return c.apply(BLADES, said, manager=manager, subresource="status")

        await self.tell("status", status("op", state="Healthy", message="m"), "status")
        report = {"agent": {"version": "1"}, "faults": [{"code": "xid-79", "severity": "Fatal"}]}
        await self.tell("status beside", status("agent", report=report), "status", "state")
        left = await self.tell("status gives up", status("op", state="Lost"), "status", "message")
        self.say("report stays", left["status"]["report"]["faults"][0]["code"])
        self.say("generation stays", left["metadata"]["generation"])
        hold = {"spec": {"hold": {"reason": "r", "by": "b"}}, "status": {"state": "Healthy"}}
        held = await self.tell(
            "main leaves status", c.merge_patch(BLADES, "s", hold), "status", "state"
        )
        self.say("generation counts", held["metadata"]["generation"])
        patch = {"spec": {"hold": None}, "status": {"state": "Suspect"}}
        kept = c.merge_patch(BLADES, "s", patch, subresource="status")
        await self.tell("status leaves spec", kept, "spec", "hold", "by")
        none = {"metadata": {"name": "none"}, "status": {"state": "Lost"}}
        await self.tell("status of none", c.apply(BLADES, none, manager="op", subresource="status"))
        other = {"metadata": {"name": "s", "uid": _STRANGER}, "status": {"state": "Lost"}}
        await self.tell("status by uid", c.apply(BLADES, other, manager="op", subresource="status"))
        labels = {"metadata": {"labels": {"a": "b"}}}
        marked = await c.merge_patch(BLADES, "s", labels)
        self.say("labels do not count", marked["metadata"]["generation"])
        await c.delete(BLADES, "s")

    async def conditions(self) -> None:
        c = self.client
        ready = condition("Ready", "True")
        await c.create(NODES, {"metadata": {"name": "n"}, "status": {"conditions": [ready]}})

        async def apply(step: str, manager: str, *conditions: Raw) -> None:
            body: Raw = {"metadata": {"name": "n"}}
            if conditions:
                body["status"] = {"conditions": list(conditions)}
            answer = await c.apply(NODES, body, manager=manager, subresource="status")
            found = {one["type"]: one["status"] for one in answer["status"].get("conditions", ())}
            wanted = ("GPUHealthy", "Other")
            self.say(step, {name: found[name] for name in wanted if name in found})

        await apply("a condition", "op", condition("GPUHealthy", "True"))
        await apply("one beside", "two", condition("Other", "True"))
        await apply("one changed", "op", condition("GPUHealthy", "False"))
        await apply("one given up", "op")
        await c.delete(NODES, "n")

    async def pods(self) -> None:
        c = self.client
        pod = a_pod("bound", nodeName="nowhere")
        made = await self.tell(
            "pod", c.create(PODS, {**pod, "status": {"phase": "Running"}}), "status", "phase"
        )
        running = {"status": {"phase": "Running", "podIP": "10.0.0.1"}}
        seen = c.merge_patch(PODS, "bound", running, NS, subresource="status")
        await self.tell("pod status", seen, "status", "phase")
        wrong = {"metadata": {"uid": _STRANGER, "annotations": {"tramontane.dev/epoch": "2"}}}
        await self.tell("patch another pod", c.merge_patch(PODS, "bound", wrong, NS))
        status = {"metadata": {"uid": _STRANGER}, "status": {"phase": "Failed"}}
        other = c.merge_patch(PODS, "bound", status, NS, subresource="status")
        await self.tell("status of another pod", other)
        right = {"metadata": {"uid": made["metadata"]["uid"], "annotations": {"a/b": "2"}}}
        await self.tell(
            "patch a pod", c.merge_patch(PODS, "bound", right, NS), "metadata", "annotations"
        )
        left = {"metadata": {"annotations": {"a/b": None}}}
        await self.tell(
            "no annotation", c.merge_patch(PODS, "bound", left, NS), "metadata", "annotations"
        )
        await c.delete(PODS, "bound", NS, grace_period_s=20)
        going = await c.get(PODS, "bound", NS)
        self.say("going", going["metadata"]["deletionGracePeriodSeconds"])
        self.say("has a stamp", "deletionTimestamp" in going["metadata"])
        await c.delete(PODS, "bound", NS, grace_period_s=5)
        self.say(
            "sooner", (await c.get(PODS, "bound", NS))["metadata"]["deletionGracePeriodSeconds"]
        )
        await c.delete(PODS, "bound", NS, grace_period_s=15)
        self.say(
            "not later", (await c.get(PODS, "bound", NS))["metadata"]["deletionGracePeriodSeconds"]
        )
        await self.tell("by force", c.delete(PODS, "bound", NS, grace_period_s=0))
        await self.tell("gone", c.get(PODS, "bound", NS))
        await c.create(PODS, a_pod("unbound"))
        await c.delete(PODS, "unbound", NS, grace_period_s=20)
        await self.tell("unbound has no grace", c.get(PODS, "unbound", NS))

    async def pages(self) -> None:
        c = self.client
        for number in range(5):
            body = config(f"l{number}", x="1")
            body["metadata"]["labels"]["odd"] = str(number % 2)
            await c.create(CONFIGMAPS, body)
        page = await c.list_page(CONFIGMAPS, NS, label_selector="odd", limit=2)
        self.say("first page", [item["metadata"]["name"] for item in page["items"]])
        token = page["metadata"]["continue"]
        page = await c.list_page(CONFIGMAPS, NS, label_selector="odd", limit=2, continue_=token)
        self.say("second page", [item["metadata"]["name"] for item in page["items"]])
        for selector in (
            "odd=1",
            "odd!=1,tests",
            "odd in (0,1)",
            "odd notin (1),odd",
            "!odd,tests",
        ):
            found = await c.list_all(CONFIGMAPS, NS, label_selector=selector)
            self.say(selector, [item["metadata"]["name"] for item in found])
        named = await c.list_all(CONFIGMAPS, NS, field_selector="metadata.name=l3")
        self.say("by field", [item["metadata"]["name"] for item in named])

    async def finalizers(self) -> None:
        c = self.client
        body = config("f", x="1")
        body["metadata"]["finalizers"] = ["tests.dev/wait"]
        await c.create(CONFIGMAPS, body)
        await c.delete(CONFIGMAPS, "f", NS)
        there = await self.tell("waits for its finalizer", c.get(CONFIGMAPS, "f", NS), "data")
        self.say("is going", "deletionTimestamp" in there["metadata"])
        await c.merge_patch(CONFIGMAPS, "f", {"metadata": {"finalizers": None}}, NS)
        await self.tell("gone with it", c.get(CONFIGMAPS, "f", NS))

    async def garbage(self) -> None:
        c = self.client
        owner = await c.create(CONFIGMAPS, config("owner", x="1"))
        body = config("owned", x="1")
        body["metadata"]["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": "owner",
                "uid": owner["metadata"]["uid"],
            }
        ]
        await c.create(CONFIGMAPS, body)
        await c.delete(CONFIGMAPS, "owner", NS, propagation="Background")
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    await c.get(CONFIGMAPS, "owned", NS)
                except NotFound:
                    break
                await asyncio.sleep(0.1)
        self.say("owned goes", True)

    async def watch(self) -> None:
        c = self.client
        page = await c.list_page(CONFIGMAPS, NS, label_selector="watched=yes")
        params = {
            "labelSelector": "watched=yes",
            "resourceVersion": page["metadata"]["resourceVersion"],
        }
        body = config("w", x="1")
        body["metadata"]["labels"]["watched"] = "yes"
        await c.create(CONFIGMAPS, body)
        seen: list[Line] = []
        async with c.stream(CONFIGMAPS, NS, params=params, silence_s=_PATIENCE_S) as lines:
            await c.merge_patch(CONFIGMAPS, "w", {"data": {"x": "2"}}, NS)
            await c.merge_patch(CONFIGMAPS, "w", {"data": {"x": "2"}}, NS)  # the same: no event
            out = {"metadata": {"labels": {"watched": "no"}}, "data": {"x": "3"}}
            await c.merge_patch(CONFIGMAPS, "w", out, NS)
            back = {"metadata": {"labels": {"watched": "yes"}}}
            await c.merge_patch(CONFIGMAPS, "w", back, NS)
            await c.delete(CONFIGMAPS, "w", NS)
            async for line in lines:
                event = json.loads(line)
                seen.append((event["type"], event["object"]["data"]["x"]))
                if len(seen) == 5:
                    break
        self.say("watched", seen)


def config(name: str, **data: str) -> Raw:
    body: Raw = {"metadata": {"name": name, "namespace": NS, "labels": {"tests": "script"}}}
    return {**body, "data": data} if data else body


def condition(type_: str, status: str) -> Raw:
    stamp = "2026-11-24T15:02:07Z"
    return {
        "type": type_, "status": status, "reason": "Test", "message": "",
        "lastTransitionTime": stamp, "lastHeartbeatTime": stamp,
    }  # fmt: skip


def a_pod(name: str, **spec: Any) -> Raw:
    container = {"name": "one", "image": "none"}
    meta = {"name": name, "namespace": NS, "labels": {"tests": "script"}}
    return {"metadata": meta, "spec": {"containers": [container], **spec}}


def version(raw: Raw) -> str:
    return str(raw["metadata"]["resourceVersion"])
