"""What is wrong with a job that the schema cannot see, and what is said about it."""

from typing import Any

import pytest

from tramontane.controllers.trainingjob.validate import (
    agent_note,
    note_of,
    problem_of,
    restart_policy,
    spares_problem,
    uses_agent,
)
from unit.trainingjob.builders import a_job, template


def pod(**spec: Any) -> dict[str, Any]:
    made = template()
    made["spec"].update(spec)
    return made


def beside(**container: Any) -> dict[str, Any]:
    """Return a template with a second container."""
    made = template()
    made["spec"]["containers"].append({"name": "side", "image": "side", **container})
    return made


def env(name: str, value: Any = "0") -> dict[str, Any]:
    return template(env=[{"name": name, "value": value}])


PORT = [{"containerPort": 80, "hostPort": 8080}]

CASES = {
    "no containers": ({"template": {"spec": {"containers": []}}}, "at least one container"),
    "no name": ({"template": template(name=None)}, "containers[0].name must be a DNS label"),
    "a bad name": ({"template": template(name="My_Rank")}, "DNS label of at most 63 char"),
    "names twice": ({"template": beside(name="trainer")}, '(got "trainer" twice)'),
    "no image": ({"template": template(image=None)}, "container trainer must have an image"),
    "command as text": ({"template": template(command="torchrun x")}, "must be a list of strings"),
    "a restart policy": ({"template": pod(restartPolicy="Sometimes")}, 'Never (got "Sometimes")'),
    "a node name": ({"template": pod(nodeName="b7")}, "template.spec.nodeName must not be set"),
    "a scheduler": ({"template": pod(schedulerName="x")}, "the scheduler chooses blades"),
    "an affinity to pods": ({"template": pod(affinity={"podAffinity": {}})}, "use spec.topology"),
    "a wish for nodes": (
        {"template": pod(affinity={"nodeAffinity": {"preferredDuringSchedulingX": []}})},
        "must be a required nodeAffinity over labels",
    ),
    "a host name": ({"template": pod(hostname="x")}, "each seat has a host name of its own"),
    "a bad grace": (
        {"template": pod(terminationGracePeriodSeconds=-1)},
        "must be at least 0 (got -1)",
    ),
    "a bad quantity": (
        {"template": template(resources={"limits": {"cpu": "64 cores"}})},
        'resources.limits[cpu] must be a Kubernetes quantity (got "64 cores")',
    ),
    "half a GPU": (
        {"template": template(resources={"limits": {"nvidia.com/gpu": "500m"}})},
        "must be whole (got 500m)",
    ),
    "more than the limit": (
        {"template": template(resources={"limits": {"cpu": 1}, "requests": {"cpu": 2}})},
        "the request of cpu must not exceed its limit",
    ),
    "GPUs without a limit": (
        {"template": template(resources={"requests": {"nvidia.com/gpu": 8}})},
        "nvidia.com/gpu must have a limit",
    ),
    "host ports twice": (
        {"template": {"spec": {"containers": [
            {"name": "a", "image": "a", "ports": PORT}, {"name": "b", "image": "b", "ports": PORT},
        ]}}},
        "host port 8080/TCP must not be taken twice (got it in container a too)",
    ),
    "an unknown volume": (
        {"template": template(volumeMounts=[{"name": "data", "mountPath": "/data"}])},
        "volumeMounts must name one of the pod's volumes",
    ),
    "our volume": (
        {"template": pod(volumes=[{"name": "tramontane-pod", "emptyDir": {}}])},
        "which is the agent's",
    ),
    "our folder": (
        {"template": {"spec": {
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "a", "image": "a",
                            "volumeMounts": [{"name": "data", "mountPath": "/tramontane/x"}]}],
        }}},
        "/tramontane must be left to the rank agent",
    ),
    "our labels": (
        {"template": {**template(), "metadata": {"labels": {"tramontane.dev/seat": "3"}}}},
        "must not have tramontane.dev/seat",
    ),
    "a number as value": ({"template": env("LR", 3)}, "the value of LR must be a string"),
    "RANK": ({"template": env("RANK")}, "RANK must not be set in container trainer"),
    "WORLD_SIZE": ({"template": env("WORLD_SIZE")}, "WORLD_SIZE must not be set"),
    "PET_NODE_RANK": ({"template": env("PET_NODE_RANK")}, "PET_NODE_RANK must not be set"),
    "PET_NNODES": ({"template": env("PET_NNODES")}, "PET_NNODES must not be set"),
    "REPLICA_GROUP_ID": (
        {"template": env("REPLICA_GROUP_ID")}, "REPLICA_GROUP_ID must not be set",
    ),
    "TRAMONTANE_SEAT without launcher": (
        {"template": env("TRAMONTANE_SEAT"), "launcher": {"type": "none"}},
        "TRAMONTANE_SEAT must not be set",
    ),
    "replica groups of jax": (
        {"launcher": {"type": "jax", "replicaGroups": 2}},
        "replicaGroups must be 1 with type jax (got 2)",
    ),
    "replica groups that differ": (
        {"launcher": {"replicaGroups": 3}},
        "replicaGroups must divide the number of blades (got 3 and 4)",
    ),
    "replica groups that differ at a size": (
        {"nodes": 8, "elastic": {"sizes": [8, 6]}, "launcher": {"replicaGroups": 4}},
        "(got 4 and 6)",
    ),
    "more groups than there are": (
        {"launcher": {"replicaGroups": 2, "minReplicaGroups": 3}},
        "minReplicaGroups must not exceed replicaGroups (got 3 over 2)",
    ),
    "no room for the lighthouse": (
        {"metadata": {"name": "a" * 53}, "launcher": {"replicaGroups": 2}},
        "must leave room for the lighthouse in a host name of 63 characters",
    ),
    "no room for a full host name": (
        {"metadata": {"name": "a" * 21}, "launcher": {"replicaGroups": 2}},
        "must leave room for a full host name of 64 characters",
    ),
    "the lighthouse's label": (
        {"template": {**template(), "metadata": {"labels": {"tramontane.dev/lighthouse": "1"}}}},
        "must not have tramontane.dev/lighthouse",
    ),
    "sizes without nodes": (
        {"nodes": 8, "elastic": {"sizes": [6, 4]}},
        "elastic.sizes must have spec.nodes, 8, as their largest (got 6, 4)",
    ),
    "a size above nodes": (
        {"nodes": 8, "elastic": {"sizes": [16, 8]}},
        "as their largest (got 16, 8)",
    ),
    "a grace of days": (
        {"checkpoint": {"grace": "25h"}}, "checkpoint.grace must be at most 24h (got 25h)",
    ),
    "no expression for saving": (
        {"checkpoint": {"savingPattern": "saving ("}},
        "checkpoint.savingPattern must be a regular expression",
    ),
    "an explosive savingPattern": (
        {"checkpoint": {"savingPattern": "(a+)+ saving"}},
        "checkpoint.savingPattern must not repeat a group",
    ),
    "jax with processes": (
        {"launcher": {"type": "jax", "procsPerNode": 8}},
        "procsPerNode must be 1 with type jax (got 8)",
    ),
    "GPUs that differ": ({"gpusPerNode": 4}, "(got 4 and 8); leave one of them out"),
    "no expression": (
        {"progress": {"stepPattern": "step (?P<step>[0-9+"}},
        "progress.stepPattern must be a regular expression",
    ),
    "no group": ({"progress": {"stepPattern": r"step (\d+)"}}, "must have a group named step"),
    "no loss group": (
        {"progress": {"lossPattern": r"loss (?P<l>\d+)"}},
        "progress.lossPattern must have a group named loss",
    ),
    "no group in savedPattern": (
        {"checkpoint": {"savedPattern": "saved"}},
        "checkpoint.savedPattern must have a group named step",
    ),
    "an explosive pattern": (
        {"progress": {"stepPattern": r"(x+)+step (?P<step>\d+)"}},
        "must not repeat a group that itself repeats something",
    ),
    "a long name": (
        {"metadata": {"name": "a" * 62}, "nodes": 4},
        "must leave room for the seat in a host name of 63 characters",
    ),
    "a name with a digit first": ({"metadata": {"name": "7b"}}, "must begin with a letter"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "said"), [pytest.param(*case, id=name) for name, case in CASES.items()]
)
def test_a_mistake_is_named(spec: dict[str, Any], said: str) -> None:
    problem = problem_of(a_job(**spec))

    assert problem is not None
    assert said in problem
    assert problem.startswith("TrainingJob ml/")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="the usual"),
        pytest.param({"template": env("NCCL_DEBUG", "INFO")}, id="a variable of one's own"),
        pytest.param(
            {"template": env("RANK"), "launcher": {"type": "none"}}, id="rank, no launcher"
        ),
        pytest.param({"progress": {"stepPattern": r"[(+]{2,}step (?P<step>\d+)"}}, id="classes"),
        pytest.param({"progress": {"stepPattern": r"(a|b)+ (?P<step>\d+)"}}, id="plain repeats"),
        pytest.param({"progress": {"stepPattern": r"(\(\+)* (?P<step>\d+)"}}, id="escapes"),
        pytest.param({"progress": {"metrics": {"port": 9090, "step": "s"}}}, id="metrics"),
        pytest.param({"checkpoint": {"savedPattern": ""}}, id="no checkpoints"),
        pytest.param({"template": beside(ports=PORT)}, id="a sidecar with a host port"),
        pytest.param({"gpusPerNode": 8}, id="the same GPUs twice"),
        pytest.param(
            {"launcher": {"replicaGroups": 4, "minReplicaGroups": 3}}, id="replica groups"
        ),
        pytest.param(
            {
                "metadata": {"name": "a" * 21},
                "launcher": {"replicaGroups": 2},
                "template": pod(setHostnameAsFQDN=False),
            },
            id="replica groups that find each other by themselves",
        ),
        pytest.param({"nodes": 8, "elastic": {"sizes": [8, 6, 4]}}, id="elastic sizes"),
        pytest.param({"checkpoint": {"grace": "24h"}}, id="a grace of a day"),
        pytest.param({"checkpoint": {"savingPattern": "saving"}}, id="saving needs no group"),
        pytest.param(
            {"template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}}, id="the least"
        ),
    ],
)
def test_what_is_fine_is_let_through(spec: dict[str, Any]) -> None:
    assert problem_of(a_job(**spec)) is None


@pytest.mark.parametrize(
    ("command", "agent", "restart", "used", "policy"),
    [
        pytest.param(["run"], "Auto", "InPlace", True, "Never", id="the agent"),
        pytest.param(["run"], "Auto", "Gang", True, "Never", id="the agent, whole gang"),
        pytest.param(None, "Auto", "InPlace", False, "OnFailure", id="no command"),
        pytest.param(["run"], "None", "InPlace", False, "OnFailure", id="not wanted"),
        pytest.param(["run"], "None", "Gang", False, "Never", id="nobody restarts"),
    ],
)
def test_who_restarts_ranks(
    command: list[str] | None, agent: str, restart: str, used: bool, policy: str
) -> None:
    job = a_job(template=template(command=command), recovery={"agent": agent, "restart": restart})

    assert uses_agent(job.spec) is used
    assert restart_policy(job.spec) == policy
    assert (agent_note(job.spec) is not None) is (command is None and agent == "Auto")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param(
            {"template": template(command=None)}, "the rank agent is not used", id="agent"
        ),
        pytest.param({"template": pod(restartPolicy="Never")}, None, id="the same policy"),
        pytest.param(
            {"template": pod(restartPolicy="Always")},
            "template.spec.restartPolicy is Always, and Never is used",
            id="another policy",
        ),
        pytest.param({"checkpoint": {"grace": "59m"}}, None, id="a grace below an hour"),
        pytest.param(
            {"checkpoint": {"grace": "1h"}}, "checkpoint.grace is 1h: so long", id="a long grace"
        ),
    ],
)
def test_what_the_owner_should_know(spec: dict[str, Any], said: str | None) -> None:
    note = note_of(a_job(**spec).spec)

    assert (note or "").startswith(said or "")
    assert (note is None) is (said is None)


@pytest.mark.parametrize(
    ("blades", "is_wrong"),
    [
        pytest.param(3, True, id="larger than the pool"),
        pytest.param(4, False, id="as large"),
        pytest.param(0, False, id="nobody has counted yet"),
    ],
)
def test_spares_must_fit_into_the_pool(blades: int, is_wrong: bool) -> None:
    problem = spares_problem(a_job(spares=4), "hall", blades)

    assert (problem is not None) is is_wrong
    assert not is_wrong or "NodePool hall (got 4, and it has 3)" in str(problem)
