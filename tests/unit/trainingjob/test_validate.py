"""What is wrong with a job that the schema cannot see, and what is said about it."""

from typing import Any

import pytest

from tramontane.controllers.trainingjob.validate import (
    agent_note,
    problem_of,
    restart_policy,
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
    "TRAMONTANE_SEAT without launcher": (
        {"template": env("TRAMONTANE_SEAT"), "launcher": {"type": "none"}},
        "TRAMONTANE_SEAT must not be set",
    ),
    "replica groups": ({"launcher": {"replicaGroups": 2}}, "replicaGroups must be 1 (got 2)"),
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
