"""The plans of published models on four kinds of GPU, as one table.

TRAMONTANE_RECORD=1 writes it anew; the difference is for a person to read.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout
from unit.inferencedeployment.sizes import GIB, MODELS, ask, model

TABLE = Path(__file__).parent / "golden" / "plans.txt"
NAMES = sorted(path.stem for path in MODELS.glob("*.json"))
GPUS = ("h100", "h200", "b200", "b300")
HEADINGS = (
    "MODEL", "GPU", "CONTEXT", "ASKED", "LAYOUT", "GPUS", "BLADES", "GIB/GPU", "KV TOKENS", "HELD",
)  # fmt: skip
BLADES = 2


def loads(name: str) -> Iterator[tuple[int, int]]:
    """Yield contexts and how many requests of them: some short, many longer, one of the longest."""
    yield 8192, 64
    yield 16_384, 128
    yield model(name).max_context, 1


def row(name: str, gpu: str, context: int, requests: int) -> tuple[str, ...]:
    found = plan_layout(
        ask(name, gpu, blades=BLADES, context_tokens=context, concurrent_requests=requests)
    )
    asked = (name, gpu.upper(), f"{context:,}", f"{requests}")
    if isinstance(found, Refusal):
        _, _, nearest = found.message.partition("; nearest: ")
        return (*asked, found.reason, "", "", "", "", nearest and f"nearest: {nearest}")
    layout = found.layout
    return (
        *asked,
        str(layout),
        f"{layout.gpus}",
        f"{layout.nodes}",
        f"{found.weights_b / GIB:.1f}",
        f"{found.kv_tokens:,}",
        f"{found.requests}",
    )


def table() -> str:
    rows = [row(name, gpu, *load) for name in NAMES for gpu in GPUS for load in loads(name)]
    every = [HEADINGS, *rows]
    widths = [max(len(one[column]) for one in every) for column in range(len(HEADINGS) - 1)]
    lines = (
        "  ".join((*(cell.ljust(width) for cell, width in zip(one, widths, strict=False)), one[-1]))
        for one in every
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def test_plans() -> None:
    found = table()
    if os.environ.get("TRAMONTANE_RECORD") == "1":
        TABLE.write_text(found)
    changed = [
        f"{was}\n  now {now}"
        for was, now in zip(TABLE.read_text().splitlines(), found.splitlines(), strict=True)
        if was != now
    ]
    assert not changed, "\n".join(changed)


def test_twelve_models_at_least() -> None:
    assert len({name.removesuffix("-fp8").removesuffix("-nvfp4") for name in NAMES}) >= 12
