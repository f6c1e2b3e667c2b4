"""Read what a `vllm serve` process is asked for, and refuse what vLLM refuses."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commandline import Fake, StartError, make_parser, plain, read_fake, read_json

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TRUE = frozenset({"1", "true", "yes"})
_DEFAULT_LENGTH = 8192
_CONFIGS = ("config.json", "params.json")
_LENGTHS = ("max_position_embeddings", "max_seq_len", "max_sequence_length")


@dataclass(frozen=True, slots=True)
class Options:
    """Hold what the server goes by.

    Attributes:
        given: all options of the command line by name, None where they were not given.
        engines: indices of the engines (data-parallel ranks) that this process shows.
        local_engines: how many of them run on this node.
        waits_for: ranks (multi-node) or engines (data parallel) that must join this process.
        joins: address of the process that this one joins, None where it joins none.
        length: longest request and answer, in tokens.
    """

    model: str
    names: tuple[str, ...]
    host: str
    port: int
    headless: bool
    world: str
    node_rank: int
    engines: tuple[int, ...]
    local_engines: int
    listen: int | None
    waits_for: int
    joins: tuple[str, int] | None
    length: int
    slots: int
    kv_tokens: int
    block: int
    queue: int | None
    grace_s: float
    lora: bool
    lora_updates: bool
    lora_modules: tuple[tuple[str, str], ...]
    max_loras: int
    max_lora_rank: int
    tools: bool
    keys: tuple[str, ...]
    quiet: frozenset[str] | None
    ready_s: float
    weights_b: int
    faults: bool
    given: Mapping[str, Any]
    fake: Fake


def number(text: str) -> int:
    """Return the tokens of `65536`, `64k`, `64K` (binary) or `25.6k`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", text)
    if not match:
        raise StartError(f"--max-model-len: must be a number (got {text})")
    value, suffix = float(match[1]), match[2]
    if not suffix:
        return int(value)
    if suffix.isupper():
        return int(value * 1024 ** ("KMGT".index(suffix) + 1))
    return int(value * _SUFFIXES[suffix])


def read_options(words: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Return the options of `serve ...`.

    Raises:
        StartError: vLLM would not start with them.
        SystemExit: 2, with a message, for an option that vLLM does not know.
    """
    if not words or words[0] != "serve":
        raise SystemExit(f"vllm: must be asked to serve (got {shlex.join(words)})")
    parser = make_parser()
    given = vars(parser.parse_args(list(plain(words[1:]))))
    model = given["model_tag"] or given["model"]
    if not model:
        parser.error("the following arguments are required: model_tag")
    return _Reading(given, environ, model).options()


@dataclass(slots=True)
class _Reading:
    """Turn what was given into options."""

    given: Mapping[str, Any]
    environ: Mapping[str, str]
    model: str

    def _of(self, name: str, default: Any) -> Any:
        value = self.given[name]
        return default if value is None else value

    def options(self) -> Options:
        folder = Path(self.model)
        fake = read_fake(self.given, self.environ, folder)
        config = self._config(folder)
        self._check()
        nodes, rank = self._of("nnodes", 1), self._of("node_rank", 0)
        data, local, start = self._data(nodes, rank)
        headless = bool(self.given["headless"])
        # Hybrid and external balancing: each node has an API server, for its own engines.
        own = self._is_hybrid() or self._is_external()
        listen, waits_for, joins = self._meeting(nodes, rank, data, local, start)
        length, kv_tokens = self._sizes(config, fake)
        lora_updates = self.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0") in _TRUE
        servers = self._of("api_server_count", 1 if own or headless else data)
        if lora_updates and servers > 1:
            raise StartError(
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING cannot be used with api_server_count > 1"
            )
        keys = self._of("api_key", [])
        if not keys and (key := self.environ.get("VLLM_API_KEY")):
            keys = [key]
        return Options(
            model=self.model,
            names=tuple(self._of("served_model_name", [self.model])),
            host=self._of("host", "0.0.0.0"),  # noqa: S104 - as vLLM
            port=self._of("port", 8000),
            headless=headless,
            world=f"nodes={nodes} data={data} tensor={self._of('tensor_parallel_size', 1)} "
            f"pipeline={self._of('pipeline_parallel_size', 1)}",
            node_rank=rank or start,
            engines=tuple(range(start, start + local) if own else range(data)),
            local_engines=local,
            listen=listen,
            waits_for=waits_for,
            joins=joins,
            length=length,
            slots=fake.slots or self._of("max_num_seqs", 256),
            kv_tokens=kv_tokens,
            block=self._of("block_size", 16),
            queue=self.given["max_num_queued_reqs"],
            grace_s=float(self._of("shutdown_timeout", 0)),
            lora=bool(self.given["enable_lora"]),
            lora_updates=lora_updates,
            lora_modules=tuple(_lora_module(text) for text in self._of("lora_modules", ())),
            max_loras=self._of("max_loras", 1),
            max_lora_rank=self._of("max_lora_rank", 16),
            tools=bool(self.given["enable_auto_tool_choice"]),
            keys=tuple(keys),
            quiet=self._quiet(),
            ready_s=float(self.environ.get("VLLM_ENGINE_READY_TIMEOUT_S", "600")),
            weights_b=_size(folder),
            faults=self.environ.get("FAKE_VLLM_FAULTS") in _TRUE,
            given=self.given,
            fake=fake,
        )

    def _config(self, folder: Path) -> dict[str, Any]:
        """Return the model's configuration; a name that is no path has none."""
        if folder.is_file() or (not folder.exists() and not self.model.startswith(("/", "."))):
            return {}
        for name in _CONFIGS:
            if (folder / name).exists():
                return read_json(folder / name)
        raise StartError(
            f"Invalid repository ID or local directory specified: '{self.model}'. "
            "Please verify that it holds config.json or params.json"
        )

    def _check(self) -> None:
        """Refuse what vLLM refuses before it loads anything."""
        of = self._of
        if self.given["headless"] and of("api_server_count", 0) > 0:
            raise StartError(
                f"--api-server-count={of('api_server_count', 0)} cannot be used with --headless "
                "(no API servers are started in headless mode)."
            )
        if of("enable_auto_tool_choice", False) and not of("tool_call_parser", ""):
            raise StartError("Error: --enable-auto-tool-choice requires --tool-call-parser")
        if self._is_hybrid() and self._is_external():
            raise StartError("Cannot use more than one data parallel load balancing mode.")
        nodes, rank = of("nnodes", 1), of("node_rank", 0)
        if not 0 <= rank < nodes:
            raise StartError(f"node_rank must be from 0 to {nodes - 1} (got {rank})")
        world = of("tensor_parallel_size", 1) * of("pipeline_parallel_size", 1)
        if world * of("data_parallel_size", 1) % nodes:
            raise StartError(
                f"world size {world * of('data_parallel_size', 1)} must be divisible by "
                f"nnodes ({nodes})"
            )
        if self.given["headless"] and nodes > 1 and rank == 0:
            raise StartError("node rank 0 must not be headless: it is the one that serves")

    def _is_hybrid(self) -> bool:
        given = self.given
        hybrid = given["data_parallel_start_rank"] is not None and not given["headless"]
        return bool(given["data_parallel_hybrid_lb"]) or (
            hybrid and not given["data_parallel_multi_port_external_lb"]
        )

    def _is_external(self) -> bool:
        given = self.given
        return bool(given["data_parallel_external_lb"]) or given["data_parallel_rank"] is not None

    def _data(self, nodes: int, rank: int) -> tuple[int, int, int]:
        """Return how many engines there are, how many here, and the first one here."""
        of = self._of
        data = of("data_parallel_size", 1)
        if self._is_external():
            return data, 1, of("data_parallel_rank", 0)
        spread = nodes if data % nodes == 0 else 1
        local = of("data_parallel_size_local", data // spread)
        return data, local, of("data_parallel_start_rank", rank * local if spread > 1 else 0)

    def _meeting(
        self, nodes: int, rank: int, data: int, local: int, start: int
    ) -> tuple[int | None, int, tuple[str, int] | None]:
        """Return the port to listen on, how many must come there, and where to go instead.

        | nodes            | meet at                                             |
        |------------------|-----------------------------------------------------|
        | --nnodes over 1  | --master-addr:--master-port, one per node           |
        | data parallel    | --data-parallel-address:rpc port, one per engine    |
        | one              | nowhere                                             |
        """
        if nodes > 1:
            port = self._of("master_port", 29501)
            if rank == 0:
                return port, nodes - 1, None
            return None, 0, (self._of("master_addr", "127.0.0.1"), port)
        if data > local:
            port = self._of("data_parallel_rpc_port", 29550)
            if start == 0 and not self.given["headless"]:
                return port, data - local, None
            return None, 0, (self._of("data_parallel_address", "127.0.0.1"), port)
        return None, 0, None

    def _sizes(self, config: Mapping[str, Any], fake: Fake) -> tuple[int, int]:
        """Return the longest request and the tokens of the KV cache."""
        text = config.get("text_config")
        places = (config, text) if isinstance(text, dict) else (config,)
        found = [int(place[key]) for key in _LENGTHS for place in places if key in place]
        derived = found[0] if found else _DEFAULT_LENGTH
        asked = str(self._of("max_model_len", derived))
        is_auto = asked in {"auto", "-1"}
        length = derived if is_auto else number(asked)
        if found and length > derived:
            raise StartError(
                f"User-specified max_model_len ({length}) is greater than the derived "
                f"max_model_len (max_position_embeddings={derived})"
            )
        kv_tokens = fake.kv_tokens or max(4 * length, 2**18)
        if is_auto:
            return min(length, kv_tokens), kv_tokens
        if length > kv_tokens:
            raise StartError(
                f"To serve at least one request with the models's max seq len ({length}), more KV "
                "cache is needed than the available KV cache memory. Based on the available "
                f"memory, the estimated maximum model length is {kv_tokens}. Try increasing "
                "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the "
                "engine."
            )
        return length, kv_tokens

    def _quiet(self) -> frozenset[str] | None:
        """Return paths that are not in the access log; None: there is none."""
        if self.given["disable_uvicorn_access_log"]:
            return None
        return frozenset(self._of("disable_access_log_for_endpoints", "").split(","))


def _lora_module(text: str) -> tuple[str, str]:
    if text.lstrip().startswith("{"):
        module = json.loads(text)
        return str(module["name"]), str(module["path"])
    name, _, path = text.partition("=")
    return name, path


def _size(folder: Path) -> int:
    """Return the bytes of the model's files. O(files)."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
