"""The command line of fake-vllm: all of vLLM's, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from tramontane.controllers.inferencedeployment import engines
from tramontane.lab.fakevllm.commandline import StartError, known_options
from tramontane.lab.fakevllm.options import Options, number, read_options
from unit.lab.fakevllms import FOLDER, LENGTH, write_model

GOLDEN = Path(__file__).parents[1] / "inferencedeployment" / "golden" / "argv"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "model"))


def options(model: str, *words: str, **environ: str) -> Options:
    return read_options(["serve", model, *words], environ)


def golden_commands() -> list[Any]:
    found = []
    for path in sorted(GOLDEN.glob("vllm*.txt")):
        blocks = path.read_text().split("# vllm ")[1:]
        found += [pytest.param(block, id=f"{path.stem} {i}") for i, block in enumerate(blocks)]
    return found


def test_the_options_are_those_that_the_operator_knows() -> None:
    operators = Path(engines.__file__).parent / "flags" / "vllm-0.32.txt"
    assert (FOLDER / "flags.txt").read_text() == operators.read_text()
    assert len(list(known_options())) > 300


@pytest.mark.parametrize("block", golden_commands())
def test_what_the_operator_renders_is_understood(block: str, tmp_path: Path) -> None:
    lines = block.splitlines()[1:]
    command = lines[: lines.index("")] if "" in lines else lines
    environ = dict(line.split("=", 1) for line in lines[len(command) :] if "=" in line)
    model = write_model(tmp_path / "model")
    (model / "config.json").write_text("{}")
    assert command[:2] == ["vllm", "serve"]
    read_options(["serve", str(model), *command[3:]], environ)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        pytest.param([], "port", 8000, id="default port"),
        pytest.param(["--port=9000"], "port", 9000, id="equals sign"),
        pytest.param(["--max_model_len", "1k"], "length", 1000, id="underscores, suffix"),
        pytest.param(["--max-model-len", "1K"], "length", 1024, id="binary suffix"),
        pytest.param(["--max-model-len", "auto"], "length", LENGTH, id="auto"),
        pytest.param(["--fake-kv-tokens", "500", "--max-model-len", "auto"], "length", 500,
                     id="auto takes what the cache holds"),
        pytest.param(["-tp", "8"], "world", "nodes=1 data=1 tensor=8 pipeline=1", id="alias"),
        pytest.param(["--max-num-seqs", "4"], "slots", 4, id="slots"),
        pytest.param(["--max-num-seqs", "4", "--fake-slots", "2"], "slots", 2, id="fewer slots"),
        pytest.param(["--shutdown-timeout", "30"], "grace_s", 30.0, id="grace"),
        pytest.param(["--kv-transfer-config.kv_role", "kv_both"], "port", 8000, id="key of JSON"),
        pytest.param(["-cc.mode=3"], "port", 8000, id="key of JSON, short"),
        pytest.param(["--lora-modules", "a=/x", '{"name": "b", "path": "/y"}'], "lora_modules",
                     (("a", "/x"), ("b", "/y")), id="adapters"),
        pytest.param(["--disable-access-log-for-endpoints", "/health,/metrics"], "quiet",
                     {"/health", "/metrics"}, id="quiet paths"),
        pytest.param(["--disable-uvicorn-access-log"], "quiet", None, id="no access log"),
        pytest.param(["--no-enable-lora"], "lora", False, id="negated"),
        pytest.param(["--data-parallel-size", "4"], "engines", (0, 1, 2, 3), id="engines"),
    ],
)  # fmt: skip
def test_an_option_is_read(model: str, words: list[str], field: str, value: object) -> None:
    assert getattr(options(model, *words), field) == value


_DATA = ("--data-parallel-size", "16", "--data-parallel-size-local", "8",
         "--data-parallel-address", "10.0.0.1")  # fmt: skip
_NODES = ("--tensor-parallel-size", "16", "--nnodes", "2", "--master-addr", "10.0.0.1")


@pytest.mark.parametrize(
    ("words", "meeting"),
    [
        pytest.param([], (None, 0, None, 0, 1), id="alone"),
        pytest.param([*_NODES, "--node-rank", "0"], (29501, 1, None, 0, 1), id="rank 0"),
        pytest.param([*_NODES, "--node-rank", "1", "--headless", "--master-port", "7"],
                     (None, 0, ("10.0.0.1", 7), 1, 1), id="rank 1"),
        pytest.param([*_DATA], (29550, 8, None, 0, 16), id="data parallel, first"),
        pytest.param([*_DATA, "--headless", "--data-parallel-start-rank", "8"],
                     (None, 0, ("10.0.0.1", 29550), 8, 16), id="data parallel, second"),
        pytest.param([*_DATA, "--data-parallel-hybrid-lb", "--data-parallel-start-rank", "8"],
                     (None, 0, ("10.0.0.1", 29550), 8, 8), id="hybrid: own engines"),
        pytest.param(["--data-parallel-size", "2", "--data-parallel-rank", "1"],
                     (None, 0, ("127.0.0.1", 29550), 1, 1), id="external"),
        pytest.param(["--data-parallel-size", "16", "--nnodes", "2"],
                     (29501, 1, None, 0, 16), id="data parallel over nodes"),
    ],
)  # fmt: skip
def test_who_meets_where(model: str, words: list[str], meeting: tuple[object, ...]) -> None:
    """Port, how many come there, where to go instead, own rank, engines that are shown."""
    found = options(model, *words)
    assert meeting == (
        found.listen,
        found.waits_for,
        found.joins,
        found.node_rank,
        len(found.engines),
    )


@pytest.mark.parametrize(
    ("words", "environ", "message"),
    [
        pytest.param(["--max-model-len", "4097"], {}, "greater than the derived", id="too long"),
        pytest.param(["--max-model-len", "x"], {}, "must be a number", id="no number"),
        pytest.param(["--fake-kv-tokens", "100"], {}, "estimated maximum model length is 100",
                     id="the cache is too small"),
        pytest.param(["--headless", "--api-server-count", "1"], {}, "cannot be used with",
                     id="headless with servers"),
        pytest.param(["--data-parallel-size", "2"], {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
                     "api_server_count > 1", id="adapters with several servers"),
        pytest.param(["--enable-auto-tool-choice"], {}, "requires --tool-call-parser",
                     id="tools without a parser"),
        pytest.param(["-tp", "3", "--nnodes", "2"], {}, "divisible", id="ranks on no nodes"),
        pytest.param(["--nnodes", "2", "-tp", "2", "--node-rank", "2"], {}, "from 0 to 1",
                     id="rank beyond"),
        pytest.param(["--nnodes", "2", "-tp", "2", "--headless"], {}, "must not be headless",
                     id="rank 0 without a server"),
        pytest.param([], {"FAKE_VLLM_TTFT": "soon"}, "must be float", id="no time"),
        pytest.param(["--fake-itl", "0"], {}, "over 0", id="no step"),
        pytest.param(["--data-parallel-rank", "0", "--data-parallel-hybrid-lb"], {},
                     "more than one", id="two ways to balance"),
    ],
)  # fmt: skip
def test_what_vllm_refuses(
    model: str, words: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(StartError, match=message):
        options(model, *words, **environ)


@pytest.mark.parametrize(
    "words",
    [["--no-such"], ["--port", "x"], ["--port"], ["--max-model", "5"], ["a", "b"]],
    ids=["unknown", "no number", "no value", "abbreviated", "two models"],
)
def test_what_argparse_refuses(
    model: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        options(model, *words)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="Invalid repository ID or local directory"):
        options(str(tmp_path))


def test_only_serve_is_known() -> None:
    with pytest.raises(SystemExit, match="asked to serve"):
        read_options(["bench"], {})


def test_the_behaviour_comes_from_the_nearest_place(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "model", ttft=3, itl=3, tokens=3))
    fake = options(model, "--fake-ttft", "1", FAKE_VLLM_TTFT="2", FAKE_VLLM_ITL="2").fake
    assert (fake.ttft, fake.itl, fake.tokens, fake.slots) == (1.0, 2.0, 3, 0)


@pytest.mark.parametrize(
    ("text", "value"), [("8192", 8192), ("64k", 64_000), ("64K", 65_536), ("25.6k", 25_600)]
)
def test_numbers_for_people(text: str, value: int) -> None:
    assert number(text) == value
