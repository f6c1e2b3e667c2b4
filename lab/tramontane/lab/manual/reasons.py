"""Write the reference of reasons: each word of the closed lists, in short, and who counts it.

The words are the code's, what they mean is docs/reasons.md, which `tramontane explain` reads too.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tramontane.api import meanings
from tramontane.api.reasons import BladeReason, InferenceReason, JobReason, PendingReason
from tramontane.lab.manual.markdown import cell, code, page, table
from tramontane.lab.observe.exported import AGENT, Family, families

_OPENING: Final = """\
All reasons there are; what is not here does not exist. [Reasons](../reasons.md) has each in full,
and `tramontane explain WORD` prints that."""
_METRICS: Final = """\
The label `reason` of these has one of the words above, of blades, gangs or replicas."""
#: The lists by their heading in docs/reasons.md.
LISTS: Final[Mapping[str, type[StrEnum]]] = MappingProxyType(
    {
        "Why a gang waits": PendingReason,
        "Why a blade is out": BladeReason,
        "What happened to a job": JobReason,
        "What happened to a deployment": InferenceReason,
    }
)


def _row(word: str, of: str) -> tuple[str, ...]:
    """Return the word, what it means and the way out, of both the first sentence.

    Raises:
        LookupError: the manual does not explain it there.
    """
    found = [one for one in meanings.reasons() if (one.word, one.of) == (word, of)]
    if not found:
        raise LookupError(f'docs/reasons.md: must explain {word} under "{of}" (got nothing)')
    return code(word), *(cell(_sentence(text)) for text in (found[0].text, found[0].way_out))


def _sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".")


def _counted(found: Iterable[Family]) -> list[tuple[str, ...]]:
    """Return the metrics that are counted by reason; a GPU's clocks have reasons of their own."""
    return [
        (code(one.name), one.component, cell(one.help))
        for one in sorted(found, key=lambda one: one.name)
        if "reason" in one.labels and one.component != AGENT
    ]


def render() -> str:
    """Return the page."""
    parts = []
    for heading, words in LISTS.items():
        rows = [_row(word.value, heading) for word in words]
        parts += [f"## {heading}", table(("Reason", "What it means", "Way out"), rows)]
    counted = table(("Metric", "Component", "What it is"), _counted(families()))
    return page("All reasons", _OPENING, *parts, "## Metrics by reason", _METRICS, counted)
