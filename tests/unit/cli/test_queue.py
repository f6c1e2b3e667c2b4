"""`tramontane why`, `simulate`, `snapshot` and `replay`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.objects import Raw, blade, gang, hall, node, pod
from support.scripted import status as refused
from unit.cli.desk import Desk

TRAMONTANE = "/apis/tramontane.dev/v1alpha1"
PLACES = {
    "nodepools": f"{TRAMONTANE}/nodepools",
    "blades": f"{TRAMONTANE}/blades",
    "gangs": f"{TRAMONTANE}/namespaces/ml/gangs",
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/namespaces/ml/pods",
    "priorityclasses": "/apis/scheduling.k8s.io/v1/priorityclasses",
}
PLACED: Raw = {"phase": "Placed", "epoch": 1, "placedAt": "2025-11-24T15:02:07Z"}


def fill(desk: Desk, objects: dict[str, list[Raw]]) -> None:
    """Put objects on the server."""
    for kind, raws in objects.items():
        for raw in raws:
            fields = {key: value for key, value in raw.items() if key != "metadata"}
            meta = {key: value for key, value in raw["metadata"].items() if key != "namespace"}
            desk.server.put(PLACES[kind], raw["metadata"]["name"], metadata=meta, **fields)


def busy(**spec: Any) -> dict[str, list[Raw]]:
    """Return a hall of four blades in two racks, all taken by two gangs, and one that waits."""
    objects = hall(0)
    names = [f"gpu-{i}" for i in range(4)]
    objects["blades"] = [blade(name) for name in names]
    objects["nodes"] = [node(name, f"r{i // 2}") for i, name in enumerate(names)]
    one = gang("one", 1, **PLACED, placement={"seats": ["gpu-0"]})
    three = gang("three", 3, **PLACED, placement={"seats": ["gpu-1", "gpu-2", "gpu-3"]})
    waits = gang("waits", 2)
    waits["spec"] |= spec
    objects["gangs"] = [one, three, waits]
    objects["pods"] = [pod("one-0", "gpu-0", "one")]
    objects["pods"] += [pod(f"three-{i}", f"gpu-{i + 1}", "three", i) for i in range(3)]
    return objects


def job(**spec: Any) -> Raw:
    template = {"spec": {"containers": [{"name": "trainer", "image": "registry.local/x:1"}]}}
    return {
        "apiVersion": "tramontane.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "new", "namespace": "ml"},
        "spec": {"nodePool": "paris", "nodes": 1, "template": template, **spec},
    }


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def write(manifest: Path, *documents: Raw) -> str:
    manifest.write_text(yaml.safe_dump_all(documents))
    return str(manifest)


def waits(desk: Desk, *arguments: str) -> str:
    """Return what a command says of a gang that has to wait."""
    done = desk.run(*arguments)
    assert done.exit_code == 3, done.output
    assert not desk.writes()
    return done.output


def unanswered(desk: Desk, *arguments: str, status: int = 1) -> str:
    """Return the message of a command that has no answer, as one line."""
    done = desk.run(*arguments)
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


# why


def test_why_says_the_reason_the_numbers_and_the_ways_out(desk: Desk) -> None:
    fill(desk, busy())
    said = waits(desk, "why", "waits")
    for part in (
        "ml/waits",
        "2 seats, 8 GPUs each",
        "1 of 1 that wait",
        "WaitingForCapacity",
        "needs 2 free blades of 8 GPUs (got 0 of 4 in pool paris: 4 in use)",
        "What would let it run",
        "1 gang ended: ml/three",
    ):
        assert part in said, said
    assert "Gang ml/waits:" not in said


def test_a_way_out_that_others_take_first_says_so(desk: Desk) -> None:
    objects = busy(priority=0)
    ahead = gang("ahead", 3, at="2025-11-24T15:00:00Z")
    ahead["spec"]["priority"] = 0
    fill(desk, objects | {"gangs": [*objects["gangs"], ahead]})
    answer = json.loads(waits(desk, "why", "waits", "-o", "json"))
    (end,) = [way for way in answer["waysOut"] if way["kind"] == "End"]
    assert end["gangs"] == ["ml/three"]
    assert not end["startsAtOnce"]
    assert end["then"]["position"] == 1
    assert "room, but others go first: then position 1, " in waits(desk, "why", "waits")


def test_why_for_programs_has_all_of_the_answer(desk: Desk) -> None:
    fill(desk, busy(maxRuntime="1h"))
    answer = json.loads(waits(desk, "why", "waits", "-o", "json"))
    assert answer["gang"] == "ml/waits"
    assert answer["status"]["reason"] == "WaitingForCapacity"
    assert answer["waiting"] == 1
    assert {way["kind"] for way in answer["waysOut"]} >= {"End"}
    assert all(way["startsAtOnce"] and way["touches"] > 0 for way in answer["waysOut"])
    assert yaml.safe_load(waits(desk, "why", "waits", "-o", "yaml")).keys() == answer.keys()


def test_why_of_a_placed_gang_says_where(desk: Desk) -> None:
    fill(desk, busy())
    said = desk.says("why", "ml/three")
    assert "Placed" in said
    assert "r0: gpu-1, r1: gpu-2 … gpu-3 (2)" in said
    assert "What would let it run" not in said


def test_seats_that_are_out_of_order_are_no_range(desk: Desk) -> None:
    objects = busy()
    objects["gangs"][1]["status"]["placement"]["seats"] = ["gpu-1", "gpu-3", "gpu-2"]
    fill(desk, objects)
    assert "r0: gpu-1, r1: gpu-3, gpu-2" in desk.says("why", "ml/three")


def test_a_gang_is_found_by_its_namespace(desk: Desk) -> None:
    objects = busy()
    fill(desk, objects)
    twin = gang("waits", 1)
    desk.server.put(
        f"{TRAMONTANE}/namespaces/eu/gangs",
        "waits",
        metadata={"creationTimestamp": twin["metadata"]["creationTimestamp"]},
        spec=twin["spec"],
        status={},
    )
    assert "must be of one namespace (got eu/waits, ml/waits)" in unanswered(desk, "why", "waits")
    assert "1 seat, 8 GPUs each" in waits(desk, "why", "waits", "-n", "eu")
    assert "2 seats, 8 GPUs each" in waits(desk, "why", "ml/waits")


def test_a_deployment_has_a_gang_for_each_replica(desk: Desk) -> None:
    objects = busy()
    placed = gang("claims-2", 1, **PLACED, placement={"seats": ["gpu-0"]})
    objects["gangs"] = [placed, gang("claims-10", 1), gang("claims-x", 1), *objects["gangs"][1:]]
    fill(desk, objects)
    said = waits(desk, "why", "inf/claims")
    assert said.index("ml/claims-2") < said.index("ml/claims-10")
    assert "claims-x" not in said
    items = json.loads(waits(desk, "why", "inf/ml/claims", "-o", "json"))["items"]
    assert [one["gang"] for one in items] == ["ml/claims-2", "ml/claims-10"]
    assert "claims-10" in waits(desk, "why", "claims")
    assert "has a Gang for each replica" in unanswered(desk, "why", "inf/zebra")
    # A deployment is no job, and no pool has a place in the queue.
    assert "once the operator has accepted it" in unanswered(desk, "why", "tj/zebra")
    assert "tj/NAME, inf/NAME, gang/NAME" in unanswered(desk, "why", "np/paris", status=2)


def test_the_kind_may_be_written_before_the_name(desk: Desk) -> None:
    fill(desk, busy())
    for said in ("tj/waits", "gang/ml/waits", "TrainingJob/waits"):
        assert "ml/waits" in waits(desk, "why", said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wait"], 'did you mean "waits"?'),
        (["zebra"], "once the operator has accepted it"),
        (["waits", "-n", "nowhere"], "Gang nowhere/waits: must exist"),
        (["inf/waits"], 'none of a deployment: "waits" alone means it'),
    ],
    ids=["typo", "unknown", "other namespace", "other kind"],
)
def test_a_gang_that_is_not_there(desk: Desk, arguments: list[str], message: str) -> None:
    fill(desk, busy())
    assert message in unanswered(desk, "why", *arguments)


def test_where_there_is_room_the_turn_is_what_lacks(desk: Desk) -> None:
    objects = busy()
    objects["blades"].append(blade("gpu-4"))
    objects["nodes"].append(node("gpu-4", "r2"))
    ahead = gang("ahead", 5, at="2025-11-24T15:00:00Z")
    for one in objects["gangs"][:2]:
        one["spec"]["maxRuntime"] = "999999h"
    objects["gangs"] = [*objects["gangs"][:2], ahead, gang("little", 1)]
    fill(desk, objects)
    answer = json.loads(waits(desk, "why", "little", "-o", "json"))
    assert answer["status"]["reason"] == "ReservedForOther"
    ways = {way["kind"]: way for way in answer["waysOut"]}
    assert ways["Limit"]["change"].startswith("maxRuntime: at most ")
    assert ways["Priority"]["change"] == "priority 1 instead of 0"
    assert all(way["startsAtOnce"] for way in ways.values())


# simulate


def test_simulate_says_where_a_job_would_go(desk: Desk, manifest: Path) -> None:
    fill(desk, hall(14))
    said = desk.says("simulate", "-f", write(manifest, job(nodes=2)))
    assert "start at once" in said
    assert "gpu-" in said
    assert not desk.writes()
    answer = json.loads(desk.says("simulate", "-f", str(manifest), "-o", "json"))
    assert len(answer["status"]["placement"]["seats"]) == 2


def test_simulate_says_why_a_job_would_wait(desk: Desk, manifest: Path) -> None:
    fill(desk, busy())
    said = waits(desk, "simulate", "-f", write(manifest, job(nodes=2)))
    assert "WaitingForCapacity" in said
    assert "2 of 2" in said


def test_simulate_says_who_would_wait_because_of_the_job(desk: Desk, manifest: Path) -> None:
    fill(desk, hall())
    said = desk.says("simulate", "-f", write(manifest, job(nodes=3, priorityClassName="high")))
    assert "Delays:   ml/small" in said
    assert "Delays" not in desk.says("simulate", "-f", write(manifest, job(maxRuntime="1m")))


def test_simulate_says_who_would_give_way(desk: Desk, manifest: Path) -> None:
    fill(desk, busy())
    path = write(manifest, job(nodes=1, priorityClassName="high"))
    said = waits(desk, "simulate", "-f", path)
    assert "WaitingForPreempted" in said
    assert "Gives way to it" in said
    answer = json.loads(waits(desk, "simulate", "-f", path, "-o", "json"))
    assert [one["gang"] for one in answer["givesWay"]] == ["ml/one"]


def test_simulate_takes_a_gang_and_standard_input(desk: Desk, manifest: Path) -> None:
    fill(desk, hall())
    whole = {"apiVersion": "tramontane.dev/v1alpha1", "kind": "Gang", **gang("fresh", 1)}
    whole["spec"]["priority"] = 5
    said = desk.says("simulate", "-f", write(manifest, {"kind": "ConfigMap"}, whole))
    assert "ml/fresh" in said
    assert "eu/fresh" in desk.says("simulate", "-n", "eu", "-f", str(manifest))


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([job(nodePool="rome")], 'must name a NodePool that exists (got "rome"; there are paris)'),
        ([job(priorityClassName="low")], '(there are: high) (got "low")'),
        ([job(nodes=0)], "spec.nodes"),
        ([job(), job()], "must have one TrainingJob or Gang (got TrainingJob, TrainingJob)"),
        ([{"kind": "Pod"}], "must have one TrainingJob or Gang (got Pod)"),
        (
            [{"kind": "Gang", **gang("small", 1)}],
            "Gang ml/small: must not exist yet",
        ),
    ],
    ids=["pool", "priority", "invalid", "two", "other", "exists"],
)
def test_what_cannot_be_simulated(
    desk: Desk, manifest: Path, documents: list[Raw], message: str
) -> None:
    fill(desk, hall())
    assert message in unanswered(desk, "simulate", "-f", write(manifest, *documents))


def test_a_manifest_that_is_no_yaml(desk: Desk, manifest: Path) -> None:
    manifest.write_text("a: [")
    assert "must be YAML" in unanswered(desk, "simulate", "-f", str(manifest))


# snapshot, replay


def test_a_snapshot_answers_without_the_cluster(desk: Desk, tmp_path: Path, manifest: Path) -> None:
    fill(desk, busy())
    path = str(tmp_path / "hall.json")
    desk.says("snapshot", "-o", path)
    live = json.loads(waits(desk, "why", "waits", "-o", "json"))
    asked = len(desk.server.requests)
    saved = json.loads(waits(desk, "why", "waits", "-o", "json", "--snapshot", path))
    assert [way["change"] for way in saved["waysOut"]] == [way["change"] for way in live["waysOut"]]
    waits(desk, "simulate", "-f", write(manifest, job(nodes=2)), "--snapshot", path)
    plan = json.loads(desk.says("replay", path, "-o", "json"))
    assert plan["gangs"]["ml/waits"]["reason"] == "WaitingForCapacity"
    assert len(desk.server.requests) == asked


def test_a_snapshot_goes_to_standard_output_and_has_no_secret(desk: Desk) -> None:
    fill(desk, hall())
    said = desk.says("snapshot")
    assert json.loads(said)["format"] == "tramontane.dev/snapshot"
    assert "hf_secret" not in said


def test_replay_gives_the_same_bytes_each_time(desk: Desk, tmp_path: Path) -> None:
    fill(desk, hall())
    path = str(tmp_path / "hall.json")
    desk.says("snapshot", "-o", path)
    assert desk.says("replay", path, "-o", "json") == desk.says("replay", path, "-o", "json")
    rows = {line.split()[0]: line for line in desk.says("replay", path).splitlines()[3:]}
    assert "Placed" in rows["ml/small"]
    assert "ExceedsPool" in rows["ml/large"]
    assert "Gang ml/large:" not in rows["ml/large"]


def test_files_that_cannot_be_read_or_written(desk: Desk, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert "write one with `tramontane snapshot" in unanswered(desk, "replay", str(bad))
    assert "does not exist" in unanswered(desk, "replay", str(tmp_path / "none.json"), status=2)
    fill(desk, hall())
    said = unanswered(desk, "snapshot", "-o", "json", status=2)
    assert 'must name a file (got the format "json")' in said
    assert "must be writable" in unanswered(desk, "snapshot", "-o", str(tmp_path / "no" / "x"))


def test_a_cluster_that_cannot_be_reached_is_no_answer(desk: Desk, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    text = desk.kubeconfig.read_text().replace(desk.server.url, "http://127.0.0.1:9")
    nowhere.write_text(text)
    assert "127.0.0.1:9" in unanswered(desk, "why", "waits", "--kubeconfig", str(nowhere))


def test_who_may_not_read_the_hall_is_led_to_what_the_scheduler_said(desk: Desk) -> None:
    fill(desk, busy())
    desk.server.answers.append(lambda _: refused(403, "Forbidden"))
    said = unanswered(desk, "why", "gang/ml/waits")
    assert "403 Forbidden" in said
    assert said.endswith("tramontane explain gang/ml/waits")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tramontane.cli.main import main\n"
        "for name in ('why', 'simulate', 'snapshot', 'replay'):\n"
        "    try:\n        main([name, '--help'])\n"
        "    except SystemExit:\n        pass\n"
        "heavy = {'aiohttp', 'kubernetes', 'pydantic', 'rich', 'numpy', 'yaml', 'asyncio'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"
