"""Say how a replica is spread over GPUs, and what that comes to in memory.

Values only: `sizing` finds layouts, `engines` turns one into arguments, the planner into pods.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """Spread a replica over `gpus` GPUs on `nodes` blades, as many on each.

    Attributes:
        data: replicas of the attention part inside one engine (data parallel), each with its own
            KV cache.
        expert: whether the experts are spread over all GPUs, not over those of `tensor` alone.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    nodes: int = 1

    @property
    def gpus(self) -> int:
        """Return the GPUs of a replica; 0 stands for none, on the CPU."""
        return self.tensor * self.pipeline * self.data

    @property
    def gpus_per_node(self) -> int:
        """Return the GPUs on each blade."""
        return self.gpus // self.nodes

    def __str__(self) -> str:
        if not self.gpus:
            return "CPU"
        degrees = (("TP", self.tensor), ("PP", self.pipeline), ("DP", self.data))
        text = "x".join(f"{name}{size}" for name, size in degrees if size > 1 or name == "TP")
        return text + ("+EP" if self.expert else "")


#: llama.cpp without a GPU.
CPU_ONLY = Layout(tensor=0)


@dataclass(frozen=True, slots=True)
class Sizing:
    """Hold what one layout of a model comes to; memory is per GPU, or of the host on the CPU.

    Attributes:
        weights_b: bytes of weights on each GPU, without what the engine adds.
        total_weights_b: bytes of all weight files together: what must be read to start.
        kv_tokens: tokens that the KV caches of one replica hold together.
        requests: requests of the full context that these tokens are enough for.
        fits: whether the asked context and concurrency fit.
        why: the arithmetic, one sentence for people, with GiB.
    """

    layout: Layout
    weights_b: int
    total_weights_b: int
    kv_tokens: int
    requests: int
    fits: bool
    why: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Say why there is no layout, with the nearest thing that fits, if any does."""

    reason: str
    message: str
    nearest: Sizing | None = None
