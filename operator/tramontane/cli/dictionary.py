"""Say what a word means that Tramontane gives as a reason, or that a blade reports as a fault.

Reasons are explained in `docs/reasons.md`, which the package carries; XIDs and SXIDs in the agent's
catalogue; other codes belong to a check, whose module says what it looks at. No cluster is needed.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tramontane.api.errors import TramontaneError
from tramontane.api.meanings import Meaning, reasons
from tramontane.cli.tables import facts
from tramontane.controllers.nodepool import verdict
from tramontane.health import catalogue, checks, escalation
from tramontane.health.checks import CHECKS
from tramontane.health.checks.base import Check

# So much alike, a word is another one with a slip of the finger in it.
_TYPO: Final = 0.93
_EVENT = re.compile(r"^(?P<kind>s?xid)[- ]?(?P<code>\d+)$", re.IGNORECASE)


class NoSuchWord(TramontaneError):  # noqa: N818 - named for what was found
    """Say that nobody gives such a reason or code."""


@dataclass(frozen=True, slots=True)
class Code:
    """Hold what a code means and asks for, or what must hold by the check that gives it."""

    word: str
    text: str = ""
    must: str = ""
    severity: str = ""
    action: str = ""
    check: str = ""
    note: str = ""
    again: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        told = {
            "code": self.word,
            "meaning": self.text,
            "mustHold": self.must,
            "severity": self.severity,
            "action": self.action,
            "check": self.check,
            "note": self.note,
            "again": self.again,
        }
        return {key: value for key, value in told.items() if value}


def lines(told: Meaning | Code) -> list[str]:
    """Return what a word means, for people."""
    if isinstance(told, Meaning):
        return facts(
            [
                ("Reason", told.word),
                ("Of", told.of),
                ("Means", told.text),
                ("Way out", told.way_out),
            ]
        )
    return facts(
        [
            ("Code", told.word),
            ("Means", told.text),
            ("Must hold", told.must),
            ("Severity", told.severity),
            ("Action", told.action),
            ("Check", told.check),
            ("When", told.note),
            ("Again", told.again),
            (
                "Overrides",
                "a pool's health.rules come first: kubectl explain nodepool.spec.health.rules",
            ),
        ]
    )


def look_up(word: str) -> list[Meaning | Code]:
    """Return what a word means; a reason that several kinds give has a meaning for each.

    Raises:
        NoSuchWord: nobody gives it; the message names the nearest.
    """
    found: list[Meaning | Code] = [
        one for one in reasons() if one.word.lower() == word.replace("-", "").lower()
    ]
    if found:
        return found
    code = _code(word)
    if code is not None:
        return [code]
    near = difflib.get_close_matches(word, words(), n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else "see docs/reasons.md"
    raise NoSuchWord(
        f"{word}: must be a reason, a fault code or a check (got none of them); {hint}"
    )


def words() -> Iterator[str]:
    """Yield every word that can be looked up, but for single XIDs that are just numbers."""
    yield from dict.fromkeys(one.word for one in reasons())
    yield from (check.name for check in CHECKS)
    yield from sorted(verdict.WAITS_FOR_IDLE)
    yield from (f"xid-{code}" for code in sorted(catalogue.table()))


def reason(word: str, of: str | None = None) -> Meaning | None:
    """Return what a reason means, as the section of that name says it, or as any does."""
    found = [one for one in reasons() if one.word == word]
    return next((one for one in found if one.of == of), found[0] if found else None)


def _code(word: str) -> Code | None:
    """Return what a fault's code means; also `79`, `Xid 79`, and `RowRemapPending`."""
    event = _EVENT.match(f"xid-{word}" if word.isdecimal() else word)
    if event is not None:
        return _xid(event["kind"].lower(), int(event["code"]))
    dashed = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", word).lower()
    own = _OWN.get(dashed)
    if own is not None:
        return Code(dashed, own, check="the operator's own")
    check = _check_of(dashed)
    if check is None:
        return None
    waits = "nothing that runs is harmed: it waits for the end of the job"
    return Code(
        dashed,
        must=_story(check),
        check=f"{check.name} (threshold: {check.source})",
        note=waits if dashed in verdict.WAITS_FOR_IDLE else "",
    )


def _xid(kind: str, code: int) -> Code:
    known = (catalogue.table() if kind == "xid" else catalogue.switch_table()).get(code)
    row = known or (catalogue.look_up(code) if kind == "xid" else catalogue.look_up_switch(code))
    word = f"{kind}-{code}"
    notes = [
        "means nothing beside another XID" if word in escalation.FOLLOWERS else "",
        "nothing that runs is harmed: it waits for the end of the job"
        if word in verdict.WAITS_FOR_IDLE
        else "",
    ]
    again = verdict.RECURRED.get(word)
    return Code(
        word,
        row.description,
        severity=str(row.severity),
        action=str(row.action),
        check=kind,
        note="; ".join(filter(None, notes)),
        again=f"within a day on the same unit: {again}" if again is not None else "",
    )


def _check_of(code: str) -> Check | None:
    """Return the check that gives a code: it writes it out, or has a name that it begins with."""
    by_name = {one.name: one for one in CHECKS}
    for name, text in _sources().items():
        if f'"{code}"' in text and name in by_name:
            return by_name[name]
    alike = difflib.get_close_matches(code, words(), n=1, cutoff=_TYPO)
    if alike and alike[0] != code:
        return None
    begins = [name for name in by_name if code == name or code.startswith(f"{name}-")]
    if not begins:
        begins = [name for name in by_name if name.partition("-")[0] == code.partition("-")[0]]
        begins = begins if len(begins) == 1 else []
    return by_name[max(begins, key=len)] if begins else None


@lru_cache(maxsize=1)
def _sources() -> dict[str, str]:
    """Return the text of each check's module, by the check's name."""
    found = {}
    for module in vars(checks).values():
        check = getattr(module, "CHECK", None)
        if isinstance(check, Check) and getattr(module, "__file__", None):
            found[check.name] = Path(module.__file__).read_text(encoding="utf-8")
    return found


def _story(check: Check) -> str:
    """Return what the module of a check says of it, without its name before it."""
    _, _, rest = _sources()[check.name].partition('"""')
    # A table is no sentence: its rows stay in the source.
    lines = rest.partition('"""')[0].splitlines()
    text = " ".join(" ".join(line for line in lines if not line.startswith("|")).split())
    return text.removeprefix(f"{check.name}: ")


# What the operator itself finds wrong with a blade. Source: controllers/nodepool/{verdict,life}.py.
_OWN: Final = {
    verdict.MISMATCH_CODE: "the blade shows less than its pool's spec.gpu wants",
    verdict.VERSION_CODE: "driver, VBIOS or GSP firmware differ from the pool's other blades",
    verdict.HUNG_CODE: "the driver gave no answer in time, or never showed its GPUs",
    "burn-in-failed": "the pool's burn-in found the blade bad",
    "collective-failed": "the blade was in a group whose collective test failed",
    "flapping": "the blade went out and came back several times in a short while",
    "lemon": "the blade's record is much worse than the pool's",
}
