"""One file holds what a pass looks at; it gives the same plan wherever it is read."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.objects import Raw, hall, pod
from tramontane.api.errors import InvalidValue
from tramontane.scheduler.engine import decide
from tramontane.scheduler.fleet import build_fleet
from tramontane.scheduler.gangs import decode_gang
from tramontane.scheduler.records import decode_blade, decode_node, decode_pod, decode_pool
from tramontane.scheduler.saved import FORMAT, Saved, dump, load, prune, read, replay
from tramontane.scheduler.snapshot import Pods

ROOT = Path(__file__).parents[3]
EXAMPLES = Path(__file__).parents[2] / "support" / "examples"
NOW = 1_764_000_000.25
STAMP = "2026-01-01T00:00:00Z"


def test_what_is_saved_decides_as_the_objects_themselves_do() -> None:
    objects = hall()
    pods = Pods()
    for raw in objects["pods"]:
        pods.change(raw["metadata"]["name"], None, decode_pod(raw))
    fleet = build_fleet(
        {r["metadata"]["name"]: decode_blade(r) for r in objects["blades"]},
        {r["metadata"]["name"]: decode_node(r) for r in objects["nodes"]},
        {"paris": decode_pool(objects["nodepools"][0])},
    )
    gangs = {g.key: g for g in map(decode_gang, objects["gangs"])}
    direct = decide(fleet, gangs, pods, NOW)
    assert prune(objects, NOW).decide().outcomes == direct.outcomes
    assert direct.outcomes["ml/small"].placement is not None
    assert direct.outcomes["ml/large"].reason == "ExceedsPool"


def test_nothing_is_saved_that_does_not_decide() -> None:
    text = dump(prune(hall(), NOW))
    secrets = "hf_secret TOKEN image registry command train.py volumes peers serial podIP"
    for word in (*secrets.split(), "providerID", "managedFields", "research"):
        assert word not in text, word


def test_the_order_of_the_objects_does_not_matter() -> None:
    rng = random.Random(3)
    shuffled = {kind: rng.sample(raws, len(raws)) for kind, raws in hall().items()}
    assert dump(prune(shuffled, NOW)) == dump(prune(hall(), NOW))


def test_saved_loaded_and_saved_again_is_the_same(tmp_path: Path) -> None:
    text = dump(prune(hall(), NOW))
    path = tmp_path / "hall.json"
    path.write_text(text)
    again = load(path)
    assert dump(again) == text
    assert again.now_s == pytest.approx(NOW, abs=1e-6)
    lines = json.loads(text)
    assert [len(lines[kind]) for kind in ("blades", "gangs", "pods")] == [8, 4, 3]


def test_the_examples_of_the_api_keep_all_that_is_decoded() -> None:
    raws = {
        kind: next(yaml.safe_load_all((EXAMPLES / f"{kind}.yaml").read_text()))
        for kind in ("gang", "blade", "nodepool")
    }
    saved = prune(
        {"gangs": [raws["gang"]], "blades": [raws["blade"]], "nodepools": [raws["nodepool"]]}, NOW
    )
    assert decode_gang(saved.objects["gangs"][0]) == decode_gang(raws["gang"])
    assert decode_blade(saved.objects["blades"][0]) == decode_blade(raws["blade"])
    assert decode_pool(saved.objects["nodepools"][0]) == decode_pool(raws["nodepool"])


@pytest.mark.parametrize(
    "spec",
    [
        {"overhead": {"cpu": "1"}},
        {"resources": {"requests": {"nvidia.com/gpu": "4"}}},
        {"initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}]},
        {"initContainers": [{}, {"resources": {"requests": {"nvidia.com/gpu": "9"}}}]},
    ],
    ids=["overhead", "of the pod", "sidecar", "init"],
)
def test_a_pod_takes_as_much_as_it_did(spec: Raw) -> None:
    raw = pod("a", "gpu-1", "runs", 1, **spec)
    assert decode_pod(prune({"pods": [raw]}, NOW).objects["pods"][0]) == decode_pod(raw)


def test_foreign_pods_are_gangs_again() -> None:
    objects = hall()
    for number in range(2):
        raw = pod(f"batch-{number}", "", of="batch", schedulerName="tramontane")
        raw["metadata"]["annotations"]["tramontane.dev/gang-size"] = "2"
        raw["metadata"]["creationTimestamp"] = "2025-11-24T15:02:07Z"
        objects["pods"].append(raw)
    saved = prune(objects, NOW)
    (key,) = [key for key in saved.gangs if "batch" in key]
    assert len(saved.gangs[key].slots) == 1
    assert saved.gangs[key].slots[0].count == 2
    assert key in replay(saved)["gangs"]


def test_the_same_file_gives_the_same_plan_in_any_process(tmp_path: Path) -> None:
    path = tmp_path / "hall.json"
    path.write_text(dump(prune(hall(40), NOW)))
    code = (
        "import json, pathlib, sys; from tramontane.scheduler.saved import load, replay; "
        "print(json.dumps(replay(load(pathlib.Path(sys.argv[1])))))"
    )
    plans = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    (plan,) = plans
    assert json.loads(plan)["gangs"]["ml/odd"]["phase"] == "Placed"
    assert plan.strip() == json.dumps(replay(load(path)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", 'must have "format": "tramontane.dev/snapshot" (got "none")'),
        ('{"format": "tramontane.dev/snapshot", "version": 7}', "must be of version 1 (got 7)"),
        ('{"format": "tramontane.dev/snapshot", "version": 1}', "must hold API objects and a time"),
        (
            json.dumps({"format": FORMAT, "version": 1, "time": STAMP, "pods": [{}]}),
            "must hold API objects",
        ),
    ],
    ids=["no JSON", "no snapshot", "newer", "no time", "no object"],
)
def test_what_is_no_snapshot_is_refused_with_a_way_out(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InvalidValue) as caught:
        load(path)
    assert message in str(caught.value)
    assert "tramontane" in str(caught.value)


def test_an_empty_snapshot_is_one() -> None:
    empty = read(json.loads(dump(Saved({}, NOW))))
    assert replay(empty)["gangs"] == {}
