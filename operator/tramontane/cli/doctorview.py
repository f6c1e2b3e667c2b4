"""Show what the doctor found: one line per finding, what to do beneath it, a summary at the end."""

from collections import Counter
from collections.abc import Sequence

from tramontane.cli.doctorfacts import Finding, Level

_MARKS = {
    Level.OK: "ok",
    Level.UNKNOWN: "unknown",
    Level.WARNING: "warning",
    Level.PROBLEM: "PROBLEM",
}
_WORST_LAST = (Level.PROBLEM, Level.WARNING, Level.UNKNOWN, Level.OK)
_WORDS = {
    Level.PROBLEM: ("problem", "problems"),
    Level.WARNING: ("warning", "warnings"),
    Level.UNKNOWN: ("not looked at", "not looked at"),
    Level.OK: ("ok", "ok"),
}


def lines(found: Sequence[Finding]) -> list[str]:
    """Return the lines for people."""
    mark_width = max(map(len, _MARKS.values()))
    check_width = max((len(one.check) for one in found), default=0)
    shown = []
    for one in found:
        shown.append(
            f"{_MARKS[one.level]:<{mark_width}}  {one.check:<{check_width}}  {one.message}"
        )
        if one.remedy:
            shown.append(f"{'':<{mark_width + check_width + 4}}→ {one.remedy}")
    return [*shown, "", summary(found)]


def summary(found: Sequence[Finding]) -> str:
    """Return how many findings there are of each level, the worst first."""
    counts = Counter(one.level for one in found)
    told = [
        f"{counts[level]} {_WORDS[level][counts[level] != 1]}"
        for level in _WORST_LAST
        if counts[level]
    ]
    verdict = "fit"
    if counts[Level.PROBLEM]:
        verdict = "not fit"
    elif counts[Level.UNKNOWN]:
        verdict = "fit as far as could be looked at"
    return f"{verdict}: {', '.join(told)}"
