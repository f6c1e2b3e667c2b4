"""What plans ask for, as requests; and what was written, laid over caches that lag."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from support.scripted import kubeconfig, scripted_server, status
from tramontane.api.gang import Gang, GangSpec, Slot
from tramontane.api.inferencestatus import InferenceDeploymentStatus
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.inferencedeployment.actions import (
    Claim,
    Create,
    Mark,
    Plan,
)
from tramontane.controllers.inferencedeployment.assumed import Assumed
from tramontane.controllers.inferencedeployment.execute import Executor
from tramontane.controllers.inferencedeployment.world import World
from tramontane.kube.client import Client
from unit.inferencedeployment.builders import NOW, a_deployment, a_pod, a_revision
from unit.inferencedeployment.serving_hall import APPS, CORE, OURS, SLICES

ROTATION = "tramontane.dev/rotation"


def a_gang(name: str = "claims-0", uid: str = "u", generation: int = 1) -> Gang:
    meta: dict[str, Any] = {"name": name, "namespace": "ml", "uid": uid, "generation": generation}
    spec = GangSpec(pool="hall", slots=(Slot(name="rank", count=2),))
    return Gang.model_validate({"metadata": meta, "spec": spec.to_dict()})


def a_plan(**given: Any) -> Plan:
    return Plan(InferenceDeploymentStatus(), **given)


def test_a_mark_counts_before_the_cache_shows_it_and_no_longer_after() -> None:
    assumed, pod = Assumed(), a_pod(rotation="out")
    assumed.marked(pod.uid, {ROTATION: "in"}, {"tramontane.dev/master": "10.0.0.7"}, NOW)

    [shown] = assumed.pods([pod], NOW)
    assert shown.labels[ROTATION] == "in"
    assert shown.annotations["tramontane.dev/master"] == "10.0.0.7"
    assumed.seen(pod, shown)
    later = replace(shown, labels={**shown.labels, ROTATION: "out"})
    assert assumed.pods([later], NOW) == (later,)


def test_two_marks_add_up_and_are_forgotten_after_a_while() -> None:
    assumed, pod = Assumed(), a_pod(rotation="out")
    assumed.marked(pod.uid, {ROTATION: "in"}, {}, NOW)
    assumed.marked(pod.uid, {}, {"tramontane.dev/master": "10.0.0.9"}, NOW)

    [shown] = assumed.pods([pod], NOW)
    assert shown.labels[ROTATION] == "in"
    assert shown.annotations["tramontane.dev/master"] == "10.0.0.9"
    assert assumed.pods([pod], NOW + 31) == (pod,)


def test_gangs_are_those_of_the_cache_and_ours_without_those_that_we_deleted() -> None:
    assumed = Assumed()
    assumed.applied(a_gang("claims-1", uid="other"))
    assert set(assumed.gangs([a_gang("claims-0")])) == {"claims-0", "claims-1"}

    newer = a_gang("claims-0", generation=2)
    assumed.applied(newer)
    assert assumed.gangs([a_gang("claims-0")])["claims-0"] == newer

    assumed.dropped(newer)
    assert set(assumed.gangs([a_gang("claims-0")])) == {"claims-1"}
    assumed.gang_gone("claims-1")
    assert assumed.gangs([]) == {}
    assert set(assumed.gangs([a_gang("claims-0", uid="its successor")])) == {"claims-0"}


async def test_a_pod_leaves_rotation_before_it_is_deleted(tmp_path: Path) -> None:
    async with scripted_server() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        deployment, pod = a_deployment(), a_pod()
        server.put(f"{CORE}/pods", pod.name, metadata={"uid": pod.uid, "labels": dict(pod.labels)})
        plan = a_plan(
            deletes=(Delete(pod.name, pod.uid, 5, "leaves"),),
            marks=(Mark(pod, labels={ROTATION: "out"}),),
            creates=(Create("claims-1", "not stored", 0, "b0"),),
        )
        async with await Client.connect(config) as client:
            executor, assumed = Executor(client, lambda: NOW), Assumed()
            await executor.write_pods(World(NOW, deployment), plan, assumed)

        written = [method for method, path in server.requests if "/pods/" in path]
        assert written == ["PATCH", "DELETE"]
        patch, delete = server.bodies
        assert patch == {"metadata": {"uid": pod.uid, "labels": {ROTATION: "out"}}}
        assert delete == {"gracePeriodSeconds": 5, "preconditions": {"uid": pod.uid}}
        [shown] = assumed.pods([pod], NOW)
        assert (shown.deleting, shown.labels[ROTATION]) == (True, "out")


async def test_pods_of_a_revision_that_cannot_be_made_are_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    async with scripted_server() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        deployment = a_deployment(template={"spec": {"nodeName": "b7"}})
        revision = a_revision(deployment)
        world = World(NOW, deployment, revisions={revision.hash: revision})
        plan = a_plan(creates=(Create("claims-0", revision.hash, 0, "b0"),))
        async with await Client.connect(config) as client:
            assumed = Assumed()
            await Executor(client, lambda: NOW).write_pods(world, plan, assumed)

        assert server.requests == []
        assert "template.spec.nodeName must not be set" in (assumed.refused(NOW) or "")


async def test_gangs_come_and_go(tmp_path: Path) -> None:
    async with scripted_server() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        deployment, assumed = a_deployment(), Assumed()
        async with await Client.connect(config) as client:
            executor = Executor(client, lambda: NOW)
            claim = Claim("claims-0", "ab12", a_gang().spec)
            assert await executor.claim(deployment, claim, assumed)
            made = server.objects[f"{OURS}/gangs/claims-0"]
            assert made["metadata"]["labels"]["tramontane.dev/revision"] == "ab12"

            [gang] = assumed.gangs([]).values()
            await executor.drop(deployment, gang, assumed)
            await executor.drop(deployment, gang, assumed)  # it is gone: no harm
            assert f"{OURS}/gangs/claims-0" not in server.objects

            server.answers.append(lambda _: status(422, "Invalid", "spec.pool is immutable"))
            assert not await executor.claim(deployment, claim, assumed)
        assert "gang claims-0 must be accepted (got: spec.pool is immutable)" in (
            assumed.refused(NOW) or ""
        )


async def test_a_dropped_revision_takes_its_service_along(tmp_path: Path) -> None:
    async with scripted_server() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        deployment, assumed, revision = a_deployment(), Assumed(), a_revision()
        async with await Client.connect(config) as client:
            executor = Executor(client, lambda: NOW)
            assert await executor.store(deployment, revision, 1, assumed)
            await executor.keep_route(deployment, {revision.hash: 100}, assumed)
            name = f"claims-{revision.hash}"
            assert f"{APPS}/controllerrevisions/{name}" in server.objects
            assert f"{CORE}/services/{name}" in server.objects

            await executor.drop_revision(deployment, revision.hash)

            assert f"{APPS}/controllerrevisions/{name}" not in server.objects
            assert f"{CORE}/services/{name}" not in server.objects


async def test_a_slice_of_a_former_operator_is_taken_away_once(tmp_path: Path) -> None:
    async with scripted_server() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        deployment, assumed = a_deployment(), Assumed()
        server.put(SLICES, "claims-activator")
        async with await Client.connect(config) as client:
            executor = Executor(client, lambda: NOW)
            for _ in range(3):
                await executor.keep_activator(deployment, None, assumed)
            assert server.seen("DELETE", "claims-activator") == 1

            await executor.keep_activator(deployment, ("10.0.0.1", 80), assumed)
            assert f"{SLICES}/claims-activator" in server.objects
            await executor.keep_activator(deployment, None, assumed)
            assert server.seen("DELETE", "claims-activator") == 2
