"""The InferenceDeployment controller on a real API server, with the real scheduler and KWOK."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plane.hall import NAMESPACE, SOON_S, a_scheduled_hall, controlled, made, say_state
from plane.harness import Plane
from tramontane.api.names import (
    ANNOTATION_PEERS,
    LABEL_GANG,
    LABEL_INFERENCE,
    LABEL_REVISION,
    LABEL_ROTATION,
    LABEL_SEAT,
)
from tramontane.controllers.inferencedeployment import Config, InferenceDeploymentController
from tramontane.kube.client import Client, NotFound
from tramontane.kube.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    CRDS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    GANGS,
    HTTPROUTES,
    INFERENCEDEPLOYMENTS,
    NETWORKPOLICIES,
    PODS,
    SERVICES,
    Resource,
)

ROOT = Path(__file__).parents[2]
NAME = "claims"
Raw = dict[str, Any]
POOL: Raw = {
    "gpu": {"count": 8, "product": "NVIDIA-H200", "memory": "141Gi"},
    "topology": {"levels": [{"name": "rack", "label": "topology.tramontane.dev/rack"}]},
}
# Llama 3.3 70B.
MODEL: Raw = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
ALL = (PODS, GANGS, SERVICES, CONFIGMAPS, NETWORKPOLICIES, CONTROLLERREVISIONS, ENDPOINTSLICES)


def controlling(plane: Plane, **config: Any) -> AbstractAsyncContextManager[Any]:
    given = Config(activator_port=0, **config)
    make = partial(InferenceDeploymentController, config=given)
    return controlled(plane, INFERENCEDEPLOYMENTS, make)


@asynccontextmanager
async def a_hall(plane: Plane, blades: int = 4) -> AsyncIterator[Client]:
    async with a_scheduled_hall(plane, blades, **POOL) as client, controlling(plane):
        yield client


def a_deployment(*, tensor: int = 8, nodes: int = 1, **spec: Any) -> Raw:
    body: Raw = {
        "nodePool": "paris",
        "model": {"source": {"hostPath": "/models/claims-v7"}, "config": MODEL},
        "engine": {"name": "vllm", "image": "registry.local/vllm:0.32", "version": "0.32"},
        "capacity": {"contextTokens": 8192, "concurrentRequests": 8},
        "layout": {"mode": "Fixed", "tensor": tensor, "nodes": nodes},
        "rollout": {"steps": [], "drainTimeout": "1s"},
    }
    return made("InferenceDeployment", NAME, body | spec)


async def status_of(client: Client, holds: Callable[[Raw], Any], what: str) -> Raw:
    """Return the deployment's status as soon as it is as wanted."""
    status: Raw = {}
    try:
        async with asyncio.timeout(SOON_S):
            while not (status and holds(status)):
                await asyncio.sleep(0.02)
                raw = await client.get(INFERENCEDEPLOYMENTS, NAME, NAMESPACE)
                status = raw.get("status") or {}
    except TimeoutError:
        gangs = await client.list_all(GANGS, NAMESPACE)
        pods = [(p["metadata"], p.get("status")) for p in await client.list_all(PODS, NAMESPACE)]
        pytest.fail(f"the deployment must become {what} (got {status}; {gangs}; {pods})")
    return status


def in_phase(phase: str) -> Callable[[Raw], bool]:
    return lambda status: status.get("phase") == phase


async def owned(client: Client, resource: Resource) -> list[Raw]:
    return await client.list_all(resource, NAMESPACE, label_selector=f"{LABEL_INFERENCE}={NAME}")


async def pods_of(client: Client) -> dict[str, Raw]:
    return {pod["metadata"]["name"]: pod for pod in await owned(client, PODS)}


async def nothing(client: Client, *resources: Resource) -> bool:
    return not any([await owned(client, resource) for resource in resources])


async def until(holds: Callable[[], Any], within_s: float = SOON_S) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - the API server sets no event
            await asyncio.sleep(0.05)


async def test_a_replica_waits_for_all_of_its_gpus_and_then_starts_at_once(plane: Plane) -> None:
    async with a_hall(plane, blades=2) as client:
        gpu = {"limits": {"nvidia.com/gpu": "1"}}
        container = {"name": "c", "image": "x", "resources": gpu}
        spec = {"nodeName": "gpu-0002", "containers": [container]}
        await client.create(
            PODS, {"metadata": {"name": "other", "namespace": NAMESPACE}, "spec": spec}
        )
        await client.create(INFERENCEDEPLOYMENTS, a_deployment(tensor=16, nodes=2))

        status = await status_of(client, lambda s: s.get("reason"), "Waiting")

        assert (status["phase"], status["reason"]) == ("Waiting", "NoCapacity")
        assert "blade" in status["message"]
        assert status["plan"]["gpusPerReplica"] == 16
        await asyncio.sleep(1)
        assert await pods_of(client) == {}

        before = await client.list_all(PODS, NAMESPACE)
        assert [pod["metadata"]["name"] for pod in before] == ["other"]
        await client.delete(PODS, "other", NAMESPACE, grace_period_s=0)
        await status_of(client, in_phase("Serving"), "Serving")

        async def in_rotation() -> bool:
            labels = (await pods_of(client))[f"{NAME}-0-0"]["metadata"]["labels"]
            return bool(labels[LABEL_ROTATION] == "in")

        async def know_their_head() -> bool:
            pods = await pods_of(client)
            peers = f'{{"0": "{pods[f"{NAME}-0-0"]["status"]["podIP"]}"}}'
            return bool(pods[f"{NAME}-0-1"]["metadata"]["annotations"][ANNOTATION_PEERS] == peers)

        await until(in_rotation)
        await until(know_their_head)
        pods = await pods_of(client)
        assert set(pods) == {f"{NAME}-0-0", f"{NAME}-0-1"}
        created = {pod["metadata"]["creationTimestamp"] for pod in pods.values()}
        assert len(created) <= 2
        assert {pod["spec"]["nodeName"] for pod in pods.values()} == {"gpu-0001", "gpu-0002"}
        assert LABEL_ROTATION not in pods[f"{NAME}-0-1"]["metadata"]["labels"]
        assert (await owned(client, GANGS))[0]["metadata"]["labels"][LABEL_REVISION]


async def test_a_spec_that_is_refused_makes_nothing(plane: Plane) -> None:
    async with a_hall(plane, blades=2) as client:
        await client.create(INFERENCEDEPLOYMENTS, a_deployment(tensor=24))
        status = await status_of(client, in_phase("Failed"), "Failed")
        assert status["reason"] == "Misconfigured"
        assert await nothing(client, *ALL, DEPLOYMENTS)

        body = a_deployment()["spec"]
        engine = {"containers": [{"name": "engine", "env": [{"name": "RANK", "value": "0"}]}]}
        patch = {"spec": {**body, "template": {"spec": engine}}}
        await client.merge_patch(INFERENCEDEPLOYMENTS, NAME, patch, NAMESPACE)
        status = await status_of(client, lambda s: "RANK" in s.get("message", ""), "refused")
        assert await nothing(client, *ALL, DEPLOYMENTS)

        await client.merge_patch(
            INFERENCEDEPLOYMENTS, NAME, {"spec": {"template": None}}, NAMESPACE
        )
        await status_of(client, in_phase("Serving"), "Serving")


async def test_a_new_revision_takes_over_and_a_restart_of_the_operator_does_not_matter(
    plane: Plane,
) -> None:
    async with a_scheduled_hall(plane, 4, **POOL) as client:
        async with controlling(plane):
            await client.create(
                INFERENCEDEPLOYMENTS,
                a_deployment(capacity={**a_deployment()["spec"]["capacity"], "minReplicas": 2}),
            )
            status = await status_of(
                client, lambda s: s["phase"] == "Serving" and s["ready"] == "2/2", "Serving"
            )
            [old] = [one["hash"] for one in status["revisions"]]
            before = await pods_of(client)
            patch = {"spec": {"engine": {"extraArgs": ["--enable-prefix-caching"]}}}
            await client.merge_patch(INFERENCEDEPLOYMENTS, NAME, patch, NAMESPACE)
            await status_of(client, in_phase("RollingOut"), "RollingOut")
        # Somebody else leads by now, who knows nothing but what the API server has.
        async with controlling(plane):
            status = await status_of(
                client,
                lambda s: (
                    s["phase"] == "Serving"
                    and s["ready"] == "2/2"
                    and all(one["revision"] != old for one in s["replicas"])
                ),
                "Serving anew",
            )

            pods = await pods_of(client)
            assert not before.keys() & pods.keys()
            assert {pod["metadata"]["labels"][LABEL_REVISION] for pod in pods.values()} != {old}
            assert len({pod["metadata"]["labels"][LABEL_GANG] for pod in pods.values()}) == 2
            assert len(await owned(client, GANGS)) == 2


async def test_a_faulty_blade_moves_the_replica(plane: Plane) -> None:
    async with a_hall(plane, blades=2) as client:
        await client.create(INFERENCEDEPLOYMENTS, a_deployment())
        await status_of(client, in_phase("Serving"), "Serving")
        [pod] = (await pods_of(client)).values()
        bad = pod["spec"]["nodeName"]

        await say_state(client, bad, "Quarantined")
        await status_of(
            client,
            lambda s: s["phase"] == "Serving" and [bad] not in [r["blades"] for r in s["replicas"]],
            "served elsewhere",
        )

        [pod] = (await pods_of(client)).values()
        assert pod["spec"]["nodeName"] != bad
        assert pod["metadata"]["labels"][LABEL_SEAT] == "0"


async def test_deletion_leaves_nothing(plane: Plane) -> None:
    async with a_hall(plane) as client:
        await client.create(INFERENCEDEPLOYMENTS, a_deployment())
        await status_of(client, in_phase("Serving"), "Serving")
        for resource in (SERVICES, CONFIGMAPS, NETWORKPOLICIES, CONTROLLERREVISIONS):
            assert await owned(client, resource), resource.kind

        await client.delete(INFERENCEDEPLOYMENTS, NAME, NAMESPACE)

        # Of kinds as new as ours the garbage collector hears only each 30 s.
        await until(lambda: nothing(client, *ALL), within_s=3 * SOON_S)


async def test_while_no_replica_serves_the_service_leads_to_the_operator(plane: Plane) -> None:
    async with (
        a_scheduled_hall(plane, 2, **POOL) as client,
        controlling(plane, address="10.1.2.3") as controller,
    ):
        for blade in ("gpu-0001", "gpu-0002"):
            await say_state(client, blade, "Quarantined")
        capacity = {"contextTokens": 8192, "concurrentRequests": 8}
        capacity |= {"minReplicas": 0, "maxReplicas": 1}
        await client.create(INFERENCEDEPLOYMENTS, a_deployment(capacity=capacity))
        name = f"{NAME}-activator"

        async def is_there() -> bool:
            try:
                made = await client.get(ENDPOINTSLICES, name, NAMESPACE)
            except NotFound:
                return False
            assert made["endpoints"][0]["addresses"] == ["10.1.2.3"]
            return True

        async def is_gone() -> bool:
            return not await is_there()

        await until(is_there)
        assert controller.backend_of(f"{NAMESPACE}/{NAME}") is None
        controller.demanded(f"{NAMESPACE}/{NAME}")
        await say_state(client, "gpu-0001", "Healthy")
        await status_of(client, in_phase("Serving"), "Serving")
        await until(is_gone)
        [pod] = (await pods_of(client)).values()
        assert controller.backend_of(f"{NAMESPACE}/{NAME}") == f"{pod['status']['podIP']}:8000"


async def test_the_edge_profile_is_a_deployment(plane: Plane) -> None:
    async with a_hall(plane, blades=1) as client:
        small = {**MODEL, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
        spec: Raw = {
            "profile": "Edge",
            "engine": {
                "name": "llamacpp",
                "image": "registry.local/llama.cpp:0.5",
                "version": "0.5",
            },
            "model": {"source": {"hostPath": "/models/small"}, "config": small},
            "layout": {"mode": "Auto"},
        }
        body = a_deployment(**spec)
        del body["spec"]["nodePool"]
        await client.create(INFERENCEDEPLOYMENTS, body)
        await status_of(client, in_phase("Loading"), "Loading")

        deployment = await client.get(DEPLOYMENTS, NAME, NAMESPACE)

        assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
        assert deployment["spec"]["template"]["spec"]["restartPolicy"] == "Always"
        assert await nothing(client, GANGS, CONTROLLERREVISIONS)


def _route_crd() -> Raw:
    """A stand-in for the Gateway API's HTTPRoute: of its schema, what a route of ours has."""
    integer = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
    text = {"type": "string"}
    backend = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": text, "port": integer, "weight": integer},
    }
    parent = {
        "type": "object",
        "required": ["name"],
        "properties": {"group": text, "kind": text, "name": text, "port": integer},
    }
    rule = {
        "type": "object",
        "properties": {"backendRefs": {"type": "array", "items": backend}},
    }
    spec = {
        "type": "object",
        "properties": {
            "parentRefs": {"type": "array", "items": parent},
            "rules": {"type": "array", "items": rule},
        },
    }
    schema = {"type": "object", "properties": {"spec": spec}}
    version = {
        "name": HTTPROUTES.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{HTTPROUTES.plural}.{HTTPROUTES.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": HTTPROUTES.group,
            "scope": "Namespaced",
            "names": {
                "plural": HTTPROUTES.plural,
                "singular": HTTPROUTES.kind.lower(),
                "kind": HTTPROUTES.kind,
            },
            "versions": [version],
        },
    }


@asynccontextmanager
async def a_gateway(plane: Plane) -> AsyncIterator[None]:
    """Let the API server know HTTPRoutes while the block lasts."""
    body = _route_crd()
    async with await plane.client() as client:

        async def known() -> bool:
            try:
                await client.list_all(HTTPROUTES, NAMESPACE)
            except NotFound:
                return False
            return True

        await client.create(CRDS, body)
        try:
            await until(known)
            yield
        finally:
            await client.delete(CRDS, body["metadata"]["name"])


async def test_where_routes_are_known_a_route_gives_each_revision_its_part(plane: Plane) -> None:
    rollout = {"steps": [{"weight": 20, "hold": "10m"}], "drainTimeout": "1s"}
    async with a_gateway(plane), a_hall(plane) as client:
        await client.create(INFERENCEDEPLOYMENTS, a_deployment(rollout=rollout))
        status = await status_of(client, in_phase("Serving"), "Serving")
        [old] = [one["hash"] for one in status["revisions"]]
        change = {"spec": {"capacity": {"contextTokens": 16384}}}
        await client.merge_patch(INFERENCEDEPLOYMENTS, NAME, change, NAMESPACE)
        status = await status_of(client, lambda it: (it.get("rollout") or {}).get("since"), "held")
        new = status["rollout"]["to"]
        wanted = {f"{NAME}-{old}": 80, f"{NAME}-{new}": 20}

        async def split() -> bool:
            route = await client.get(HTTPROUTES, NAME, NAMESPACE)
            [rule] = route["spec"]["rules"]
            return {one["name"]: one["weight"] for one in rule["backendRefs"]} == wanted

        await until(split)
        for name, revision in ((f"{NAME}-{old}", old), (f"{NAME}-{new}", new)):
            service = await client.get(SERVICES, name, NAMESPACE)
            assert service["spec"]["selector"][LABEL_REVISION] == revision


def test_the_crd_is_small() -> None:
    path = ROOT / "crds" / "tramontane.dev_inferencedeployments.yaml"
    assert path.stat().st_size <= 64 * 1024
