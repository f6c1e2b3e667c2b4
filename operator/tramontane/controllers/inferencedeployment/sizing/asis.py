"""Take a layout as people set it, where the model's memory cannot be foreseen.

llama.cpp's files have no config.json beside them, and nobody knows a custom engine. What is known
is still checked: that the blades have those GPUs, and that the weights alone fit.
"""

from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Layout, Refusal, Sizing
from tramontane.controllers.inferencedeployment.sizing import words
from tramontane.controllers.inferencedeployment.sizing.ask import (
    LENIENT,
    Ask,
    layout_of,
    misconfigured,
)
from tramontane.controllers.inferencedeployment.sizing.memory import Share, bare_share


def as_it_is(ask: Ask) -> Sizing | Refusal:
    """Return the layout that was set, the CPU where none was; tokens and requests are 0: unknown.

    | engine | layout | outcome |
    |---|---|---|
    | vllm, sglang | any | Misconfigured: the configuration is needed |
    | others | set, more GPUs than the blades have | Misconfigured |
    | others | weights known, and too large | DoesNotFit |
    | others | else | as it is |
    """
    if ask.engine not in LENIENT:
        known = "none" if ask.weights_b is None else f"{words.gib(ask.weights_b)} of weights alone"
        return misconfigured(
            f"model.config must be given to plan engine {ask.engine} (got {known}); copy the "
            "model's config.json or params.json there"
        )
    layout = CPU_ONLY if ask.fixed is None else layout_of(ask.fixed)
    if (problem := bounds(ask, layout)) is not None:
        return misconfigured(f"layout.{problem}")
    weights_b = ask.weights_b or (0 if ask.model is None else ask.model.weights_b)
    memory_b = (ask.ram_b or 0) if layout == CPU_ONLY else ask.gpu_memory_b
    on_each_b = weights_b // max(1, layout.gpus)
    why = f"{words.place(layout)}, taken as it is: the model's need of memory is not known"
    if weights_b and memory_b:
        share = bare_share(on_each_b, memory_b, ask.utilisation, on_cpu=layout == CPU_ONLY)
        if share.free_b <= 0:
            return _too_large(share, layout, weights_b)
        why = f"{words.memory(share, layout)}; what a token takes of it is not known"
    return Sizing(layout, on_each_b, weights_b, kv_tokens=0, requests=0, fits=True, why=why)


def bounds(ask: Ask, layout: Layout) -> str | None:
    """Return what keeps a layout from lying on the pool's blades, or None."""
    if layout == CPU_ONLY:
        return None
    if layout.gpus % layout.nodes:
        return f"nodes must divide its {layout.gpus} GPUs (got {layout.nodes})"
    if ask.gpus_per_blade and layout.gpus_per_node > ask.gpus_per_blade:
        return (
            f"nodes must leave at most {ask.gpus_per_blade} GPUs on each blade (got "
            f"{layout.gpus_per_node}: {layout.gpus} GPUs on {layout.nodes})"
        )
    if ask.blades and layout.nodes > ask.blades:
        return f"nodes must be at most the {ask.blades} blades that there are (got {layout.nodes})"
    return None


def _too_large(share: Share, layout: Layout, weights_b: int) -> Refusal:
    return Refusal(
        InferenceReason.DOES_NOT_FIT,
        f"must hold {words.gib(weights_b)} of weights (got {words.memory(share, layout)})",
    )
