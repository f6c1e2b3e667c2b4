"""Say the arithmetic of a plan for people: GiB, tokens, requests."""

from typing import Final

from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Layout
from tramontane.controllers.inferencedeployment.sizing.memory import Share
from tramontane.controllers.inferencedeployment.sizing.modelconfig import Model

_GIB: Final = 1 << 30
_KIB: Final = 1 << 10


def gib(size_b: float) -> str:
    """Return bytes as `12.3 GiB`."""
    return f"{size_b / _GIB:,.1f} GiB"


def place(layout: Layout) -> str:
    """Return a layout with what it needs: `TP8xPP2 (16 GPUs on 2 blades)`."""
    if layout == CPU_ONLY:
        return "CPU"
    return f"{layout} ({_some(layout.gpus, 'GPU')} on {_some(layout.nodes, 'blade')})"


def requests(count: int, context_tokens: int) -> str:
    """Return `9 requests of 65,536 tokens`."""
    return f"{_some(count, 'request')} of {context_tokens:,} tokens"


def memory(share: Share, layout: Layout) -> str:
    """Return the sum of what one GPU holds: `TP8 (…): 126.4 GiB usable of 140.4 - … = …`."""
    kept = "per host" if layout == CPU_ONLY else "per GPU"
    return (
        f"{place(layout)}: {gib(share.usable_b)} usable of {share.memory_b / _GIB:,.1f} "
        f"- {gib(share.weights_b)} of weights - {gib(share.overhead_b)} for activations and graphs "
        f"= {gib(share.free_b)} of KV cache {kept}"
    )


def cache(share: Share, model: Model, layout: Layout) -> str:
    """Return how many tokens that is: `34.3 KiB per token (GQA, …), 1,285,712 tokens`."""
    tokens = share.rank_tokens * max(1, layout.data)
    each = f" in {layout.data} caches" if layout.data > 1 else ""
    return (
        f"{share.kv_token_b / _KIB:,.1f} KiB per token ({model.attention}{_split(model, layout)}), "
        f"{tokens:,} tokens{each}"
    )


def _split(model: Model, layout: Layout) -> str:
    """Return what a token's part on one GPU is made of."""
    parts = []
    if layout.tensor > 1:
        ranks = min(layout.tensor, model.kv_heads)
        if model.mla:
            parts.append("whole on each tensor rank")
        elif ranks < layout.tensor:
            parts.append(f"over {ranks} KV heads, each on {layout.tensor // ranks} ranks")
        else:
            parts.append(f"over {ranks} tensor ranks")
    if layout.pipeline > 1:
        parts.append(f"{-(-model.layers // layout.pipeline)} of {model.layers} layers")
    return "".join(f", {part}" for part in parts)


def _some(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")
