"""Know the command line of `vllm serve`, and what makes the fake one quick, slow or faulty.

What the fake is asked for comes from `--fake-NAME`, else `FAKE_VLLM_NAME` in the environment, else
`fake-vllm.json` in the model's folder: so a fault can belong to a pod, a blade or a revision.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_INTEGERS = (
    "api-server-count", "block-size", "data-parallel-rank", "data-parallel-rpc-port",
    "data-parallel-size", "data-parallel-size-local", "data-parallel-start-rank", "master-port",
    "max-lora-rank", "max-loras", "max-num-queued-reqs", "max-num-seqs", "nnodes", "node-rank",
    "pipeline-parallel-size", "port", "shutdown-timeout", "tensor-parallel-size",
)  # fmt: skip


class StartError(Exception):
    """Say why the server does not start; vLLM ends with 1 then."""


@dataclass(frozen=True, slots=True)
class Fake:
    """Say how the fake engine behaves. Times are in seconds.

    Attributes:
        ttft: from the moment that a request gets its slot to its first token.
        prefill: on top of it, per 1,000 tokens of the prompt.
        itl: between tokens: the length of a step.
        tokens: of an answer, unless the request asks for fewer.
        load: of loading any model; `load_per_gib` is added for each GiB of its files.
        slots: requests that run at once, per engine; 0: as --max-num-seqs says.
        kv_tokens: tokens in the KV cache, per engine; 0: plenty.
        lora_load: of loading one adapter.
        rank_loss: what a lost rank means: `die` (exit code 1) or `hang` (steps freeze).
        rank_loss_after: from the loss to the death; `silent_after`: without a sign of life from a
            rank, its steps freeze until there is one.
        join: how long ranks wait for each other.
        start_fault: `oom` ends with 1 while loading, `never` loads for ever.
        fault_file: a file whose first word is a start_fault; read once, may be missing.
        errors: part of the requests that are answered with 500, 0 to 1.
        queue_full_status: of a request beyond --max-num-queued-reqs; 0.32 itself says 503.
        salt: changes the words of all answers.
        version: of vLLM, as told.
    """

    ttft: float = 0.05
    prefill: float = 0.0
    itl: float = 0.01
    tokens: int = 16
    load: float = 0.0
    load_per_gib: float = 0.0
    slots: int = 0
    kv_tokens: int = 0
    lora_load: float = 0.0
    rank_loss: str = "die"
    rank_loss_after: float = 1.0
    silent_after: float = 3.0
    join: float = 600.0
    start_fault: str = ""
    fault_file: str = ""
    errors: float = 0.0
    queue_full_status: int = 429
    salt: str = ""
    version: str = "0.32.0"


def known_options() -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, kind and aliases of each option of `vllm serve`.

    | line                     | kind     |
    |--------------------------|----------|
    | --headless               | flag     |
    | --enable-x --no-enable-x | toggle   |
    | --port VALUE             | value    |
    | --api-key VALUE...       | list     |
    | --hf-token [VALUE]       | optional |
    """
    kinds = {"VALUE": "value", "VALUE...": "list", "[VALUE]": "optional"}
    text = Path(__file__).with_name("flags.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("-"):
            continue
        name, *rest = line.split()
        negated = f"--no-{name[2:]}"
        kind = "toggle" if negated in rest else kinds.get(rest[-1] if rest else "", "flag")
        yield name, kind, [one for one in rest if one.startswith("-") and one != negated]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `vllm serve` with the fake's own options."""
    parser = argparse.ArgumentParser(
        prog="vllm serve", usage="vllm serve [model_tag] [options]", allow_abbrev=False
    )
    parser.add_argument("model_tag", nargs="?")
    for name, kind, aliases in known_options():
        how: dict[str, Any] = {"default": None}
        if kind == "flag":
            how["action"] = "store_true"
        elif kind == "toggle":
            how["action"] = argparse.BooleanOptionalAction
        elif kind != "value":
            how["nargs"] = "+" if kind == "list" else "?"
        if name[2:] in _INTEGERS:
            how["type"] = int
        parser.add_argument(name, *aliases, **how)
    group = parser.add_argument_group("fake-vllm", Fake.__doc__)
    for field in fields(Fake):
        group.add_argument(f"--fake-{field.name.replace('_', '-')}", default=None)
    return parser


def plain(words: Sequence[str]) -> Iterator[str]:
    """Yield the words as argparse knows them.

    vLLM takes `--max_model_len` for `--max-model-len`, and keys of a JSON option one by one
    (`--kv-transfer-config.kv_role X`); these are dropped here.
    """
    known = {name for name, *_ in known_options()}
    known |= {alias for *_, aliases in known_options() for alias in aliases}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            name = name.replace("_", "-")
        if word.startswith("-") and "." in name and name.split(".")[0] in known:
            if not equals:
                next(rest, None)
            continue
        yield name + equals + value if word.startswith("--") else word


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_fake(given: Mapping[str, Any], environ: Mapping[str, str], model: Path) -> Fake:
    """Return how to behave, from the command line, the environment and the model's folder.

    Raises:
        StartError: a value is not of its type.
    """
    file = read_json(model / "fake-vllm.json")
    found: dict[str, Any] = {}
    for field in fields(Fake):
        for value in (
            given.get(f"fake_{field.name}"),
            environ.get(f"FAKE_VLLM_{field.name.upper()}"),
            file.get(field.name),
        ):
            if value is not None:
                kind: Any = type(field.default)
                try:
                    found[field.name] = kind(value)
                except ValueError as error:
                    raise StartError(
                        f"fake {field.name}: must be {kind.__name__} (got {value})"
                    ) from error
                break
    fake = Fake(**found)
    if fake.itl <= 0:
        raise StartError(f"fake itl: must be over 0 (got {fake.itl})")
    return fake
