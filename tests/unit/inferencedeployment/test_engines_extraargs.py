"""Which arguments of people's own are refused, why, and what to do about it."""

import pytest

from tramontane.controllers.inferencedeployment.engines.extraargs import check
from unit.inferencedeployment.engines import data

ENGINES = {
    "vllm": ("vllm", "0.32"),
    "newest vllm": ("vllm", "0.33"),
    "sglang": ("sglang", "0.5.23"),
    "llamacpp": ("llamacpp", "0.5"),
    "llamacpp-python": ("llamacpp", "python-0.3"),
    "custom": ("custom", None),
}

ACCEPTED = {
    "nothing": ("vllm", []),
    "a switch": ("vllm", ["--enforce-eager"]),
    "its opposite": ("vllm", ["--no-enforce-eager"]),
    "a value": ("vllm", ["--kv-cache-dtype", "fp8"]),
    "a value inline": ("vllm", ["--kv-cache-dtype=fp8"]),
    "an empty value inline": ("vllm", ["--chat-template="]),
    "underscores": ("vllm", ["--kv_cache_dtype", "fp8"]),
    "a negative number": ("vllm", ["--seed", "-1"]),
    "a list": ("vllm", ["--cudagraph-capture-sizes", "1", "2", "4"]),
    "a key of JSON": ("vllm", ["--kv-transfer-config.kv_role", "kv_both"]),
    "JSON": ("vllm", ["--speculative-config", '{"method": "ngram"}']),
    "a level": ("vllm", ["-O3", "--seed", "1"]),
    "short": ("vllm", ["-dcp", "2"]),
    "an optional value, and none": ("vllm", ["--hf-token", "--enforce-eager"]),
    "the opposite by the newest": ("newest vllm", ["--disable-chunked-prefill"]),
    "twice": ("vllm", ["--middleware", "a.b", "--middleware", "c.d"]),
    "rank of adapters": ("vllm", ["--max-lora-rank", "64"]),
    "sglang": ("sglang", ["--mem-fraction-static", "0.85", "--enable-hicache"]),
    "llama-server": ("llamacpp", ["-fa", "on", "--no-repack"]),
    "llama-server's value like a flag": ("llamacpp", ["--n-predict", "-1", "--temp", "0"]),
    "llama-server's word like a flag": ("llamacpp", ["--chat-template", "--odd--"]),
    "a bool with a word": ("llamacpp-python", ["--cache", "true"]),
    "custom": ("custom", ["--anything", "-x", "free", "--port=1"]),
}


@pytest.mark.parametrize(("engine", "args"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(engine: str, args: list[str]) -> None:
    assert check(data(*ENGINES[engine]), args) is None


REFUSED = {
    "unknown": ("vllm", ["--enable-magic"], '(got "--enable-magic")'),
    "a slip of the pen": ("vllm", ["--enforce-eagr"], "did you mean --enforce-eager?"),
    "of a newer version": ("vllm", ["--monokernel"], "known to vllm 0.33"),
    "the opposite that only the newest has": (
        "vllm", ["--disable-chunked-prefill"], "known to vllm 0.33",
    ),
    "an abbreviation": ("vllm", ["--enforce"], "must have only flags that vllm 0.32 knows"),
    "of another engine": ("sglang", ["--gpu-memory-utilization", "0.9"], "sglang 0.5.23 knows"),
    "underscores with sglang": ("sglang", ["--mem_fraction_static", "0.8"], "--mem-fraction"),
    "dashes with llama-cpp-python": ("llamacpp-python", ["--flash-attn", "true"], "--flash_attn?"),
    "port": ("vllm", ["--port", "80"], "clients use the deployment's Service"),
    "host": ("vllm", ["--host=::"], "clients use the deployment's Service"),
    "tensor": ("vllm", ["--tensor-parallel-size", "4"], "use spec.layout.tensor"),
    "tensor, in short": ("vllm", ["-tp", "4"], "use spec.layout.tensor"),
    "tensor, with underscores": ("vllm", ["--tensor_parallel_size=4"], "use spec.layout.tensor"),
    "nodes": ("vllm", ["-n", "2"], "use spec.layout.nodes"),
    "served name": ("vllm", ["--served-model-name", "a"], "use spec.model.servedName"),
    "context": ("vllm", ["--max-model-len", "auto"], "use spec.capacity.contextTokens"),
    "drain": ("vllm", ["--shutdown-timeout", "1"], "use spec.rollout.drainTimeout"),
    "the opposite of what is set": ("vllm", ["--no-enable-lora"], "use spec.model.adapters"),
    "what blinds us": ("vllm", ["--disable-log-stats"], "read its metrics"),
    "a file with anything in it": ("vllm", ["--config", "/c.yaml"], "into spec.engine.extraArgs"),
    "behind one that is fine": ("vllm", ["--seed", "1", "--port", "1"], '(got "--port")'),
    "sglang's other spelling": ("sglang", ["--tensor-parallel-size", "2"], "spec.layout.tensor"),
    "slots": ("llamacpp", ["-np", "4"], "use spec.capacity.concurrentRequests"),
    "a switch with a value": ("vllm", ["--enforce-eager", "true"], 'no value (got "true")'),
    "a switch with a value inline": ("vllm", ["--enforce-eager=1"], 'no value (got "1")'),
    "no value": ("vllm", ["--kv-cache-dtype"], "must give --kv-cache-dtype one value"),
    "no value before a flag": ("vllm", ["--kv-cache-dtype", "--enforce-eager"], "one value"),
    "two values": ("vllm", ["--kv-cache-dtype", "fp8", "more"], 'one value (got "fp8 more")'),
    "no value for a list": ("vllm", ["--api-key"], "one value or more"),
    "a value before any flag": ("vllm", ["/other/model"], "must begin with a flag"),
    "the end of flags": ("vllm", ["--", "x"], "must have only flags"),
    "inline with llama-server": ("llamacpp", ["--temp=0"], "make it two arguments"),
    "two in one": ("vllm", ["--seed 1"], "did you mean --seed?"),
    "a line break": ("vllm", ["--chat-template", "a\nb"], r'(got "a\nb")'),
    "a line break with custom": ("custom", ["a\nb"], "on one line"),
}  # fmt: skip


@pytest.mark.parametrize(("engine", "args", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(engine: str, args: list[str], words: str) -> None:
    said = check(data(*ENGINES[engine]), args)
    assert said is not None
    assert words in said
    assert said.startswith("spec.engine.extraArgs must ")
    assert "\n" not in said


def test_a_refusal_reads_like_all_others() -> None:
    assert check(data(), ["-tp", "4"]) == (
        "spec.engine.extraArgs must not have what Tramontane sets itself "
        '(got "-tp"); use spec.layout.tensor'
    )
