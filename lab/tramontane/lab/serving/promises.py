"""What the demo of serving promises, and which of it did not hold: pure, over what was measured.

| promise | holds where |
|---|---|
| what is planned costs no stream | no try failed before the blade died |
| a dead blade costs no request | none was given up, its client asking again what was cut |
| a slow canary does not stay | Rejected within two windows of the judge |
| a good one is promoted, and it is known where it comes from | Accepted, with job and digest |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from tramontane.controllers.inferencedeployment.podfiles import weightfiles
from tramontane.lab.timeline import plain

Raw = dict[str, Any]
Row = tuple[str, str, str]

TWO_WINDOWS_S = 120.0
ROLLBACK = "canary serves → rolled back"
_DIGEST_CHARS = len("sha256:") + 12


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights that a TrainingJob has made, and the revision that was to serve them."""

    job: str
    revision: str
    digest: str  # of the files that the job has written, as they lie there
    verdict: str  # that it must get


@dataclass(slots=True)
class Measured:
    """What a run of the demo measured (s), and counted."""

    seconds: dict[str, float] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    streamed: int = 0
    cut_while_planned: Mapping[str, int] = field(default_factory=dict)
    cut_by_death: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0


def broken(found: Measured, status: Raw) -> list[tuple[str, str]]:
    """Return the promises that were broken, each with what was seen. O(revisions).

    `status` is that of the InferenceDeployment at the end.
    """
    wrong = []
    if cut := said(found.cut_while_planned):
        wrong.append(("what is planned costs no stream", f"0 must be cut (got {cut})"))
    if lost := said(found.lost):
        wrong.append(("a dead blade costs no request", f"0 must be lost (got {lost})"))
    took_s = found.seconds.get(ROLLBACK)
    if took_s is None or took_s > TWO_WINDOWS_S:
        got = "never" if took_s is None else f"{took_s:.0f} s"
        text = f"must be rolled back within {TWO_WINDOWS_S:.0f} s (got {got})"
        wrong.append(("a slow canary does not stay", text))
    by_hash = {one["hash"]: one for one in status.get("revisions", ())}
    for candidate in found.candidates:
        seen = by_hash.get(candidate.revision, {})
        must = (candidate.verdict, candidate.job, candidate.digest)
        got_ = tuple(seen.get(key) for key in ("verdict", "trainingJob", "digest"))
        if must != got_:
            text = f"{candidate.revision} must be {must} (got {got_})"
            wrong.append(("each revision has its verdict, its job and its digest", text))
    return wrong


def said(counted: Mapping[str, int]) -> str:
    """Return what was counted, for people; empty where it is nothing."""
    return ", ".join(f"{count} {why}" for why, count in sorted(counted.items()) if count)


def rows(found: Measured) -> list[Row]:
    """Return what was measured as rows of a table: figure, value, budget."""
    planned, death = (sum(one.values()) for one in (found.cut_while_planned, found.cut_by_death))
    return [
        ("requests streamed to their end", f"{found.streamed:,}", ""),
        ("streams cut by rollouts, rollback and move", f"{planned}", "0"),
        ("streams cut by the blade without power, asked again", f"{death}", ""),
        ("requests lost", f"{sum(found.lost.values())}", "0"),
        ("longest request, asked again where it was cut", f"{found.slowest_s:.1f} s", ""),
        *(
            (what, f"{seconds:.1f} s", f"{TWO_WINDOWS_S:.0f} s" if what == ROLLBACK else "")
            for what, seconds in found.seconds.items()
        ),
    ]


def revisions(status: Raw) -> Table:
    """Return the revisions as a table that looks like kubectl's."""
    table = plain("Its revisions", "revision", "weights of", "digest", "verdict", "requests")
    for one in status.get("revisions", ()):
        table.add_row(
            one["hash"],
            one.get("trainingJob", "a directory"),
            str(one.get("digest", ""))[:_DIGEST_CHARS],
            one.get("verdict", ""),
            f"{one.get('weight', 0)} %",
        )
    return table


def serving(status: Raw, revision: str = "") -> Sequence[Raw]:
    """Return the replicas that serve, if all that there are do, and all one revision."""
    replicas: list[Raw] = status.get("replicas") or []
    calm = all(
        one.get("state") == "Serving" and revision in {"", one.get("revision")} for one in replicas
    )
    return replicas if calm else ()


def digest_of(folder: Path) -> str:
    """Return the digest of a directory of weights, as `tramontane weights digest` does."""
    root = str(folder)
    return weightfiles.digest_of(
        weightfiles.manifest_of(weightfiles.entries(root, weightfiles.sizes(root)))
    )
