"""Say which layouts there are for a model, and what a layout must divide.

A layout that an engine would refuse is not planned, and a fixed one is refused with the number
that does not divide.
"""

from collections.abc import Iterator
from typing import Final

from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.sizing.modelconfig import Model

# Engines pad the vocabulary to a multiple of it.
_VOCABULARY_PAD: Final = 64
#: Blades beyond which no layout is looked for.
MAX_BLADES: Final = 64


def problem_of(model: Model, layout: Layout) -> str | None:
    """Return the first thing that does not divide, or None.

    | what | must be |
    |---|---|
    | heads | a multiple of tensor |
    | KV heads (not with MLA) | a multiple of tensor, or a divisor of it |
    | vocabulary, padded | a multiple of tensor |
    | MLP widths | a multiple of tensor, and of tensor·block where blocks share a scale |
    | experts with expert parallelism | a multiple of tensor·data |
    | their width without it | a multiple of tensor·data, and of the block as above |
    | layers | at least pipeline |
    """
    return next(_problems(model, layout), None)


def _problems(model: Model, layout: Layout) -> Iterator[str]:
    tensor = layout.tensor
    if layout.pipeline > model.layers:
        yield f"pipeline must be at most the model's {model.layers} layers (got {layout.pipeline})"
    if layout.expert and not model.experts:
        yield "expert must be false for a model without experts (got true)"
    if model.heads % tensor:
        yield f"tensor must divide the model's {model.heads} attention heads (got {tensor})"
    if not model.mla and model.kv_heads % tensor and tensor % model.kv_heads:
        yield (
            f"tensor must divide the model's {model.kv_heads} KV heads or be a multiple of them "
            f"(got {tensor})"
        )
    padded = -(-model.vocabulary // _VOCABULARY_PAD) * _VOCABULARY_PAD
    if padded % tensor:
        yield f"tensor must divide the model's padded vocabulary of {padded} (got {tensor})"
    for width in model.widths:
        yield from _width("tensor", tensor, width, model.block)
    if not model.experts:
        return
    ranks = tensor * layout.data
    name = "tensor" if layout.data == 1 else "tensor times data"
    if not layout.expert:
        yield from _width(name, ranks, model.expert_width, model.block)
    elif model.experts % ranks:
        yield f"{name} must divide the model's {model.experts} experts (got {ranks})"


def _width(name: str, ranks: int, width: int, block: int) -> Iterator[str]:
    if width % ranks:
        yield f"{name} must divide the model's MLP width of {width} (got {ranks})"
    elif width // ranks % block:
        yield (
            f"{name} must divide the model's MLP width of {width} into multiples of {block}, its "
            f"quantization's block (got {ranks}: {width // ranks} each)"
        )


def candidates(model: Model, gpus_per_blade: int, blades: int) -> list[Layout]:
    """Return the layouts to choose from, those with fewer GPUs first, then the simpler ones.

    * tensor alone, within a blade;
    * tensor as large as a blade takes, and pipeline where that leaves GPUs of the blade idle, or
      over more blades: a token goes through all stages in turn, so there are no more than needed;
    * for MLA with experts also data and expert parallelism: each rank has a KV cache of its own,
      where tensor ranks would all keep the same.

    Tensor ranks never cross a blade: their exchange per layer needs NVLink.
    O(GPUs per blade · blades).
    """
    found = {
        _simplest(model, layout)
        for layout in _shapes(model, gpus_per_blade, min(blades, MAX_BLADES))
    }
    return sorted(
        (layout for layout in found if layout is not None),
        key=lambda one: (one.gpus, one.nodes, one.data, one.pipeline, one.expert),
    )


def _shapes(model: Model, gpus: int, blades: int) -> Iterator[Layout]:
    tensors = [size for size in range(1, gpus + 1) if _divides(model, size)]
    largest = tensors[-1]
    for tensor in tensors:
        yield Layout(tensor=tensor)
        if model.mla and model.experts:
            yield from (
                Layout(tensor=tensor, data=data, expert=True)
                for data in range(2, gpus // tensor + 1)
            )
    for stages in range(2, gpus // largest + 1):
        yield Layout(tensor=largest, pipeline=stages)
    for nodes in range(2, blades + 1):
        yield Layout(tensor=largest, pipeline=nodes * (gpus // largest), nodes=nodes)
        if model.mla and model.experts:
            yield from (
                Layout(tensor=tensor, data=nodes * (gpus // tensor), expert=True, nodes=nodes)
                for tensor in tensors
                if gpus % tensor == 0
            )


def _divides(model: Model, tensor: int) -> bool:
    return _simplest(model, Layout(tensor=tensor)) is not None


def _simplest(model: Model, layout: Layout) -> Layout | None:
    """Return the layout, with whole experts where slices of them do not divide; None if neither."""
    if problem_of(model, layout) is None:
        return layout
    if not model.experts or layout.expert:
        return None
    whole = Layout(layout.tensor, layout.pipeline, layout.data, expert=True, nodes=layout.nodes)
    return whole if problem_of(model, whole) is None else None
