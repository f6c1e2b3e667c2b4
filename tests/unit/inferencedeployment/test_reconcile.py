"""The controller over a scripted API server: what it writes, in which order, and never twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.scripted import status, until
from tramontane.controllers.inferencedeployment import Config
from tramontane.kube.errors import ApiError
from unit.inferencedeployment.builders import CONFIG, a_deployment
from unit.inferencedeployment.serving_hall import (
    APPS,
    CORE,
    KEY,
    OURS,
    POLICIES,
    ROUTES,
    SLICES,
    a_hall,
)

Raw = dict[str, Any]


async def test_from_a_spec_to_a_replica_in_rotation(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle()

        assert (hall.status["phase"], hall.status["ready"]) == ("Serving", "1/1")
        pods = hall.of(f"{CORE}/pods")
        assert set(pods) == {"claims-0-0", "claims-0-1"}
        assert pods["claims-0-0"]["metadata"]["labels"]["tramontane.dev/rotation"] == "in"
        assert [pods[name]["spec"]["nodeName"] for name in sorted(pods)] == ["b0", "b1"]
        peers = pods["claims-0-1"]["metadata"]["annotations"]["tramontane.dev/peers"]
        assert peers == '{"0": "10.0.0.0"}'
        assert set(hall.of(f"{CORE}/services")) == {"claims"}
        assert set(hall.of(f"{CORE}/configmaps")) == {"claims-tramontane"}
        assert set(hall.of(POLICIES)) == {"claims"}
        assert len(hall.of(f"{APPS}/controllerrevisions")) == 1
        assert hall.of(SLICES) == {}
        assert hall.of(ROUTES) == {}
        assert set(hall.loads.watched) == {"claims-0"}


async def test_each_thing_is_written_once(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle()
        for part in ("/services", "/configmaps", "/networkpolicies", "/controllerrevisions"):
            assert len(hall.writes(part)) == 1, part
        assert len([one for one in hall.writes("/pods") if one.startswith("POST")]) == 2
        before = len(hall.server.bodies)

        for _ in range(10):
            await hall.controller.reconcile(KEY)

        assert len(hall.server.bodies) == before


async def test_a_stale_cache_makes_nothing_twice(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle(2)
        hall.place()
        hall.sync()
        for _ in range(6):
            hall.now += 0.1
            await hall.controller.reconcile(KEY)

        assert hall.writes("/pods") == ["POST pods", "POST pods"]


async def test_an_operator_that_starts_anew_changes_nothing(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle()
        before = {name: raw["metadata"]["uid"] for name, raw in hall.of(f"{CORE}/pods").items()}
        hall.server.requests.clear()
        hall.start()

        await hall.settle(4)

        after = {name: raw["metadata"]["uid"] for name, raw in hall.of(f"{CORE}/pods").items()}
        assert after == before
        assert hall.writes("/pods") == []
        assert hall.writes("/controllerrevisions") == []
        assert hall.status["phase"] == "Serving"


async def test_what_is_refused_makes_nothing(tmp_path: Path) -> None:
    async with a_hall(tmp_path, engine={"image": "x", "version": "0.1"}) as hall:
        await hall.settle(3)

        assert (hall.status["phase"], hall.status["reason"]) == ("Failed", "Misconfigured")
        assert {path for _, path in hall.server.requests if "fieldManager" in path} == {
            f"{OURS}/inferencedeployments/claims/status?fieldManager=tramontane-operator&force=true"
        }
        assert not any(method == "POST" for method, _ in hall.server.requests)


async def test_a_pod_that_the_api_server_refuses_is_said_and_tried_again(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle(2)
        hall.place()
        hall.sync()
        refused = hall.server.handle

        async def handle(request: Any) -> Any:
            if request.method == "POST" and request.path.endswith("/pods"):
                return status(403, "Forbidden", "exceeded quota")
            return await refused(request)

        hall.server.handle = handle  # type: ignore[method-assign]
        await hall.controller.reconcile(KEY)
        await hall.controller.reconcile(KEY)
        assert "exceeded quota" in hall.status["message"]

        del hall.server.handle
        hall.now += 60
        await hall.settle()
        assert hall.status["phase"] == "Serving"


async def test_what_becomes_of_a_replica_is_said_though_a_pod_of_it_cannot_be_made(
    tmp_path: Path,
) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle(2)
        hall.place()
        hall.sync()
        real = hall.server.handle

        async def handle(request: Any) -> Any:
            if request.method == "POST" and b"claims-0-1" in await request.read():
                return status(500, "InternalError", "failed calling webhook")
            return await real(request)

        hall.server.handle = handle  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(ApiError, match="failed calling webhook"):  # the queue comes back
                await hall.controller.reconcile(KEY)
            hall.now += 60
            hall.kubelets()
            hall.sync()
        assert hall.status["replicas"][0]["ranks"] == "1/2"
        assert hall.loads.watched.keys() == {"claims-0"}

        del hall.server.handle
        await hall.settle()
        assert hall.status["phase"] == "Serving"


async def test_what_another_owns_is_left_alone(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        hall.server.put(f"{CORE}/services", "claims", spec={"theirs": True})
        await hall.settle(4)

        assert hall.of(f"{CORE}/services")["claims"]["spec"] == {"theirs": True}
        assert "Service claims must belong to this deployment" in hall.status["message"]
        assert hall.of(f"{CORE}/pods") == {}


async def test_a_deployment_of_the_same_name_begins_anew(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle()
        for path in list(hall.server.objects):
            if not path.endswith("inferencedeployments/claims"):
                collection, _, name = path.rpartition("/")
                hall.server.remove(collection, name)
        raw = a_deployment().to_dict()
        raw["metadata"]["uid"] = "another"
        hall.server.put(f"{OURS}/inferencedeployments", "claims", **raw)

        await hall.settle()

        owners = hall.of(f"{CORE}/services")["claims"]["metadata"]["ownerReferences"]
        assert [one["uid"] for one in owners] == ["another"]
        assert hall.status["phase"] == "Serving"


async def test_a_deployment_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle()
        hall.server.remove(f"{OURS}/inferencedeployments", "claims")

        assert await hall.controller.reconcile(KEY) is None
        assert hall.loads.watched == {}
        with pytest.raises(LookupError):
            hall.controller.backend_of(KEY)


async def test_while_no_replica_serves_the_operator_answers(tmp_path: Path) -> None:
    async with a_hall(tmp_path, capacity={"minReplicas": 0, "maxReplicas": 1}) as hall:
        hall.start(Config(address="127.0.0.1", activator_port=0))
        stop = asyncio.Event()
        running = asyncio.create_task(hall.controller.run(stop))
        try:
            await until(lambda: (hall.controller._here() or ("", 0))[1])
            hall.controller.demanded(KEY)
            await hall.settle(2)
            [found] = hall.of(SLICES).values()
            assert found["endpoints"][0]["addresses"] == ["127.0.0.1"]
            assert found["ports"][0]["port"] == (hall.controller._here() or ("", 0))[1]
            assert hall.controller.backend_of(KEY) is None

            await hall.settle()
            assert hall.of(SLICES) == {}
            assert hall.controller.backend_of(KEY) == "10.0.0.0:8000"
            assert hall.controller.key_of("claims") == KEY
            assert hall.controller.key_of("other") is None
        finally:
            stop.set()
            await running


async def test_a_mesh_gets_a_route_and_a_service_per_revision(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        hall.server.objects["/apis/gateway.networking.k8s.io/v1"] = {"resources": []}
        await hall.settle()

        [revision] = hall.status["revisions"]
        assert set(hall.of(f"{CORE}/services")) == {"claims", f"claims-{revision['hash']}"}
        [rule] = hall.of(ROUTES)["claims"]["spec"]["rules"]
        assert [one["weight"] for one in rule["backendRefs"]] == [100]


async def test_weights_wait_for_their_job_and_start_when_it_is_complete(tmp_path: Path) -> None:
    source = {"trainingJob": {"name": "cpt", "path": "/out/final"}}
    async with a_hall(tmp_path, model={"source": source}) as hall:
        await hall.settle(2)
        assert hall.status["reason"] == "SourceMissing"
        assert hall.of(f"{OURS}/gangs") == {}

        rank = {
            "name": "trainer",
            "image": "x",
            "volumeMounts": [{"name": "out", "mountPath": "/out"}],
        }
        volume = {"name": "out", "persistentVolumeClaim": {"claimName": "runs"}}
        spec = {"nodes": 1, "template": {"spec": {"containers": [rank], "volumes": [volume]}}}
        done = {"type": "Complete", "status": "True", "reason": "Succeeded"}
        hall.server.put(f"{OURS}/trainingjobs", "cpt", spec=spec, status={"conditions": [done]})
        hall.controller.job_changed("ml/cpt")
        await hall.settle()

        assert hall.status["phase"] == "Serving"
        volumes = hall.of(f"{CORE}/pods")["claims-0-0"]["spec"]["volumes"]
        assert {"claimName": "runs"} in [one.get("persistentVolumeClaim") for one in volumes]


@pytest.mark.parametrize("there", [False, True], ids=["no ConfigMap", "no key that made it"])
async def test_weights_that_nobody_trusted_has_signed_start_nothing(
    tmp_path: Path, there: bool
) -> None:
    model: Raw = {
        "source": {"hostPath": "/models/claims-v7"},
        "config": CONFIG,
        "digest": "sha256:" + "a" * 64,
        "verify": {"signature": "q83vEjRWeJA=", "keysFrom": "trust-roots"},
    }
    async with a_hall(tmp_path, model=model) as hall:
        if there:
            hall.server.put(f"{CORE}/configmaps", "trust-roots", data={"ops": "no key"})
        await hall.settle(2)

        assert hall.status["reason"] == "ArtifactMismatch"
        assert hall.of(f"{OURS}/gangs") == {}


async def test_the_edge_profile_makes_a_deployment_and_no_gang(tmp_path: Path) -> None:
    engine = {"name": "llamacpp", "image": "registry.hall/llama.cpp:0.5", "version": "0.5"}
    layout = {"mode": "Auto"}
    async with a_hall(
        tmp_path, profile="Edge", nodePool=None, engine=engine, layout=layout
    ) as hall:
        await hall.controller.reconcile(KEY)
        await hall.controller.reconcile(KEY)

        assert set(hall.of(f"{APPS}/deployments")) == {"claims"}
        assert len(hall.writes("/deployments")) == 1
        assert hall.of(f"{OURS}/gangs") == {}
        assert set(hall.of(POLICIES)) == {"claims"}
        assert hall.status["phase"] == "Loading"
