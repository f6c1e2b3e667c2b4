"""`tramontane plan`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tramontane.cli.main import main
from unit.inferencedeployment.sizes import MODELS, config

Raw = dict[str, Any]
LARGE = "mistral-large-3-fp8"
DOCUMENT = Path(__file__).parents[3] / "docs" / "inference-plan.md"


def deployment(**spec: Any) -> Raw:
    return {
        "apiVersion": "tramontane.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": "claims", "namespace": "insurer-a"},
        "spec": {
            "nodePool": "paris-a",
            "model": {"source": {"hostPath": "/models/m"}, "config": config(LARGE)},
            "engine": {"name": "vllm", "image": "registry.local/vllm:0.32"},
            "capacity": {"contextTokens": 8192, "concurrentRequests": 8},
            **spec,
        },
    }


def nodepool(name: str = "paris-a", **gpu: Any) -> Raw:
    selector = {"matchLabels": {"gpu": "h200"}}
    return {
        "apiVersion": "tramontane.dev/v1alpha1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"nodeSelector": selector, "gpu": {"count": 8, "memory": "141Gi", **gpu}},
    }


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "model.yaml"


def run(manifest: Path, *arguments: str, of: Raw | list[Raw] | str | None = None) -> Result:
    content = deployment() if of is None else of
    if not isinstance(content, str):
        content = yaml.safe_dump_all(content if isinstance(content, list) else [content])
    manifest.write_text(content)
    done = CliRunner().invoke(main, ["plan", "-f", str(manifest), *arguments])
    assert "Traceback" not in done.output
    return done


def test_a_plan_says_layout_and_sum(manifest: Path) -> None:
    done = run(manifest, "--gpu", "H200")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:7] == [
        "Deployment: insurer-a/claims",
        "Asks for:   8 requests of 8,192 tokens",
        "GPUs:       8 x H200",
        "Layout:     TP8 (8 GPUs on 1 blade)",
        "Weights:    79.2 GiB each, 633.6 GiB in all",
        "KV tokens:  600,720",
        "Requests:   73",
    ]
    assert "Why:        TP8 (8 GPUs on 1 blade): 126.4 GiB usable of 140.4 - 79.2" in done.output


def test_what_does_not_fit_says_what_would(manifest: Path) -> None:
    done = run(manifest, "--gpu", "h100", "--blades", "1")
    assert done.exit_code == 3, done.output
    assert "Reason:     DoesNotFit" in done.output
    assert "nearest: TP8xPP2 (16 GPUs on 2 blades)" in done.output


def test_without_a_pool_the_kinds_are_compared(manifest: Path) -> None:
    done = run(manifest, "--blades", "1")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith("8 x ")]
    assert [(row[2], row[3]) for row in rows] == [
        ("H100", "DoesNotFit"),
        ("H200", "yes"),
        ("B200", "yes"),
        ("B300", "yes"),
        ("H100:", "must"),
    ]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_for_programs(manifest: Path, output: str) -> None:
    done = run(manifest, "--blades", "1", "-o", output)
    answer = json.loads(done.output) if output == "json" else yaml.safe_load(done.output)
    assert answer["deployment"] == "insurer-a/claims"
    h100, h200, _, b300 = answer["plans"]
    assert (h100["fits"], h100["reason"]) == (False, "DoesNotFit")
    assert h100["nearest"]["nodesPerReplica"] == 2
    assert h200["plan"]["layout"] == "TP8"
    assert h200["plan"]["kvTokens"] == 600_720
    assert int(h200["plan"]["weightsPerGPU"]) > 79 * 2**30
    assert b300["plan"]["gpusPerReplica"] == 4


@pytest.mark.parametrize(
    ("beside", "gpus"),
    [
        pytest.param([nodepool()], "8 x H200", id="by memory"),
        pytest.param([nodepool(product="NVIDIA-B300")], "8 x B300", id="by product"),
        pytest.param([nodepool("other", product="NVIDIA-H100")], "8 x H100", id="the only one"),
        pytest.param([nodepool("x", product="NVIDIA-H100"), nodepool()], "8 x H200", id="named"),
    ],
)
def test_the_pool_of_a_file(manifest: Path, tmp_path: Path, beside: list[Raw], gpus: str) -> None:
    assert f"GPUs:       {gpus}" in run(manifest, of=[deployment(), *beside]).output
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump_all(beside))
    assert f"GPUs:       {gpus}" in run(manifest, "--pool", str(path)).output


def test_the_configuration_of_a_file(manifest: Path) -> None:
    bare = deployment(model={"source": {"hostPath": "/models/m"}})
    done = run(manifest, "--gpu", "h200", of=bare)
    assert done.exit_code == 3
    assert "model.config must be given" in done.output
    path = str(MODELS / "llama-3.3-70b.json")
    done = run(manifest, "--gpu", "h200", "--config", path, of=bare)
    assert "Layout:     TP2 (2 GPUs on 1 blade)" in done.output


def test_a_host_without_gpus(manifest: Path) -> None:
    small = config("ministral-3-3b-fp8", quantization_config={"quant_method": "gguf", "bits": 4})
    at_the_edge = deployment(
        profile="Edge",
        engine={"name": "llamacpp", "image": "registry.local/llamacpp:1"},
        model={"source": {"hostPath": "/models/m"}, "config": small},
        capacity={"contextTokens": 8192, "concurrentRequests": 1},
    )
    assert "Layout:     CPU" in run(manifest, "--ram", "4Gi", of=at_the_edge).output
    done = run(manifest, "--ram", "2Gi", of=at_the_edge)
    assert done.exit_code == 3
    assert "GPUs:       no GPU" in done.output


@pytest.mark.parametrize(
    ("of", "arguments", "message"),
    [
        pytest.param("{", [], "must be YAML", id="no YAML"),
        pytest.param("", [], "must have one InferenceDeployment (got nothing)", id="empty"),
        pytest.param([nodepool()], [], "InferenceDeployment (got NodePool)", id="another kind"),
        pytest.param([deployment(), deployment()], [], "must have one", id="two"),
        pytest.param(deployment(capacity={}), [], "spec.capacity.contextTokens", id="not valid"),
        pytest.param(None, ["--gpu", "h9000"], "--gpu must be one of a100-40gb, ", id="GPU"),
        pytest.param(None, ["--gpu", "h9000"], "write a NodePool with", id="and what to do"),
        pytest.param(None, ["--ram", "much"], "must be a Kubernetes quantity", id="quantity"),
        pytest.param(None, ["--pool", "/nowhere"], "does not exist", id="no such file"),
        pytest.param(None, ["--gpus-per-blade", "0"], "0 is not in the range", id="no GPUs"),
        pytest.param(
            [deployment(), nodepool("a"), nodepool("b")], [], "must have one NodePool", id="pools"
        ),
    ],
)  # fmt: skip
def test_no_answer(
    manifest: Path, of: Raw | list[Raw] | str | None, arguments: list[str], message: str
) -> None:
    done = run(manifest, *arguments, of=of)
    assert done.exit_code == (2 if arguments else 1), done.output
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "must be JSON", id="no JSON"),
        pytest.param("[]", "model.config: Input should be a valid dict", id="a list"),
        pytest.param('"' + "x" * (1 << 20) + '"', "at most 1,048,576 bytes", id="huge"),
    ],
)
def test_no_configuration(manifest: Path, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    done = run(manifest, "--gpu", "h200", "--config", str(path))
    assert done.exit_code == 1, done.output
    assert message in " ".join(done.output.split())


def test_pool_and_gpu_are_one_too_many(manifest: Path, tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump(nodepool()))
    done = run(manifest, "--pool", str(path), "--gpu", "h200")
    assert done.exit_code == 2
    assert "give --pool or --gpu, not both" in done.output


def test_the_document_shows_what_is_printed(manifest: Path) -> None:
    document = " ".join(DOCUMENT.read_text().split())
    asked = deployment(capacity={"contextTokens": 65_536, "concurrentRequests": 32})
    for arguments in ([], ["--gpu", "h200", "--blades", "1"]):
        assert " ".join(run(manifest, *arguments, of=asked).output.split()) in document


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from tramontane.cli.main import main\n"
        "try:\n    main(['plan', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'kubernetes', 'pydantic', 'rich', 'numpy', 'yaml', 'asyncio'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"
