"""The documents name what exists: reasons, files, headings, make targets, decisions."""

import re
from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tramontane.api import reasons as api_reasons
from tramontane.api.inferencedeployment import InferenceDeployment, Profile
from tramontane.api.inferencestatus import InferenceDeploymentStatus
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.inferencedeployment import edge
from tramontane.controllers.inferencedeployment.metrics import DeploymentMetrics
from tramontane.controllers.inferencedeployment.plan import plan
from tramontane.controllers.inferencedeployment.world import World
from tramontane.controllers.trainingjob.validate import problem_of
from tramontane.lab.manual import reasons

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXAMPLES = [
    *(ROOT / name for name in ("README.md", "docs/serving.md")),
    *sorted((ROOT / "docs" / "examples").glob("*.yaml")),
]
MAX_DECISION_LINES = 40
MIN_WALK = 30


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_relative_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_paths_in_backquotes_exist(path: Path) -> None:
    """Paths below a folder of the repository, as in `operator/tramontane/api/reasons.py`."""
    folders = "operator|scheduler|health|lab|crds|charts|docs|tests"
    named_paths = re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(path))
    assert not [name for name in named_paths if not (ROOT / name).exists()]


def test_the_walk_names_what_is_in_the_files() -> None:
    """As in `a/b.py`: `function`, `Class`; each must be defined in that file."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    walk = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", text)
    assert len(walk) > MIN_WALK
    for path, quoted in walk:
        source = (ROOT / path).read_text()
        for name in re.findall(r"\w+", quoted):
            defined = rf"^ *(?:async )?(?:def|class) {name}\b"
            assert re.search(defined, source, re.MULTILINE), f"{path}: {name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = set(re.findall(r"(?<=`)make ([a-z-]+)", path.read_text()))
    asked |= set(re.findall(r"^(?:[A-Z_]+=\S+ )*make ([a-z-]+)", path.read_text(), re.MULTILINE))
    assert asked <= targets


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_the_operator_finds_no_fault_with_the_examples(path: Path) -> None:
    """What the schema accepts is shown on a real API server, in tests/plane/test_chart.py."""
    checks = {"TrainingJob": problem_of_job, "InferenceDeployment": problem_of_deployment}
    found = [item for item in objects_in(path) if item["kind"] in checks]
    assert found or path.name.startswith("nodepool")
    for item in found:
        assert checks[item["kind"]](item) is None


def objects_in(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a YAML file, or of a document's YAML blocks."""
    text = path.read_text()
    if path.suffix == ".md":
        text = "\n---\n".join(re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    yield from yaml.safe_load_all(text)


def problem_of_job(raw: dict[str, Any]) -> str | None:
    return problem_of(TrainingJob.model_validate(raw))


def problem_of_deployment(raw: dict[str, Any]) -> str | None:
    return planned(raw).message


def planned(raw: dict[str, Any]) -> InferenceDeploymentStatus:
    """Return what the planner says of it: in the example's pool, or on a box of 8 GiB."""
    deployment = InferenceDeployment.model_validate(raw)
    pool = NodePool.model_validate(next(objects_in(ROOT / "docs" / "examples" / "nodepool.yaml")))
    nodes: Any = {"box": SimpleNamespace(memory_b=8 * 2**30)}
    world = World(0.0, deployment, pools={pool.metadata.name: pool}, nodes=nodes)
    is_edge = deployment.spec.profile is Profile.EDGE
    return edge.plan(world, None).status if is_edge else plan(world).status


def test_the_figures_about_serving_are_the_planner_s() -> None:
    path = ROOT / "docs" / "serving.md"
    text = " ".join(path.read_text().split())
    first = planned(next(objects_in(path))).plan
    bank = planned(next(objects_in(ROOT / "docs" / "examples" / "inference-hall.yaml"))).plan
    assert first is not None
    assert bank is not None
    assert first.gpus_per_replica == 1
    assert f"here one GPU, {first.concurrent_requests} requests" in text
    place = f"{bank.gpus_per_replica} GPUs on {bank.nodes_per_replica} blades"
    assert f"`{bank.layout} ({place})`, {int(bank.weights_per_gpu or 0) / 2**30:.1f} GiB" in text


def test_the_metrics_of_deployments_are_all_explained() -> None:
    text = (ROOT / "docs" / "serving.md").read_text()
    listed = re.findall(r"^\| (`tramontane_inference_.*?) \|", text, re.MULTILINE)
    words = {
        word for row in listed for word in re.findall(r"`(?:tramontane_inference)?_(\w+)", row)
    }
    families = {
        family.name.removeprefix("tramontane_inference_") + "_total" * (family.type == "counter")
        for family in DeploymentMetrics().collect()
    }
    assert words == families


@pytest.mark.parametrize(
    "section", reasons.LISTS, ids=lambda section: reasons.LISTS[section].__name__
)
def test_every_reason_has_its_place_and_its_way_out(section: str) -> None:
    text = (ROOT / "docs" / "reasons.md").read_text()
    _, _, rest = text.partition(f"\n## {section}\n")
    body, _, _ = rest.partition("\n## ")
    entries = re.split(r"^### ", body, flags=re.MULTILINE)[1:]
    assert [entry.split("\n", 1)[0] for entry in entries] == [
        reason.value for reason in reasons.LISTS[section]
    ]
    for entry in entries:
        meaning, _, way_out = entry.partition("**Way out:**")
        assert len(meaning.split()) > 3, entry
        assert way_out.strip(), entry


def test_no_list_of_reasons_is_forgotten() -> None:
    lists = [one for one in vars(api_reasons).values() if isinstance(one, EnumMeta)]
    assert [*reasons.LISTS.values()] == [one for one in lists if len(one)]


def test_decisions_are_numbered_short_and_complete() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [file.name[:4] for file in files] == [
        f"{number:04}" for number in range(1, len(files) + 1)
    ]
    for file in files:
        text = file.read_text()
        assert len(text.splitlines()) <= MAX_DECISION_LINES, file.name
        assert text.startswith(f"# {int(file.name[:4])}. ")
        for part in ("Context", "Decision", "Consequences", "What would change our mind"):
            assert f"**{part}.**" in text, f"{file.name}: {part}"


def test_the_architecture_links_every_decision() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for file in (ROOT / "docs" / "decisions").glob("*.md"):
        assert f"decisions/{file.name}" in text
