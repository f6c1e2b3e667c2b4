"""A real API server refuses what is wrong, and says what must be and what was given.

One good and one bad object for each CEL rule in crds/, a bad value for each closed list, and what
people get wrong most often. Rules and lists are found in crds/, so that none goes untested.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from plane.harness import Plane
from support.examples import crd_schema, example, examples
from tramontane.api.crdgen import KINDS
from tramontane.kube.client import Client
from tramontane.kube.errors import Invalid
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    TRAININGJOBS,
    Resource,
)

pytestmark = pytest.mark.plane

RESOURCES: dict[str, Resource] = {
    resource.kind: resource
    for resource in (NODEPOOLS, BLADES, GANGS, TRAININGJOBS, INFERENCEDEPLOYMENTS)
}
GONE = object()
Changes = dict[str, Any]
SIGNED = {"signature": "q83v", "keysFrom": "trust-roots"}
POOL, JOB, INF = "NodePool", "TrainingJob", "InferenceDeployment"


def changed(document: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """Return the document with values set, or taken out, by paths like `spec.slots[0].count`."""
    for path, value in changes.items():
        *parents, last = (int(i) if i else k for k, i in re.findall(r"(\w+)|\[(\d+)\]", path))
        target: Any = document
        for step in parents:
            target = target[step]
        if value is GONE:
            del target[last]
        else:
            target[last] = value
    return document


@dataclass(frozen=True, slots=True)
class Case:
    """A rule, by its place and the beginning of its message, and what it takes and refuses."""

    kind: str
    at: str
    must: str
    bad: Changes
    got: str
    good: Changes = field(default_factory=dict)
    base: int = 0
    update: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.at or 'root'}-{self.must[:40]}".replace(" ", "_")

    def document(self, changes: Changes) -> dict[str, Any]:
        document = examples(self.kind)[self.base]
        document.pop("status", None)
        return changed(document, changes)


def _rule_cases() -> list[Case]:
    nodes3 = {"spec.elastic": GONE, "spec.topology.slice": GONE, "spec.nodes": 3}
    env = "spec.template.spec.containers[0].env"
    source = "spec.model.adapters[0].source"
    two_sources = {"hostPath": "/m", "pvc": {"claim": "c"}}
    return [
        # Blade and Gang
        Case(
            "Blade",
            "spec.pool",
            "spec.pool must not change",
            {"spec.pool": "b"},
            '"b" after "paris-a"',
            update=True,
        ),
        Case(
            "Gang",
            "spec.pool",
            "spec.pool must not change",
            {"spec.pool": "b"},
            '"b" after "paris-a"',
            update=True,
        ),
        Case(
            "Gang",
            "spec.sizes",
            "sizes must differ",
            {"spec.sizes": [112, 128]},
            "[112, 128]",
            good={"spec.sizes": [128]},
        ),
        Case(
            "Gang",
            "spec.topology",
            "topology with mode Required must name",
            {"spec.topology": {"mode": "Required"}},
            "neither",
            good={"spec.topology": {"mode": "Required", "pack": "rack"}},
        ),
        # NodePool
        Case(
            POOL,
            "spec.nodeSelector",
            "nodeSelector must name at least one label",
            {"spec.nodeSelector": {}},
            "none",
        ),
        Case(
            POOL,
            "spec.nodeSelector.matchExpressions[]",
            "values must be given with In and NotIn",
            {"spec.nodeSelector.matchExpressions[1].values": ["x"]},
            "DoesNotExist with 1 values",
        ),
        Case(
            POOL,
            "spec.topology.levels",
            "each level must have a label of its own",
            {"spec.topology.levels[0].label": "topology.tramontane.dev/rack"},
            '["topology.tramontane.dev/rack", "topology.tramontane.dev/rack"]',
        ),
        Case(
            POOL,
            "spec.topology.levels[].name",
            "a level must have another name than blade",
            {"spec.topology.levels[1].name": "blade"},
            "blade",
        ),
        Case(
            POOL,
            "spec.health.unknownAfter",
            "unknownAfter must be at least 60s",
            {"spec.health.unknownAfter": "59s"},
            "59s",
            good={"spec.health.unknownAfter": "1m"},
        ),
        Case(
            POOL,
            "spec.health.rules[]",
            "window must be given",
            {"spec.health.rules[0].window": GONE},
            "count 3 without a window",
        ),
        Case(
            POOL,
            "spec.health.rules[]",
            "action must be absent",
            {"spec.health.rules[1].action": "Reset"},
            "Reset",
        ),
        Case(
            POOL,
            "spec.health.rules[].match",
            "match must name a code or a check",
            {"spec.health.rules[0].match": {}},
            "neither",
        ),
        Case(
            POOL,
            "spec.spares",
            "spares must be given as exactly one",
            {"spec.spares": {"count": 4, "auto": {}}},
            "both",
            good={"spec.spares": {"auto": {}}},
        ),
        Case(
            POOL,
            "spec.tenants",
            "a namespace must belong to one tenant",
            {
                "spec.tenants": [
                    {"name": "a", "namespaces": ["x", "y"]},
                    {"name": "b", "namespaces": ["z"]},
                    {"name": "c", "namespaces": ["y"]},
                ]
            },
            'a shared one in ["a", "c"]',
            good={
                "spec.tenants": [
                    {"name": "a", "namespaces": ["x", "y"]},
                    {"name": "b", "namespaces": ["z"]},
                ]
            },
        ),
        Case(
            POOL,
            "spec.tenants[]",
            "guaranteedGPUs must not exceed maxGPUs",
            {"spec.tenants[0].guaranteedGPUs": 4097},
            "4097 over 4096",
            good={"spec.tenants[0].guaranteedGPUs": 4096},
        ),
        # TrainingJob
        Case(
            JOB,
            "",
            "metadata.name must begin with a letter",
            {"metadata.name": "x" * 58},
            "58 characters",
            good={"metadata.name": "x" * 57},
        ),
        Case(
            JOB,
            "spec",
            "nodePool must not change",
            {"spec.nodePool": "b"},
            '"b" after "paris-a"',
            update=True,
        ),
        Case(
            JOB,
            "spec",
            "nodes times gpusPerNode must be at most",
            {"spec.elastic": GONE, "spec.nodes": 12512},
            "12512 * 8 = 100096",
            good={"spec.elastic": GONE, "spec.topology.slice": GONE, "spec.nodes": 12500},
        ),
        Case(
            JOB,
            "spec",
            "elastic.sizes must not exceed nodes",
            {"spec.elastic.sizes": [144, 128]},
            "[144, 128] with nodes 128",
        ),
        Case(
            JOB,
            "spec",
            "elastic.sizes must include nodes",
            {"spec.elastic.sizes": [112, 96]},
            "[112, 96] with nodes 128",
        ),
        Case(
            JOB,
            "spec",
            "topology.slice.size must divide nodes",
            {"spec.elastic": GONE, "spec.nodes": 120},
            "16 with nodes 120",
        ),
        Case(
            JOB,
            "spec",
            "topology.slice.size must divide each",
            {"spec.elastic.sizes": [128, 120]},
            "16 with sizes [128, 120]",
        ),
        Case(
            JOB,
            "spec",
            "launcher.replicaGroups must divide nodes",
            nodes3 | {"spec.launcher.replicaGroups": 2},
            "2 with nodes 3",
            good=nodes3 | {"spec.launcher.replicaGroups": 3},
        ),
        Case(
            JOB,
            "spec",
            "launcher.replicaGroups must divide each",
            {"spec.launcher.replicaGroups": 64},
            "64 with sizes [128, 112, 96]",
            good={"spec.launcher.replicaGroups": 16},
        ),
        Case(
            JOB,
            "spec",
            "template must not set rank or size",
            {env: [{"name": "WORLD_SIZE", "value": "8"}, {"name": "PET_NODE_RANK"}]},
            '["WORLD_SIZE", "PET_NODE_RANK"]',
            good={
                env: [{"name": "RANK", "value": "0"}],
                "spec.launcher": {"type": "none"},
            },
        ),
        Case(
            JOB,
            "spec.elastic.sizes",
            "sizes must differ",
            {"spec.elastic.sizes": [128, 112, 112]},
            "[128, 112, 112]",
        ),
        Case(
            JOB,
            "spec.topology",
            "topology with mode Required must name",
            {"spec.topology": {"mode": "Required"}},
            "neither",
            good={"spec.topology": {"mode": "Required", "slice": {"size": 16, "level": "rack"}}},
        ),
        Case(
            JOB,
            "spec.launcher",
            "replicaGroups above 1 must go with launcher type torchrun",
            {"spec.launcher": {"type": "jax", "replicaGroups": 2}},
            "type jax",
            good={"spec.launcher": {"type": "jax"}},
        ),
        Case(
            JOB,
            "spec.launcher",
            "minReplicaGroups must not exceed replicaGroups",
            {"spec.launcher": {"replicaGroups": 4, "minReplicaGroups": 5}},
            "5 over 4",
            good={"spec.launcher": {"replicaGroups": 4, "minReplicaGroups": 4}},
        ),
        Case(
            JOB,
            "spec.checkpoint.savingPattern",
            "savingPattern must be a regular expression",
            {"spec.checkpoint.savingPattern": "(writing"},
            "missing closing ): `(writing`",
            good={"spec.checkpoint.savingPattern": "writing (a )?checkpoint"},
        ),
        Case(
            JOB,
            "spec.progress",
            "progress must be given as either",
            {"spec.progress.stepPattern": "(?P<step>1)"},
            "both",
            good={"spec.progress.stepPattern": ""},
            base=1,
        ),
        Case(
            JOB,
            "spec.progress.stepPattern",
            "stepPattern must contain a group named step",
            {"spec.progress.stepPattern": "step=(?P<stp>.*)"},
            "step=(?P<stp>.*)",
        ),
        Case(
            JOB,
            "spec.progress.stepPattern",
            "stepPattern must be a regular expression",
            {"spec.progress.stepPattern": "(?P<step>[0-9]+"},
            "missing closing ): `(?P<step>[0-9]+`",
            good={"spec.progress.stepPattern": r"(?i)STEP (?P<step>\d+)"},
        ),
        Case(
            JOB,
            "spec.progress.lossPattern",
            "lossPattern must contain a group named loss",
            {"spec.progress.lossPattern": "loss=.*"},
            "loss=.*",
            good={"spec.progress.lossPattern": "loss=(?P<loss>.*)"},
        ),
        Case(
            JOB,
            "spec.progress.lossPattern",
            "lossPattern must be a regular expression",
            {"spec.progress.lossPattern": "(?P<loss>(?!x))"},
            "invalid or unsupported Perl syntax: `(?!`",
        ),
        Case(
            JOB,
            "spec.checkpoint.savedPattern",
            "savedPattern must contain a group named step",
            {"spec.checkpoint.savedPattern": "saved"},
            "saved",
            good={"spec.checkpoint.savedPattern": ""},
        ),
        Case(
            JOB,
            "spec.checkpoint.savedPattern",
            "savedPattern must be a regular expression",
            {"spec.checkpoint.savedPattern": "*(?P<step>.)"},
            "missing argument to repetition operator: `*`",
        ),
        Case(
            JOB,
            "spec.recovery.backoff",
            "backoff.base must not exceed",
            {"spec.recovery.backoff": {"base": "1h"}},
            "1h over 10m",
            good={"spec.recovery.backoff": {"base": "600s"}},
        ),
        # InferenceDeployment
        Case(
            INF,
            "",
            "metadata.name must begin with a letter",
            {"metadata.name": "v1.claims"},
            '"v1.claims", 9 characters',
            good={"metadata.name": "x" * 50},
        ),
        Case(
            INF,
            "spec",
            "nodePool must not change",
            {"spec.nodePool": "b"},
            '"b" after "paris-a"',
            update=True,
        ),
        Case(
            INF,
            "spec",
            "engine custom must come with a template",
            {"spec.engine.name": "custom", "spec.template": GONE},
            "none",
            good={"spec.engine.name": "custom"},
        ),
        Case(
            INF,
            "spec.model.source",
            "source must be given as exactly one",
            {"spec.model.source": two_sources},
            '["pvc", "hostPath"]',
        ),
        Case(
            INF,
            "spec.model.adapters[].source",
            "source must be given as exactly one",
            {source: {}},
            "[]",
            good={source: {"pvc": {"claim": "c"}}},
        ),
        Case(
            INF,
            "spec.model",
            "model must have digest when verify is given",
            {"spec.model": {"source": {"hostPath": "/m"}, "verify": SIGNED}},
            "no digest",
            good={
                "spec.model": {
                    "source": {"hostPath": "/m"},
                    "digest": "sha256:" + "0" * 64,
                    "verify": SIGNED,
                }
            },
        ),
        Case(
            INF,
            "spec.capacity",
            "minReplicas must not exceed",
            {"spec.capacity.minReplicas": 5},
            "5 over 4",
            good={"spec.capacity.minReplicas": 4},
        ),
        Case(
            INF,
            "spec.layout",
            "layout must have tensor when mode is Fixed",
            {"spec.layout": {"mode": "Fixed"}},
            "no tensor",
            good={"spec.layout": {"mode": "Fixed", "tensor": 1}},
        ),
        Case(
            INF,
            "spec.layout",
            "layout must have no numbers",
            {"spec.layout": {"tensor": 8, "expert": True}},
            '["tensor", "expert"]',
            good={"spec.layout": {}},
        ),
        Case(
            INF,
            "spec.layout",
            "layout.nodes must divide",
            {"spec.layout": {"mode": "Fixed", "tensor": 8, "pipeline": 2, "nodes": 3}},
            "3 for 16 GPUs",
            good={"spec.layout": {"mode": "Fixed", "tensor": 8, "pipeline": 2, "nodes": 2}},
        ),
        Case(
            INF,
            "spec.rollout.steps",
            "steps must have growing weights",
            {"spec.rollout.steps": [{"weight": 50}, {"weight": 5}]},
            "[50, 5]",
            good={"spec.rollout.steps": []},
        ),
        Case(
            INF,
            "spec.recovery.backoff",
            "backoff.base must not exceed",
            {"spec.recovery.backoff": {"base": "2h", "max": "1h"}},
            "2h over 1h",
        ),
        Case(
            INF,
            "spec.topology",
            "topology with mode Required must name",
            {"spec.topology": {"mode": "Required"}},
            "neither",
            good={"spec.topology": {"mode": "Preferred"}},
        ),
    ]


RULE_CASES = _rule_cases()

# What the schema alone refuses: the API server's own words say both values.
SCHEMA_CASES = [
    pytest.param(JOB, {"spec.nodes": 0}, "greater than or equal to 1", "0", id="no-nodes"),
    pytest.param(
        JOB, {"spec.nodes": "8"}, "must be of type integer", '"string"', id="string-nodes"
    ),
    pytest.param(JOB, {"spec.nodes": GONE}, "spec.nodes: Required value", "", id="nodes-missing"),
    pytest.param(
        JOB,
        {"spec.template": {"spec": {"containers": []}}},
        "at least 1 items",
        "0",
        id="no-container",
    ),
    pytest.param(
        JOB,
        {"spec.template": {"spec": {}}},
        "spec.template.spec.containers: Required",
        "",
        id="empty",
    ),
    pytest.param(
        JOB, {"spec.template": {}}, "spec.template.spec: Required", "", id="no-template-spec"
    ),
    pytest.param(
        JOB,
        {"spec.template.spec.containers[1].name": "trainer"},
        "Duplicate value",
        "trainer",
        id="container-twice",
    ),
    pytest.param(JOB, {"spec.maxRuntime": "3 days"}, "should match", "3 days", id="no-duration"),
    pytest.param(
        JOB, {"spec.recovery.nodeLostAfter": 45}, "of type string", "integer", id="no-unit"
    ),
    pytest.param(JOB, {"spec.progress.stallAfter": "never"}, "should match", "never", id="no-auto"),
    pytest.param(JOB, {"spec.launcher.port": 80}, "greater than or equal to 1024", "80", id="port"),
    pytest.param(
        POOL, {"spec.remediation.maxUnavailable": "101%"}, "should match", "101%", id="percentage"
    ),
    pytest.param(
        POOL,
        {"spec.remediation.maxUnavailable": -1},
        "greater than or equal to 0",
        "-1",
        id="minus",
    ),
    pytest.param(POOL, {"spec.gpu.memory": "141 GB"}, "should match", "141 GB", id="quantity"),
    pytest.param(POOL, {"spec.gpu.minDriver": "R580"}, "should match", "R580", id="driver"),
    pytest.param(POOL, {"spec.gpu.count": 0}, "greater than or equal to 1", "0", id="no-gpus"),
    pytest.param(
        POOL, {"spec.spares": {"auto": {"confidence": 1}}}, "less than 1", "1", id="certain"
    ),
    pytest.param(
        POOL, {"spec.topology.levels[0].name": "rack"}, "Duplicate value", "rack", id="level-twice"
    ),
    pytest.param(POOL, {"spec.topology.levels[0].name": ""}, "at least 1 chars", "", id="no-name"),
    pytest.param(
        POOL, {"spec.tenants[0].namespaces": []}, "at least 1 items", "0", id="tenant-without"
    ),
    pytest.param(
        POOL, {"spec.availableFrom[0].at": "soon"}, "must be of type date-time", "soon", id="date"
    ),
    pytest.param("Gang", {"spec.slots": []}, "at least 1 items", "0", id="no-slots"),
    pytest.param(
        "Gang", {"spec.slots[0].requests": {"cpu": "many"}}, "should match", "many", id="requests"
    ),
    pytest.param(INF, {"spec.model.digest": "md5:0"}, "should match", "md5:0", id="digest"),
    pytest.param(
        INF, {"spec.model.source": {"oci": "claims:v7"}}, "should match", "claims:v7", id="oci-tag"
    ),
    pytest.param(
        INF, {"spec.model.source": {"hostPath": "m"}}, "should match", '"m"', id="relative-path"
    ),
    pytest.param(
        INF, {"spec.engine.image": GONE}, "spec.engine.image: Required value", "", id="no-image"
    ),
    pytest.param(
        INF, {"spec.rollout.steps[0].weight": 100}, "less than or equal to 99", "100", id="weight"
    ),
]


def _rules(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _closed_lists(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    if "enum" in schema:
        yield path, schema["enum"]
    for name, child in schema.get("properties", {}).items():
        yield from _closed_lists(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _closed_lists(schema["items"], f"{path}[0]")


async def _refusal(client: Client, document: dict[str, Any]) -> str:
    resource = RESOURCES[document["kind"]]
    with pytest.raises(Invalid) as caught:
        await client.create(resource, document)
    return caught.value.message


@pytest.mark.parametrize("case", RULE_CASES, ids=lambda case: case.id)
async def test_a_rule_refuses_and_says_why(plane: Plane, case: Case) -> None:
    resource = RESOURCES[case.kind]
    async with await plane.client() as client:
        if case.update:
            good = await client.create(resource, case.document({}))
            with pytest.raises(Invalid) as caught:
                await client.replace(resource, changed(good, case.bad))
            message = caught.value.message
        else:
            message = await _refusal(client, case.document(case.bad))
            await client.create(resource, case.document(case.good))
    assert case.must in message
    assert case.got in message


@pytest.mark.parametrize(("kind", "bad", "must", "got"), SCHEMA_CASES)
async def test_the_schema_refuses_and_says_why(
    plane: Plane, kind: str, bad: Changes, must: str, got: str
) -> None:
    document = example(kind)
    async with await plane.client() as client:
        message = await _refusal(client, changed(document, bad))
    assert must in message
    assert got in message


@pytest.mark.parametrize("kind", RESOURCES)
async def test_a_closed_list_of_a_spec_is_closed(plane: Plane, kind: str) -> None:
    lists = list(_closed_lists(crd_schema(kind)["properties"]["spec"], "spec"))
    async with await plane.client() as client:
        for path, values in lists:
            message = await _refusal(client, changed(example(kind), {path: "Nonsense"}))
            assert f'{path}: Unsupported value: "Nonsense"' in message
            assert all(f'"{value}"' in message for value in values)


@pytest.mark.parametrize("kind", RESOURCES)
async def test_a_closed_list_of_a_status_is_closed(plane: Plane, kind: str) -> None:
    resource, document = RESOURCES[kind], example(kind)
    lists = list(_closed_lists(crd_schema(kind)["properties"]["status"], "status"))
    assert lists
    async with await plane.client() as client:
        created = await client.create(resource, document)
        good = created | {"status": document["status"]}
        good = await client.replace(resource, good, subresource="status")
        assert good["status"] == document["status"]
        for path, values in lists:
            bad = good | {"status": changed(example(kind), {path: "Nonsense"})["status"]}
            with pytest.raises(Invalid) as caught:
                await client.replace(resource, bad, subresource="status")
            assert f'{path}: Unsupported value: "Nonsense"' in caught.value.message
            assert all(f'"{value}"' in caught.value.message for value in values)


@pytest.mark.parametrize("kind", RESOURCES)
async def test_the_api_server_stores_what_the_models_say(plane: Plane, kind: str) -> None:
    """Nothing of an example is pruned, and the defaults are those of the model."""
    model = next(k.model for k in KINDS if k.name == kind)
    async with await plane.client() as client:
        for document in examples(kind):
            document.pop("status", None)
            stored = await client.create(RESOURCES[kind], document)
            want = model.model_validate(document)
            assert model.model_validate(stored).to_dict()["spec"] == want.to_dict()["spec"]
            assert "status" not in stored


async def test_a_gang_of_twenty_thousand_seats_fits(plane: Plane) -> None:
    seats = [f"gpu-{i:05d}" for i in range(20_000)]
    document = example("Gang")
    async with await plane.client() as client:
        created = await client.create(GANGS, document)
        created["status"] = {"phase": "Placed", "placement": {"size": 20_000, "seats": seats}}
        stored = await client.replace(GANGS, created, subresource="status")
    assert stored["status"]["placement"]["seats"] == seats


async def test_a_pod_template_passes_through_unread(plane: Plane) -> None:
    document = example(JOB)
    pod = document["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}
    pod["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    async with await plane.client() as client:
        stored = await client.create(TRAININGJOBS, document)
    assert stored["spec"]["template"] == document["spec"]["template"]


def test_every_rule_has_a_case() -> None:
    wanted = {
        (kind.name, at, message) for kind in KINDS for at, message in _rules(crd_schema(kind.name))
    }
    for case in RULE_CASES:
        hits = {w for w in wanted if w[:2] == (case.kind, case.at) and w[2].startswith(case.must)}
        assert len(hits) == 1, case.id
        wanted -= hits
    assert wanted == set()
