"""Flags are read from the engines' sources, and written as data."""

from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.inferencedeployment.engines import readflags
from tramontane.controllers.inferencedeployment.engines.flagtable import (
    Flag,
    Takes,
    merged,
    parsed,
)

VLLM: Final = {
    "vllm/engine/arg_utils.py": """
class EngineArgs:
    def add_cli_args(parser):
        parallel_kwargs = get_kwargs(ParallelConfig)
        group = parser.add_argument_group(title="Parallel")
        group.add_argument("--tensor-parallel-size", "-tp", **parallel_kwargs["tensor"])
        group.add_argument("--enable-expert-parallel", **parallel_kwargs["expert"])
        group.add_argument("--numa", **{**parallel_kwargs["numa"], "default": None})
        group.add_argument("--token", **parallel_kwargs["token"])
        group.add_argument("--enable-lora", action=argparse.BooleanOptionalAction)
        group.add_argument("--dpm", action="store_true")
        group.add_argument("--names", nargs="+", type=str)
        group.add_argument("positional", nargs="?")
""",
    "vllm/config/parallel.py": """
class ParallelConfig:
    tensor: int = 1
    expert: Annotated[bool, "help"] = False
    numa: list[int] | None = None
    token: bool | str | None = None
""",
    "vllm/entrypoints/cli_args.py": """
class BaseFrontendArgs:
    allowed_origins: list[str] = field(default_factory=list)
    lora_modules: list[str] | None = None

class FrontendArgs(BaseFrontendArgs):
    port: int = 8000
    middleware: list[str] = []
    access_log: bool = True

    def customize(kwargs):
        del kwargs["allowed_origins"]["nargs"]
        kwargs["middleware"]["action"] = "append"

def make_arg_parser(parser):
    parser.add_argument("--headless", action="store_true", default=False)
""",
}

SGLANG: Final = {
    "sglang/srt/arg_groups/fields/parallel.py": """
class Parallel:
    _NS_PATH = "parallel"
    tp_size: A[int, Arg(help="h", aliases=["--tensor-parallel-size"])] = 1
    nnodes: A[int, "help"] = 1
    enable_metrics: A[bool, "help"] = False
    sizes: A[Optional[List[int]], "help"] = None
    json: A[Optional[List[int]], Arg(help="h", type_parser=json_list)] = None
    renamed: A[str, Arg(help="h", cli_name="--other")] = ""
    hidden: A[bool, Arg(no_cli=True)] = False
    rank: A[int, Derived("of no command line")]
    plain: Optional[str] = None
""",
    "sglang/srt/server_args.py": """
def add_cli_args(parser):
    parser.add_argument("--sampling-backend", type=str)
    parser.add_argument("--old", action=DeprecatedStoreTrueAction, new_flag="--new")
""",
}

LLAMA: Final = {
    "vendor/llama.cpp/common/arg.cpp": r"""
common_params_context common_params_parser_init(common_params & params, llama_example ex) {
    add_opt(common_arg(
        {"-c", "--ctx-size"}, "N",
        string_format("size, in \"tokens\" (default: %d)", params.n_ctx),
        [](common_params & params, int value) {
            if (value == 0) { params.fit = f(1, 2); } // a comment, with a )
        }
    ).set_env("LLAMA_ARG_CTX_SIZE"));
    add_opt(common_arg(
        {"--mmap"},
        {"--no-mmap"},
        "map, or not",
        [](common_params & params, bool value) { params.sign = ','; }
    ));
    add_opt(common_arg({"--metrics"}, "help", [](common_params & params) { /* ) */ }
    ).set_examples({LLAMA_EXAMPLE_SERVER}).set_env("X"));
    add_opt(common_arg({"--perplexity"}, "help", [](common_params & params) {}
    ).set_examples({LLAMA_EXAMPLE_PERPLEXITY}));
    add_opt(common_arg({"--not-here"}, "help", [](common_params & params) {}
    ).set_excludes({LLAMA_EXAMPLE_SERVER}));
    add_opt(common_arg({"--range"}, "FROM", "TO", "help", [](common_params & p, s a, s b) {}));
}
    add_opt(common_arg({"--after-the-end"}, "help", [](common_params & params) {}));
""",
}

PYTHON: Final = {
    "llama_cpp/server/settings.py": """
class ModelSettings(BaseSettings):
    n_ctx: int = Field(default=2048)
    cache: bool = Field(default=False)
    tensor_split: Optional[List[float]] = Field(default=None)

class Other:
    not_this: int = 1
""",
    "llama_cpp/server/__main__.py": 'parser.add_argument("--config_file", type=str)',
}

READ: Final = {
    "vllm": (VLLM, """
--access-log --no-access-log
--allowed-origins VALUE
--dpm
--enable-expert-parallel --no-enable-expert-parallel
--enable-lora --no-enable-lora
--headless
--lora-modules VALUE...
--middleware VALUE
--names VALUE...
--numa VALUE...
--port VALUE
--tensor-parallel-size -tp VALUE
--token [VALUE]
"""),
    "sglang": (SGLANG, """
--enable-metrics
--json VALUE
--nnodes VALUE
--old
--other VALUE
--sampling-backend VALUE
--sizes VALUE...
--tp-size --tensor-parallel-size VALUE
"""),
    "llamacpp": (LLAMA, """
--ctx-size -c VALUE
--metrics
--mmap --no-mmap
--range VALUE...
"""),
    "llamacpp-python": (PYTHON, """
--cache VALUE
--config_file VALUE
--n_ctx VALUE
--tensor_split [VALUE...]
"""),
}  # fmt: skip


def laid_out(folder: Path, sources: dict[str, str]) -> Path:
    for name, text in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("engine", READ)
def test_flags_are_read_from_a_source(engine: str, tmp_path: Path) -> None:
    sources, wanted = READ[engine]
    text = readflags.file_of(engine, "1.2.3", laid_out(tmp_path, sources))
    head, _, flags = text.partition("\n")
    assert head == f"# {engine} 1.2.3: read from its source by readflags.py; do not edit."
    assert flags == wanted.lstrip("\n")


def test_vllm_pairs_enable_with_disable_since_it_has_an_action_for_it(tmp_path: Path) -> None:
    action = {"vllm/utils/argparse_utils.py": "class EnableDisableAction(Action): pass"}
    lines = readflags.file_of("vllm", "9", laid_out(tmp_path, VLLM | action)).splitlines()
    assert "--enable-lora --no-enable-lora --disable-lora" in lines
    assert "--dpm" in lines


@pytest.mark.parametrize(
    ("engine", "words"),
    [("vllm", "arg_utils.py"), ("llamacpp", "must have one common/arg.cpp")],
)
def test_a_folder_without_the_source_is_refused(engine: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=words):
        readflags.file_of(engine, "1", tmp_path)


def test_the_command_prints_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laid_out(tmp_path, PYTHON)
    assert readflags.main(["llamacpp-python", "0.3.36", str(tmp_path)]) == 0
    assert "--n_ctx VALUE\n" in capsys.readouterr().out


def test_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert readflags.main(["ollama", "1", "."]) == 64
    assert "usage" in capsys.readouterr().err


FLAGS = st.builds(
    Flag,
    st.lists(st.from_regex(r"--?[a-z][a-z0-9-]{0,9}", fullmatch=True), min_size=1, max_size=3)
    .map(tuple),
    st.sampled_from(Takes),
)  # fmt: skip


@given(FLAGS)
def test_a_line_reads_back_as_the_flag_it_was_written_from(flag: Flag) -> None:
    table = parsed(f"# a comment\n\n{flag}\n")
    assert table == dict.fromkeys(flag.spellings, flag)


def test_a_flag_that_is_named_twice_is_one_with_all_spellings() -> None:
    twice = [Flag(("--b",)), Flag(("--a", "-a"), Takes.ONE), Flag(("--a", "-x"), Takes.ONE)]
    assert merged(twice) == [Flag(("--a", "-a", "-x"), Takes.ONE), Flag(("--b",))]


FILES = {
    path.name: path.read_text()
    for path in (
        files("tramontane.controllers.inferencedeployment.engines") / "flags"
    ).iterdir()
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_are_as_the_reader_writes_them(name: str) -> None:
    head, *lines = FILES[name].splitlines()
    kind, version = head.removeprefix("# ").partition(":")[0].rsplit(" ", 1)
    assert name.removesuffix(".txt") in f"{kind}-{version}"
    assert [str(flag) for flag in merged(parsed(FILES[name]).values())] == lines
    assert len(lines) > 50


# What reference documents name; a reader that loses one of these is broken.
NAMED = {
    "vllm": """--served-model-name --tensor-parallel-size --port --nnodes --node-rank --master-addr
        --master-port --headless --distributed-executor-backend --data-parallel-backend
        --data-parallel-size --data-parallel-size-local --data-parallel-address
        --data-parallel-rpc-port --enable-expert-parallel --api-server-count
        --data-parallel-start-rank --data-parallel-hybrid-lb --data-parallel-rank
        --data-parallel-external-lb --data-parallel-multi-port-external-lb
        --enable-fault-tolerance --enable-elastic-ep --all2all-backend --enable-eplb --eplb-config
        --enable-ep-weight-filter --kv-transfer-config --gpu-memory-utilization
        --kv-cache-memory-bytes --max-model-len --max-num-queued-reqs --kv-offloading-size
        --load-format --tokenizer-mode --config-format --enable-auto-tool-choice
        --tool-call-parser --shutdown-timeout --max-lora-rank
        --disable-access-log-for-endpoints""",
    "sglang": """--model-path --tp-size --nnodes --node-rank --dist-init-addr --host --port
        --enable-metrics --ep-size --dp-size --enable-dp-attention --moe-a2a-backend
        --elastic-ep-backend --disaggregation-mode""",
    "llamacpp": "-m -c --parallel --metrics --port",
    "llamacpp-python": "--model --n_ctx --host --port",
}


@pytest.mark.parametrize("name", FILES)
def test_what_the_documents_name_is_there(name: str) -> None:
    kind = name.rpartition("-")[0]
    assert set(NAMED[kind].split()) <= set(parsed(FILES[name]))
