"""What stands beside the pods: who may talk to whom, where a Service leads, what is stored."""

from typing import Any

import pytest

from tramontane.controllers.inferencedeployment import objects, revisions
from unit.inferencedeployment.builders import a_deployment, a_revision

Raw = dict[str, Any]
OWN: Raw = {"podSelector": {"matchLabels": {"tramontane.dev/inference": "claims"}}}
DNS: Raw = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def s3(endpoint: str) -> Raw:
    return {"source": {"s3": {"endpoint": endpoint, "bucket": "models"}}}


@pytest.mark.parametrize(
    ("spec", "egress"),
    [
        ({}, [{"to": [OWN]}]),
        ({"egress": "DNSOnly"}, [{"to": [OWN]}, DNS]),
        ({"egress": "Open"}, None),
        (
            {"model": s3("http://10.0.0.9:9000")},
            [
                {"to": [OWN]},
                {
                    "to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}],
                    "ports": [{"port": 9000, "protocol": "TCP"}],
                },
            ],
        ),
        (
            {"model": s3("https://s3.hall.example")},
            [{"to": [OWN]}, DNS, {"ports": [{"port": 443, "protocol": "TCP"}]}],
        ),
    ],
    ids=["None", "DNSOnly", "Open", "store by address", "store by name"],
)
def test_egress(spec: Raw, egress: list[Raw] | None) -> None:
    policy = objects.network_policy(a_deployment(**spec))["spec"]
    assert policy["podSelector"] == OWN["podSelector"]
    assert policy.get("egress") == egress
    assert ("Egress" in policy["policyTypes"]) == (egress is not None)


@pytest.mark.parametrize("endpoint", ["https://h:99999", "http://[::1", "https://"], ids=str)
def test_an_endpoint_that_is_none_opens_nothing(endpoint: str) -> None:
    policy = objects.network_policy(a_deployment(model=s3(endpoint)))["spec"]
    assert policy["egress"] == [{"to": [OWN]}]


def test_pods_of_a_stored_revision_reach_their_store() -> None:
    old, new = a_deployment(model=s3("http://10.0.0.9")), a_deployment(model=s3("http://10.0.0.8"))
    policy = objects.network_policy(new, [old.spec, new.spec])["spec"]
    reached = [rule["to"][0]["ipBlock"]["cidr"] for rule in policy["egress"][1:]]
    assert reached == ["10.0.0.8/32", "10.0.0.9/32"]


def test_ingress_is_the_api_the_probes_and_the_own_pods() -> None:
    api, probes, own = objects.network_policy(a_deployment())["spec"]["ingress"]
    assert api == {
        "from": [{"namespaceSelector": {}}],
        "ports": [{"port": 8000, "protocol": "TCP"}],
    }
    assert probes == {"ports": [{"port": 8901, "protocol": "TCP"}]}
    assert own == {"from": [OWN]}


def test_a_service_leads_to_pods_in_rotation() -> None:
    service = objects.service(a_deployment())
    assert service["metadata"]["name"] == "claims"
    assert service["spec"]["selector"] == {
        "tramontane.dev/inference": "claims",
        "tramontane.dev/rotation": "in",
    }
    [port] = service["spec"]["ports"]
    of_revision = objects.service(a_deployment(), "ab12")
    assert of_revision["metadata"]["name"] == "claims-ab12"
    assert of_revision["spec"]["selector"] == {
        "tramontane.dev/inference": "claims",
        "tramontane.dev/revision": "ab12",
        "tramontane.dev/seat": "0",
    }, "a mesh weighs by itself: who is out for a turn must answer what it sends"
    slice_ = objects.activator_slice(a_deployment(), "10.0.0.1", 9999)
    assert slice_["ports"][0]["name"] == port["name"], "kube-proxy matches ports by name"
    assert slice_["addressType"] == "IPv4"
    assert objects.activator_slice(a_deployment(), "fd00::1", 1)["addressType"] == "IPv6"


def test_the_files_of_the_pods_fit_a_config_map_and_lie_side_by_side() -> None:
    data = objects.config_map(a_deployment())["data"]
    assert {"rankagent.py", "serving.py", "weights.py"} <= data.keys()
    assert "__init__.py" not in data
    assert sum(map(len, data.values())) < 512 * 1024


def test_a_stored_revision_is_read_back() -> None:
    revision = a_revision()
    raw = objects.controller_revision(a_deployment(), revision.hash, 3, revisions.to_data(revision))
    assert raw["metadata"]["name"] == f"claims-{revision.hash}"
    assert raw["revision"] == 3
    assert revisions.from_data(revision.hash, raw["data"]).layout == revision.layout


def test_a_route_splits_by_weight() -> None:
    route = objects.http_route(a_deployment(), [("a", 95), ("b", 5)])
    [rule] = route["spec"]["rules"]
    assert [(one["name"], one["weight"]) for one in rule["backendRefs"]] == [
        ("claims-a", 95),
        ("claims-b", 5),
    ]


def test_all_of_it_goes_with_the_deployment() -> None:
    deployment = a_deployment()
    for made in (
        objects.service(deployment),
        objects.config_map(deployment),
        objects.network_policy(deployment),
        objects.activator_slice(deployment, "10.0.0.1", 1),
        objects.http_route(deployment, []),
    ):
        [owner] = made["metadata"]["ownerReferences"]
        assert owner["uid"] == deployment.metadata.uid
        assert made["metadata"]["labels"]["tramontane.dev/inference"] == "claims"
