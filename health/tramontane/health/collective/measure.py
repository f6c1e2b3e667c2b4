"""Repeat the sum, look at every one, and give the verdict that all ranks share.

| what was seen                          | verdict | value                               |
|----------------------------------------|---------|-------------------------------------|
| a sum that differs, on any rank        | FAIL    | bus bandwidth                       |
| bus bandwidth below the threshold      | FAIL    | bus bandwidth                       |
| a peer that did not come or went away  | ERROR   | (raised as PeerError before this)   |
| anything else                          | PASS    | bus bandwidth                       |

A FAIL is the group's: which of its blades is bad is found by testing other groups. The time of a
repeat is the slowest rank's, the figure is the median of the repeats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.health.collective.group import MAX_RANKS, MIN_RANKS, WORD_BYTES, Group, Member

CHECK = "collective"


@dataclass(frozen=True, slots=True)
class Settings:
    """What to do: bytes per rank, how often, and the least bus bandwidth in GB/s."""

    size_bytes: int
    repeats: int = 20
    min_gbps: float | None = None


def measure(group: Group, settings: Settings, note: Callable[[str], None]) -> Outcome:
    """Sum together and judge.

    Raises:
        PeerError: a peer is gone.
        ValueError: the group is too small, or too large for exact sums.
    """
    ranks = group.member.size
    if not MIN_RANKS <= ranks <= MAX_RANKS:
        raise ValueError(f"a group must have {MIN_RANKS} to {MAX_RANKS} ranks (got {ranks})")
    words = max(settings.size_bytes // WORD_BYTES, 1)
    wrong = 0
    times: list[tuple[float, int]] = []
    # One more than asked for: the first opens connections, so its time is not counted.
    for repeat in range(settings.repeats + 1):
        group.prepare(words)
        group.gather(0.0)  # all begin together: filling the buffer is nobody's bandwidth
        taken = group.gather(group.reduce())
        wrong += group.wrong()
        if repeat:
            times.append(max((time_s, rank) for rank, time_s in enumerate(taken)))
            gbps = bus_gbps(ranks, words * WORD_BYTES, times[-1][0])
            note(f"all-reduce {repeat} of {settings.repeats}: {gbps:.4g} GB/s")
    time_s, slowest = sorted(times)[len(times) // 2]
    wrong_by_rank = [int(count) for count in group.gather(float(wrong))]
    return judge(
        group.name,
        group.member,
        settings,
        time_s=time_s,
        slowest=slowest,
        wrong_by_rank=wrong_by_rank,
    )


def bus_gbps(ranks: int, size_bytes: int, time_s: float) -> float:
    """Return the bus bandwidth of an all-reduce. Source: NVIDIA nccl-tests, PERFORMANCE.md."""
    return 2 * (ranks - 1) / ranks * size_bytes / max(time_s, 1e-9) / 1e9


def judge(
    backend: str,
    member: Member,
    settings: Settings,
    *,
    time_s: float,
    slowest: int,
    wrong_by_rank: Sequence[int],
) -> Outcome:
    """Return the outcome of the module's table; the same on every rank."""
    ranks = member.size
    words = max(settings.size_bytes // WORD_BYTES, 1)
    gbps = bus_gbps(ranks, words * WORD_BYTES, time_s)
    verdict = Verdict.PASS
    reason = f"all-reduce of {words * WORD_BYTES >> 20} MiB on {ranks} ranks: {gbps:.4g} GB/s"
    if settings.min_gbps is not None and gbps < settings.min_gbps:
        verdict = Verdict.FAIL
        reason += f", must be {settings.min_gbps:g} or more"
    if wrong := [(rank, count) for rank, count in enumerate(wrong_by_rank) if count]:
        verdict = Verdict.FAIL
        rank, count = wrong[0]
        reason = (
            f"rank {rank}: {count} of {words * (settings.repeats + 1)} elements of the sums "
            f"are wrong; {len(wrong)} of {ranks} ranks saw such"
        )
    return Outcome(
        CHECK,
        verdict,
        reason,
        gbps,
        "GB/s",
        {
            "backend": backend,
            "group": member.name,
            "rank": member.rank,
            "ranks": ranks,
            "bytes": words * WORD_BYTES,
            "repeats": settings.repeats,
            "time_ms": round(time_s * 1e3, 3),
            "slowest_rank": slowest,
            "wrong_ranks": [rank for rank, _ in wrong][:16],
        },
    )
