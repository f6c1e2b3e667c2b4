"""What the doctor says of a cluster: a sound one, and one with each thing that can be wrong."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.crdgen import KINDS, definition
from tramontane.cli import session
from tramontane.cli.doctorask import ACCESS, look
from tramontane.cli.doctorchecks import examine
from tramontane.cli.doctorfacts import Facts, Finding, Level, Unreadable
from tramontane.cli.doctorhall import renewal_skew
from tramontane.cli.doctorview import lines, summary
from tramontane.cli.options import Cluster
from unit.cli.desk import NODES, Desk

NOW = 1_800_000_000.0
# A leader that renews then is never silent, whenever a test runs.
ALWAYS = 10_000_000_000.0
Raw = dict[str, Any]


def lease(renewed_s: float = NOW - 1, written_s: float | None = None) -> Raw:
    written = clock.utc(renewed_s if written_s is None else written_s)
    entry = {"time": written, "fieldsV1": {"f:spec": {"f:renewTime": {}}}}
    return {
        "metadata": {"name": "x", "managedFields": [entry]},
        "spec": {"holderIdentity": "one", "renewTime": clock.micro(renewed_s)},
    }


def crds() -> dict[str, Raw]:
    found = {}
    for kind in KINDS:
        raw = definition(kind)
        raw["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
        found[raw["metadata"]["name"]] = raw
    return found


def workload(component: str, ready: int = 2, version: str = "0.2.0") -> Raw:
    labels = {"part-of": "tramontane", "component": component, "version": version}
    meta = {f"app.kubernetes.io/{key}": value for key, value in labels.items()}
    return {
        "metadata": {"name": component, "namespace": "system", "labels": meta},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready},
    }


def agents(ready: int, wanted: int = 125) -> Raw:
    raw = workload("agent")
    return raw | {"status": {"numberReady": ready, "desiredNumberScheduled": wanted}}


def node(name: str, gpus: int = 8, **labels: str) -> Raw:
    meta = {"name": name, "labels": {"rack": "r1", **labels}}
    return {"metadata": meta, "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}}}


def pool(**status: Any) -> Raw:
    levels = {"topology": {"levels": [{"name": "rack", "label": "rack"}]}}
    counts = {"blades": {"healthy": 2, "total": 2}}
    return {"metadata": {"name": "paris"}, "spec": levels, "status": counts | status}


def sound() -> Facts:
    names = ("gpu-1", "gpu-2")
    return Facts(
        now=NOW,
        namespace="system",
        client_version="0.2.0",
        skew_s=0.2,
        server_version={"major": "1", "minor": "35+", "gitVersion": "v1.35.4"},
        groups=["apps", "monitoring.coreos.com"],
        crds=crds(),
        leases={
            "tramontane-operator": lease(),
            "tramontane-scheduler": lease(),
            **{f"blade-{name}": lease(NOW - 20) for name in names},
        },
        workloads={one: workload(one) for one in ("operator", "scheduler")},
        policies=["tramontane-agent-report", "tramontane-agent-heartbeat"],
        monitors=["PodMonitor tramontane"],
        access={one: one.wanted for one in ACCESS},
        pools=[pool()],
        blades=[{"metadata": {"name": name}, "spec": {"pool": "paris"}} for name in names],
        nodes=[node(name) for name in names],
    )


def worst(facts: Facts) -> list[Finding]:
    return [one for one in examine(facts) if one.level is not Level.OK]


def test_a_sound_cluster_has_nothing_to_say_but_ok() -> None:
    found = examine(sound())
    assert worst(sound()) == []
    checks = list(dict.fromkeys(one.check for one in found))
    assert checks == [
        "versions", "crds", "components", "leaders", "access", "policies", "agents", "clocks",
        "nodes", "pools", "prometheus",
    ]  # fmt: skip
    assert summary(found) == f"fit: {len(found)} ok"


def _without_field(name: str) -> dict[str, Raw]:
    found = crds()
    for crd in found.values():
        for version in crd["spec"]["versions"]:
            version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].pop(name, None)
    return found


OLD = {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
FEW_SPARES = {"type": "TooFewSpares", "status": "True", "message": "1 of 4"}
NOT_READY = {"type": "Ready", "status": "False", "message": "0 of 2 blades are Healthy"}
NO_RIGHTS = dict.fromkeys(ACCESS, False)
CASES: dict[str, tuple[dict[str, Any], str, Level, str]] = {
    "old Kubernetes": ({"server_version": OLD}, "versions", Level.PROBLEM, "at least 1.32"),
    "another version": (
        {"workloads": {"operator": workload("operator", version="0.1.0")}},
        "versions", Level.WARNING, "operator is of version 0.1.0",
    ),
    "no CRDs": ({"crds": {}}, "crds", Level.PROBLEM, "nodepools.tramontane.dev must be there"),
    "an older CRD": (
        {"crds": _without_field("spares")}, "crds", Level.PROBLEM, "without spec.spares",
    ),
    "a CRD that is not served": (
        {"crds": {**crds(), "gangs.tramontane.dev": definition(KINDS[0])}},
        "crds", Level.PROBLEM, "gangs.tramontane.dev must be established",
    ),
    "one of two ready": (
        {"workloads": {"operator": workload("operator", ready=1)}},
        "components", Level.WARNING, "operator: 1 of 2 ready",
    ),
    "none ready": (
        {"workloads": {"operator": workload("operator", ready=0)}},
        "components", Level.PROBLEM, "operator: 0 of 2 ready",
    ),
    "no agent ready": (
        {"workloads": {"tramontane-agent": agents(0)}},
        "components", Level.PROBLEM, "tramontane-agent: 0 of 125 ready",
    ),
    "no agent ready, and nobody knows of blades": (
        {"workloads": {"tramontane-agent": agents(0)}, "blades": Unreadable("Forbidden: no")},
        "components", Level.PROBLEM, "tramontane-agent: 0 of 125 ready",
    ),
    "no operator ready, no pool": (
        {"workloads": {"operator": workload("operator", ready=0)}, "blades": []},
        "components", Level.PROBLEM, "operator: 0 of 2 ready",
    ),
    "repairs that are refused": (
        {"pod_security": "baseline"},
        "security", Level.WARNING, "got pod-security.kubernetes.io/enforce=baseline",
    ),
    "not installed here": ({"workloads": {}}, "components", Level.WARNING, "system has no"),
    "no leader": ({"leases": {}}, "leaders", Level.PROBLEM, "tramontane-operator must have a lead"),
    "a leader that is silent": (
        {"leases": {"tramontane-operator": lease(NOW - 400)}},
        "leaders", Level.PROBLEM, "none for 400 s",
    ),
    "rights that are missing": (
        {"access": NO_RIGHTS}, "access", Level.PROBLEM, "operator must be allowed to patch nodes",
    ),
    "rights that are too wide": (
        {"access": dict.fromkeys(ACCESS, True)},
        "access", Level.WARNING, "agent must not be allowed to get secrets",
    ),
    "no policies": ({"policies": []}, "policies", Level.WARNING, "no admission policy"),
    "no pool": ({"blades": []}, "agents", Level.WARNING, "no NodePool has taken a node"),
    "a clock that is ahead": (
        {"leases": {"blade-gpu-1": lease(NOW - 10, written_s=NOW - 20)}},
        "clocks", Level.PROBLEM, "Lease blade-gpu-1 must have the API server's time (got +9 s)",
    ),
    "a clock that is behind": (
        {"leases": {"blade-gpu-1": lease(NOW - 40, written_s=NOW - 10)}},
        "clocks", Level.PROBLEM, "Lease blade-gpu-1 must have the API server's time (got -30 s)",
    ),
    "a write that was slow, maybe": (
        {"leases": {"blade-gpu-1": lease(NOW - 13, written_s=NOW - 10)}},
        "clocks", Level.WARNING, "Lease blade-gpu-1 must have the API server's time (got -3 s)",
    ),
    "clocks that are off everywhere": (
        {"leases": {f"blade-{n}": lease(NOW - 10, written_s=NOW - 40) for n in range(1200)}},
        "clocks", Level.WARNING, "so it is with 1,195 more of 1,200 writers",
    ),
    "an own clock that is behind": (
        {"skew_s": -30.0}, "clocks", Level.WARNING, "got -30 s",
    ),
    "no time told": ({"skew_s": None}, "clocks", Level.UNKNOWN, "did not tell"),
    "no device plugin": (
        {"nodes": [node("gpu-1", gpus=0), node("gpu-2", gpus=0)]},
        "nodes", Level.PROBLEM, "2 of 2 nodes advertise no nvidia.com/gpu: gpu-1, gpu-2",
    ),
    "a label that is missing": (
        {"pools": [{**pool(), "spec": {"topology": {"levels": [{"name": "b", "label": "l"}]}}}]},
        "nodes", Level.WARNING, "2 nodes of paris have no label l",
    ),
    "an open breaker": (
        {"pools": [pool(breaker={"state": "Open", "reason": "4 of 5 failed"})]},
        "pools", Level.PROBLEM, "paris: the breaker is open: 4 of 5 failed",
    ),
    "too few spares": (
        {"pools": [pool(conditions=[FEW_SPARES])]},
        "pools", Level.WARNING, "paris: 1 of 4",
    ),
    "a pool that is not ready": (
        {"pools": [pool(conditions=[NOT_READY])]},
        "pools", Level.WARNING, "paris is not ready: 0 of 2 blades are Healthy",
    ),
    "no Prometheus operator": ({"groups": ["apps"]}, "prometheus", Level.WARNING, "not served"),
    "nobody watches": ({"monitors": []}, "prometheus", Level.WARNING, "no PodMonitor"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_named_with_what_to_do(case: str) -> None:
    change, check, level, text = CASES[case]
    found = [one for one in worst(replace(sound(), **change)) if one.check == check]
    told = [one for one in found if text in one.message]
    assert told, [one.message for one in found]
    assert told[0].level is level
    assert told[0].remedy or level is Level.UNKNOWN


def test_a_release_without_a_pool_is_fit_with_agents_that_wait_for_one() -> None:
    workloads = {one: workload(one) for one in ("operator", "scheduler")}
    workloads["tramontane-agent"] = agents(0)
    facts = replace(sound(), workloads=workloads, pools=[], blades=[])
    found = worst(facts)
    assert [(one.check, one.level) for one in found] == [
        ("components", Level.WARNING), ("agents", Level.WARNING),
    ]  # fmt: skip
    assert found[0].message == (
        "tramontane-agent: 0 of 125 ready: an agent is ready once a NodePool has taken its node"
    )
    assert summary(examine(facts)).startswith("fit: ")


def test_agents_that_wait_for_a_pool_fail_no_test_of_the_release(desk: Desk) -> None:
    there, apps = desk.server.objects, "/apis/apps/v1/namespaces/system"
    there[f"{apps}/daemonsets/agent"] = agents(0) | {"spec": {"template": {"spec": {}}}}
    for name, raw in crds().items():
        there[f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"] = raw
    for name in ("tramontane-operator", "tramontane-scheduler"):
        raw = lease(ALWAYS)
        raw["metadata"]["name"] = name
        there[f"/apis/coordination.k8s.io/v1/namespaces/system/leases/{name}"] = raw
    assert "warning  components  agent: 0 of 125 ready: " in desk.says("doctor", "-n", "system")
    desk.blade("gpu-1", None)
    done = desk.run("doctor", "-n", "system")
    assert done.exit_code == 3
    assert "PROBLEM  components  agent: 0 of 125 ready\n" in done.output


@pytest.mark.parametrize("held", ["", "privileged", Unreadable("Forbidden: no")])
def test_a_namespace_that_admits_repairs_or_may_not_be_read_is_not_spoken_of(held: Any) -> None:
    assert worst(replace(sound(), pod_security=held)) == []


@pytest.mark.parametrize(
    ("labels", "read"),
    [({"pod-security.kubernetes.io/enforce": "restricted"}, "restricted"), ({}, ""), (None, "")],
)
def test_the_standard_of_the_namespace_is_read_from_its_label(
    desk: Desk, labels: Raw | None, read: str
) -> None:
    desk.server.objects["/api/v1/namespaces/system"] = {"metadata": {"labels": labels}}
    facts = session.run(Cluster(desk.kubeconfig), lambda client: look(client, "system"))
    assert facts.pod_security == read


@pytest.mark.parametrize(
    "what",
    ["server_version", "groups", "crds", "leases", "workloads", "policies", "access", "pools",
     "blades", "nodes", "monitors"],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown_and_never_well(what: str) -> None:
    lost: dict[str, Any] = {what: Unreadable("Forbidden: no")}
    found = worst(replace(sound(), **lost))
    assert {one.level for one in found} == {Level.UNKNOWN}
    assert all("could not be looked at: Forbidden: no" in one.message for one in found)


def test_of_a_large_hall_only_what_is_judged_is_kept(desk: Desk) -> None:
    desk.blade("gpu-1", "Healthy", message="m" * 1000)
    labels = {"rack": "r1"}
    given = {"allocatable": {"nvidia.com/gpu": "8", "pods": "110"}, "images": [{"names": ["x"]}]}
    desk.server.put(NODES, "gpu-1", metadata={"labels": labels}, status=given)
    facts = session.run(Cluster(desk.kubeconfig), lambda client: look(client, "system"))
    assert facts.blades == [{"metadata": {"name": "gpu-1"}, "spec": {"pool": "paris-a"}}]
    assert facts.nodes == [
        {"metadata": {"name": "gpu-1", "labels": labels},
         "status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    ]  # fmt: skip


def test_some_silent_agents_are_a_warning_and_all_of_them_a_problem() -> None:
    leases = dict(sound().leases)  # type: ignore[arg-type]
    del leases["blade-gpu-1"]
    [one] = [one for one in worst(replace(sound(), leases=leases)) if one.check == "agents"]
    assert (one.level, one.message) == (
        Level.WARNING, "1 of 2 blades have no heartbeat: gpu-1",
    )  # fmt: skip
    del leases["blade-gpu-2"]
    [one] = [one for one in worst(replace(sound(), leases=leases)) if one.check == "agents"]
    assert one.level is Level.PROBLEM


@pytest.mark.parametrize(
    ("renewed", "written", "skew"),
    [(100.0, 100.0, 0.0), (100.9, 100.0, 0.0), (104.0, 100.0, 3.0), (95.0, 100.0, -5.0)],
)
def test_the_second_of_the_written_time_is_no_skew(
    renewed: float, written: float, skew: float
) -> None:
    assert renewal_skew(lease(NOW + renewed, NOW + written)) == pytest.approx(skew)


def test_a_lease_whose_renewal_nobody_wrote_tells_nothing() -> None:
    raw = lease(NOW + 50, NOW)
    raw["metadata"]["managedFields"] = []
    assert renewal_skew(raw) == 0.0


def test_remedies_stand_under_their_finding_and_the_worst_comes_first_in_the_summary() -> None:
    found = [
        Finding("crds", Level.OK, "all there"),
        Finding("clocks", Level.PROBLEM, "off", "set it"),
        Finding("pools", Level.WARNING, "few"),
    ]
    assert lines(found) == [
        "ok       crds    all there",
        "PROBLEM  clocks  off",
        "                 → set it",
        "warning  pools   few",
        "",
        "not fit: 1 problem, 1 warning, 1 ok",
    ]
