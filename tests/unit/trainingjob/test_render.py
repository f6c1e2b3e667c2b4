"""The objects of a job, as the API server will get them."""

import ast
import json
import time
from typing import Any

import pytest

from tramontane.api.names import ANNOTATION_PEERS
from tramontane.controllers.trainingjob import render
from tramontane.controllers.trainingjob.render import PodStamp
from tramontane.controllers.trainingjob.template import gpus_of, pod_requests
from unit.trainingjob.builders import a_job, template


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    env = pod["spec"]["containers"][0]["env"]
    assert len({one["name"] for one in env}) == len(env), "a name twice: the last would win"
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in env}


def a_stamped(seat: int = 3, attempt: int = 2, gpus: int = 8, **spec: Any) -> dict[str, Any]:
    return PodStamp.of(a_job(**spec), 4, gpus, attempt).pod(seat, "gpu-0007")


def test_a_pod_is_on_its_blade_with_its_name_and_labels() -> None:
    pod = a_stamped(template={**template(), "metadata": {"labels": {"team": "nlp"}}})

    assert pod["spec"]["nodeName"] == "gpu-0007"
    assert (pod["metadata"]["name"], pod["spec"]["hostname"]) == ("llama-3", "llama-3")
    assert pod["spec"]["subdomain"] == "llama"
    assert pod["metadata"]["labels"] == {
        "team": "nlp",
        "tramontane.dev/job": "llama",
        "tramontane.dev/gang": "llama",
        "tramontane.dev/seat": "3",
    }
    assert pod["metadata"]["annotations"] == {
        "tramontane.dev/epoch": "2",
        "tramontane.dev/peers": "{}",
        "tramontane.dev/drain": "",
    }
    [owner] = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("TrainingJob", "job-uid", True)
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 120


def test_the_rank_runs_under_the_agent_which_sees_the_annotations() -> None:
    pod = a_stamped(template=template(command=["torchrun"], args=["train.py", "--lr=1"]))
    rank = pod["spec"]["containers"][0]

    assert rank["command"] == [
        "python3", "/tramontane/agent/rankagent.py", "torchrun", "train.py", "--lr=1",
    ]  # fmt: skip
    assert "args" not in rank
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["tramontane-agent"]["configMap"]["name"] == "llama-tramontane"
    items = volumes["tramontane-pod"]["downwardAPI"]["items"]
    assert [one["path"] for one in items] == ["epoch", "peers", "drain"]
    assert ANNOTATION_PEERS in items[1]["fieldRef"]["fieldPath"]
    assert variables(pod)["TRAMONTANE_AGENT_BACKOFF_S"] == "10"


@pytest.mark.parametrize(
    ("spec", "waits"),
    [
        pytest.param({}, "630", id="longer than the longest back-off"),
        pytest.param({"recovery": {"nodeLostAfter": "20m"}}, "1230", id="or than a lost node"),
        pytest.param(
            {"launcher": {"replicaGroups": 2}},
            "75",
            id="its end may be all that is seen of a group",
        ),
    ],
)
def test_a_failed_rank_outwaits_what_the_operator_waits_for(
    spec: dict[str, Any], waits: str
) -> None:
    assert variables(a_stamped(**spec))["TRAMONTANE_AGENT_WAIT_S"] == waits


def test_without_the_agent_the_command_is_the_user_s() -> None:
    pod = a_stamped(template=template(command=None, args=["x"]))

    assert pod["spec"]["containers"][0]["args"] == ["x"]
    assert pod["spec"]["restartPolicy"] == "OnFailure"


def test_a_pod_has_what_all_seats_share_and_what_is_its_own() -> None:
    found = variables(a_stamped(launcher={"type": "torchrun"}))

    assert (found["PET_NNODES"], found["PET_NODE_RANK"]) == ("4", "3")
    assert found["TRAMONTANE_JOB"] == "llama"
    assert (found["TRAMONTANE_SEAT"], found["TRAMONTANE_NODES"]) == ("3", "4")
    assert found["TRAMONTANE_ATTEMPT"] == "2"
    assert found["TRAMONTANE_RANK_BLADES"]["configMapKeyRef"]["key"] == "rank-blades"


def test_a_host_name_is_the_one_that_the_others_are_told() -> None:
    job = a_job(nodes=16, elastic={"sizes": [16, 8]})
    pod = PodStamp.of(job, 16, 8, 1).pod(3, "b")

    assert (pod["metadata"]["name"], pod["spec"]["hostname"]) == ("llama-3", "llama-03")
    assert variables(pod)["PET_LOCAL_ADDR"] == "llama-03.llama"


@pytest.mark.parametrize(
    ("given", "groups", "is_full"),
    [
        pytest.param({}, 1, None, id="not needed"),
        pytest.param({}, 2, True, id="replica groups"),
        pytest.param({"setHostnameAsFQDN": False}, 2, False, id="the user's"),
    ],
)
def test_replica_groups_are_found_by_what_gethostname_says(
    given: dict[str, Any], groups: int, is_full: bool | None
) -> None:
    made = template()
    made["spec"].update(given)
    pod = a_stamped(template=made, launcher={"replicaGroups": groups})

    assert pod["spec"].get("setHostnameAsFQDN") is is_full


def test_what_the_user_sets_stays_the_user_s_and_may_refer_to_ours() -> None:
    given = [
        {"name": "MASTER_PORT", "value": "1"},
        {"name": "X", "value": "$(PET_NNODES)"},
        {"name": "TRAMONTANE_HOST", "value": "me"},
    ]
    pod = a_stamped(template=template(env=given))

    assert variables(pod)["MASTER_PORT"] == "1"
    assert variables(pod)["TRAMONTANE_HOST"] == "me"
    names = [one["name"] for one in pod["spec"]["containers"][0]["env"]]
    assert names.index("PET_NNODES") < names.index("X")


def test_gpus_that_the_template_leaves_open_are_asked_for() -> None:
    rank = a_stamped(template=template(resources={"requests": {"cpu": 4}}), gpus=6)

    assert rank["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": 4},
        "limits": {"nvidia.com/gpu": "6"},
    }


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"resourceClaims": [{"name": "gpus"}]}, id="devices"),
        pytest.param({"volumes": [{"name": "x", "ephemeral": {}}]}, id="volumes of its own"),
    ],
)
def test_what_only_a_scheduler_can_allocate_is_bound_by_it_there(spec: dict[str, Any]) -> None:
    made = template()
    made["spec"].update(spec)
    pod = a_stamped(template=made)

    assert "nodeName" not in pod["spec"]
    affinity = json.dumps(pod["spec"]["affinity"])
    assert "metadata.name" in affinity
    assert "gpu-0007" in affinity


def test_stamping_changes_nothing_that_is_shared() -> None:
    stamp = PodStamp.of(a_job(), 4, 8, 1)
    first = json.dumps(stamp.pod(0, "a"))

    assert json.dumps(stamp.pod(1, "b")) != first
    assert json.dumps(stamp.pod(0, "a")) == first


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="static"),
        pytest.param({"elastic": {"sizes": [2048, 1024]}}, id="elastic"),
        pytest.param({"launcher": {"replicaGroups": 16}}, id="replica groups"),
    ],
)
def test_two_thousand_pods_are_cheap(spec: dict[str, Any]) -> None:
    began = time.process_time()
    stamp = PodStamp.of(a_job(nodes=2048, **spec), 2048, 8, 1)
    for seat in range(2048):
        stamp.pod(seat, "gpu")
    per_pod_us = (time.process_time() - began) / 2048 * 1e6

    assert per_pod_us < 100


def test_the_service_is_headless_and_knows_pods_that_are_not_ready() -> None:
    made = render.service(a_job())

    assert made["metadata"]["name"] == "llama"
    assert made["spec"]["clusterIP"] == "None"
    assert made["spec"]["publishNotReadyAddresses"] is True


def test_the_config_map_has_the_agent_and_who_sits_where() -> None:
    made = render.config_map(a_job(), ("a", "b"), 8)

    assert made["data"]["rank-blades"] == "a,b"
    assert set(made["data"]) == {"rank-blades", "rankagent.py", "tramontane_rank.py"}


@pytest.mark.parametrize("name", ["rankagent.py", "tramontane_rank.py"])
def test_what_goes_into_the_pods_is_python_3_8(name: str) -> None:
    ast.parse(render.agent_source(name), name, feature_version=(3, 8))


def test_the_config_map_of_an_mpi_job_has_its_host_files() -> None:
    job = a_job(launcher={"type": "mpi"}, recovery={"agent": "None"})

    assert render.config_map(job, ("a", "b"), 8)["data"] == {
        "rank-blades": "a,b",
        "hostfile": "llama-0.llama slots=8\nllama-1.llama slots=8\n",
        "hostfile-hydra": "llama-0.llama:8\nllama-1.llama:8\n",
    }


def test_peers_name_only_who_was_replaced() -> None:
    assert render.peers_text({7: "10.0.0.7", 2: "fd00::2"}) == '{"2": "fd00::2", "7": "10.0.0.7"}'


def test_what_a_pod_needs_adds_up_as_the_kubelet_counts() -> None:
    made = {
        "spec": {
            "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "500m", "nvidia.com/gpu": 4}}},
                {"name": "b", "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}},
            ],
            "initContainers": [
                {"name": "load", "resources": {"requests": {"cpu": "100m", "memory": "4Gi"}}},
                {
                    "name": "proxy",
                    "restartPolicy": "Always",
                    "resources": {"requests": {"cpu": "0.1"}},
                },
            ],
            "overhead": {"cpu": "50m"},
        }
    }

    assert gpus_of(made) == 4
    assert pod_requests(made, 4) == {
        "cpu": "900m",
        "memory": str(4 * 1024**3),
        "nvidia.com/gpu": "4",
    }
