"""List the flags that Tramontane sets itself, and what to use in their place.

By the flag's name, which is its first spelling in `flags/`; a refusal covers all its spellings.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_LAYOUT_NODES: Final = "use spec.layout.nodes"
_DATA: Final = "use spec.layout.data"
_ADDRESS: Final = "the pods find each other by themselves: leave it out"
_LISTEN: Final = "clients use the deployment's Service: leave it out"
_SOURCE: Final = "use spec.model.source"
_NAME: Final = "use spec.model.servedName"
_CONTEXT: Final = "use spec.capacity.contextTokens"
_REQUESTS: Final = "use spec.capacity.concurrentRequests"
_ADAPTERS: Final = "use spec.model.adapters"
_METRICS: Final = "rollouts, scaling and the search for hangs read its metrics: leave it out"
_PLAIN: Final = "probes and Service speak plain HTTP: end TLS at the gateway"
_FILE: Final = "write the flags into spec.engine.extraArgs, where they are checked"
_FRONTS: Final = "it follows from spec.layout.data: leave it out"
_NO_HTTP: Final = "clients and probes speak HTTP: leave it out, or use engine custom"
_NO_DEGREE: Final = "spec.layout has no such degree: leave it out, or use engine custom"

_VLLM: Final = {
    "--model": _SOURCE,
    "--host": _LISTEN,
    "--port": _LISTEN,
    "--uds": _LISTEN,
    "--served-model-name": _NAME,
    "--max-model-len": _CONTEXT,
    "--max-num-seqs": _REQUESTS,
    "--tensor-parallel-size": "use spec.layout.tensor",
    "--pipeline-parallel-size": "use spec.layout.pipeline",
    "--prefill-context-parallel-size": _NO_DEGREE,
    "--data-parallel-size": _DATA,
    "--data-parallel-size-local": _DATA,
    "--data-parallel-rank": _DATA,
    "--data-parallel-start-rank": _DATA,
    "--data-parallel-address": _ADDRESS,
    "--data-parallel-rpc-port": _ADDRESS,
    "--data-parallel-backend": _DATA,
    "--data-parallel-hybrid-lb": _DATA,
    "--data-parallel-external-lb": _DATA,
    "--data-parallel-multi-port-external-lb": _DATA,
    "--enable-expert-parallel": "use spec.layout.expert",
    "--nnodes": _LAYOUT_NODES,
    "--node-rank": _LAYOUT_NODES,
    "--master-addr": _ADDRESS,
    "--master-port": _ADDRESS,
    "--headless": _LAYOUT_NODES,
    "--distributed-executor-backend": _LAYOUT_NODES,
    "--api-server-count": _FRONTS,
    "--shutdown-timeout": "use spec.rollout.drainTimeout",
    "--enable-lora": _ADAPTERS,
    "--lora-modules": _ADAPTERS,
    "--disable-log-stats": _METRICS,
    "--config": _FILE,
    "--grpc": _NO_HTTP,
    "--ssl-keyfile": _PLAIN,
    "--ssl-certfile": _PLAIN,
    "--enable-elastic-ep": "it needs Ray, which is not there: leave it out",
}

_SGLANG: Final = {
    "--model-path": _SOURCE,
    "--host": _LISTEN,
    "--port": _LISTEN,
    "--served-model-name": _NAME,
    "--context-length": _CONTEXT,
    "--max-running-requests": _REQUESTS,
    "--tp-size": "use spec.layout.tensor",
    "--pp-size": "use spec.layout.pipeline",
    "--dp-size": _DATA,
    "--attn-dp-size": _DATA,
    "--enable-dp-attention": "use spec.layout.data with expert: true",
    "--ep-size": "use spec.layout.expert",
    "--nnodes": _LAYOUT_NODES,
    "--node-rank": _LAYOUT_NODES,
    "--dist-init-addr": _ADDRESS,
    "--use-ray": _LAYOUT_NODES,
    "--enable-metrics": "it is on already: leave it out",
    "--enable-lora": "use engine vllm for spec.model.adapters",
    "--lora-paths": "use engine vllm for spec.model.adapters",
    "--config": _FILE,
    "--grpc-mode": _NO_HTTP,
    "--smg-grpc-mode": _NO_HTTP,
    "--encoder-only": _NO_HTTP,
    "--ssl-keyfile": _PLAIN,
    "--ssl-certfile": _PLAIN,
}

_LLAMACPP: Final = {
    "--model": _SOURCE,
    "--model-url": _SOURCE,
    "--docker-repo": _SOURCE,
    "--hf-repo": _SOURCE,
    "--hf-file": _SOURCE,
    "--models-dir": _SOURCE,
    "--models-preset": _SOURCE,
    "--alias": _NAME,
    "--host": _LISTEN,
    "--port": _LISTEN,
    "--api-prefix": _LISTEN,
    "--ctx-size": _CONTEXT,
    "--parallel": _REQUESTS,
    "--metrics": "it is on already: leave it out",
    "--lora": "use engine vllm for spec.model.adapters",
    "--lora-scaled": "use engine vllm for spec.model.adapters",
    "--ssl-key-file": _PLAIN,
    "--ssl-cert-file": _PLAIN,
}

_LLAMACPP_PYTHON: Final = {
    "--model": _SOURCE,
    "--hf_model_repo_id": _SOURCE,
    "--model_alias": _NAME,
    "--host": _LISTEN,
    "--port": _LISTEN,
    "--n_ctx": _CONTEXT,
    "--lora_base": "use engine vllm for spec.model.adapters",
    "--lora_path": "use engine vllm for spec.model.adapters",
    "--config_file": _FILE,
    "--ssl_keyfile": _PLAIN,
    "--ssl_certfile": _PLAIN,
}

#: What to use instead, by kind of engine and flag.
MANAGED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "vllm": _VLLM,
        "sglang": _SGLANG,
        "llamacpp": _LLAMACPP,
        "llamacpp-python": _LLAMACPP_PYTHON,
        "custom": {},
    }
)
