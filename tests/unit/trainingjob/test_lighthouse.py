"""The lighthouse of a job with replica groups: a pod that is no rank."""

from typing import Any

import pytest

from tramontane.api.names import LABEL_GANG, LABEL_SEAT
from tramontane.controllers.trainingjob import lighthouse
from tramontane.controllers.trainingjob.render import owner_of
from unit.trainingjob.builders import a_job, template

Raw = dict[str, Any]


def made(template: Raw | None = None, **spec: Any) -> tuple[Raw, Raw]:
    given = {"template": template} if template else {}
    job = a_job(launcher={"replicaGroups": 4, "minReplicaGroups": 3}, **given, **spec)
    owner = owner_of(job)
    return lighthouse.pod(job, owner), lighthouse.service(job, owner)


def test_a_job_without_replica_groups_has_none() -> None:
    assert not lighthouse.is_wanted(a_job())


def test_the_lighthouse_waits_for_enough_groups() -> None:
    pod, _ = made()
    [container] = pod["spec"]["containers"]

    assert container["command"] == [
        "torchft_lighthouse", "--min_replicas", "3", "--bind", "[::]:29510",
    ]  # fmt: skip
    assert container["image"] == "registry.hall/train:1"
    assert pod["spec"]["restartPolicy"] == "Always"


def test_it_is_the_job_s_but_no_seat_of_its_gang() -> None:
    pod, _ = made()
    labels = pod["metadata"]["labels"]

    assert labels == {"tramontane.dev/job": "llama", "tramontane.dev/lighthouse": "true"}
    assert not labels.keys() & {LABEL_GANG, LABEL_SEAT}
    [owner] = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("TrainingJob", "job-uid")


def test_it_takes_no_gpu() -> None:
    pod, _ = made()

    resources = pod["spec"]["containers"][0]["resources"]
    assert not [name for kind in resources.values() for name in kind if "/" in name]
    assert "nodeName" not in pod["spec"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("imagePullSecrets", [{"name": "pull"}]),
        ("serviceAccountName", "research"),
        ("securityContext", {"runAsUser": 1000}),
        ("tolerations", [{"operator": "Exists"}]),
    ],
)
def test_what_admits_the_ranks_admits_it(field: str, value: Any) -> None:
    given = template()
    given["spec"][field] = value
    pod, _ = made(template=given)

    assert pod["spec"][field] == value


def test_its_service_selects_it_and_not_the_ranks() -> None:
    pod, service = made()

    assert service["metadata"]["name"] == pod["metadata"]["name"] == "llama-lighthouse"
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["ports"][0]["port"] == 29510
