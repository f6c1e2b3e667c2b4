"""Test blades in groups: which groups to run now, and what the tests so far show. Pure.

The store is the API: each blade keeps the results of the groups in which it ran
(Blade.status.qualification.results, with the group's name), and a group that runs is its pods.
A group's name tells how many it had, so that a test of which a member has begun anew, or has
gone, is known to be incomplete and counts no more. It follows from what the members remember, so
that the next test of the same ones has a name that is in no record yet. What is left goes to the
bisection (bisect.py), which follows from the tests alone: a new operator goes on where the last
one was.

Healthy blades that nobody uses are partners of those who wait. What they passed was long ago, and
is a good name, not a proof; what they fail counts until they pass again:

| test                               | counts as                                              |
|------------------------------------|--------------------------------------------------------|
| passed, one of the group waits     | passed                                                 |
| passed, of others only             | nothing: their good names                              |
| failed                             | failed by those who wait, or have not passed since     |

| pods of a group                        | the group                                         |
|----------------------------------------|---------------------------------------------------|
| some still run, in time                | runs                                              |
| all exited 0, bandwidth as asked       | passed                                            |
| one exited 1 or is slow                | failed: at least one of its blades is bad         |
| one broke, never began or is missing   | broken: nothing is learned, the others may wait   |
|                                        | for it until they are out of time                 |
| all exited 0, none says the bandwidth  | broken: nothing was measured                      |
| some are out of time                   | as works.py has it: broken where it is our check, |
|                                        | else failed                                       |

A group that broke is tried again, with pauses that grow. One blade whose ports reach nobody breaks
every group that it is in, so a group that broke three times is split (breaks.py). What no further
group can decide is said to people (`Round.trouble`), and early that no group passes at all.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tramontane.api import clock
from tramontane.api.blade import Blade, BladeState, Severity
from tramontane.controllers.nodepool import bisect, breaks, qualify
from tramontane.controllers.nodepool.around import Collective, GroupResult
from tramontane.controllers.nodepool.breaks import Break, Members
from tramontane.controllers.nodepool.care import BURN_IN, COLLECTIVE, SOAK, Test
from tramontane.controllers.nodepool.verdict import milder
from tramontane.controllers.nodepool.works import Outcome, WorkPod

# Blades that are nearly there are waited for, so that groups are of full size.
_WAIT_FOR_OTHERS_S = 60.0
# Within this time all pods of a group have been created and seen.
_GROUP_IS_MADE_S = 15.0
_MOST_PARTNERS = 64
_MOST_NAMED = 16
# One bad blade makes two pairs fail, and the third passes, which is without it.
_MANY_FAILED = 3
_NONE: Mapping[Members, Break] = MappingProxyType({})
_EVIDENCE = "slow or failed in a group of which all others are known to be good"
_ON_WAY = frozenset({BladeState.QUALIFYING, BladeState.REQUALIFYING})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A blade as the groups see it.

    Attributes:
        waits: it has come to the collective step, and nobody uses it; `since` then says when.
        earlier: it is in an earlier step, and will come.
        named: it is Healthy, and nothing is known against it.
        idle: it is that, and nobody uses it: it can be a partner.
        results: group to whether it passed, of the groups in which it ran.
        failed: those of them that failed since it last passed the step.
    """

    name: str
    waits: bool = False
    since: float = 0.0
    earlier: bool = False
    named: bool = False
    idle: bool = False
    results: Mapping[str, bool] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Round:
    """What the tests show, and what to run next.

    Attributes:
        start: groups to start now, by name.
        finished: groups that have ended, with what they showed; None: nothing.
        broke: why those showed nothing.
        blades: what each blade is to be told.
        trouble: what people must be told: no test will decide it.
    """

    start: Mapping[str, tuple[str, ...]]
    finished: Mapping[str, GroupResult | None]
    blades: Mapping[str, Collective]
    trouble: tuple[str, ...] = ()
    broke: Mapping[str, str] = field(default_factory=dict)


def candidate(blade: Blade, *, busy: bool) -> Candidate:
    """Return how the groups see a blade."""
    status = blade.status
    asked = status.qualification
    since = asked.step_since if asked is not None else None
    on_way = status.state in _ON_WAY and asked is not None
    step = asked.step if asked is not None else None
    results = asked.results if asked is not None else ()
    # Refused by budget or breaker, or only watched, a blade is Healthy with its fault.
    clean = status.verdict is None or milder(status.verdict.severity, Severity.DEGRADED)
    named = status.state is BladeState.HEALTHY and clean
    return Candidate(
        name=blade.metadata.name,
        waits=on_way and step == COLLECTIVE and qualify.failure(asked) is None and not busy,
        since=clock.parse(since) if since else 0.0,
        earlier=on_way and step in {SOAK, BURN_IN},
        named=named,
        idle=named and not busy,
        results={one.group: one.passed for one in results if one.group},
        failed=frozenset(one.group for one in qualify.doubts(results) if one.group),
    )


def play(
    test: Test,
    candidates: Sequence[Candidate],
    pods: Iterable[WorkPod],
    now: float,
    broken: Mapping[Members, Break] = _NONE,
) -> Round:
    """Return the round: O(blades · results). `broken`: the groups that broke, and how often."""
    running = _by_group(pods)
    finished = {
        group: _result(group, members, test, now)
        for group, members in running.items()
        if _has_ended(members, test, now)
    }
    broke = {
        group: _why_broken(running[group], test, now)
        for group, result in finished.items()
        if result is None
    }
    in_group = {pod.blade: group for group, members in running.items() for pod in members}
    waiting = tuple(one for one in candidates if one.waits)
    if not waiting and not any(one.idle and one.failed for one in candidates):
        return Round({}, finished, _told({}, in_group, finished, {}), broke=broke)
    tests = _tests(candidates)
    names = tuple(one.name for one in waiting)
    partners = _partners(candidates, in_group)
    named = frozenset(one.name for one in candidates if one.named)
    planned = bisect.plan((*names, *partners), tests, test.group_size, named)
    good = dict.fromkeys(planned.cleared, True) | dict.fromkeys(planned.condemned, False)
    free = tuple(name for name in partners if name in planned.cleared)
    asked = tuple(breaks.split(planned.groups, broken, free, planned.cleared))
    paused = {members for members in asked if _is_paused(members, broken)}
    start = {}
    if waiting and not running and _is_time(candidates, waiting, test, now):
        known = {one.name: one for one in candidates}
        start = {
            _name([known[name] for name in members]): members
            for members in asked
            if members not in paused
        }
    condemned = planned.condemned.intersection(partners)
    told = _told(good, in_group, finished, start, (*names, *condemned))
    for members in paused:
        why = breaks.why(broken[frozenset(members)])
        for name in members:
            if name in told and not told[name].group:
                told[name] = replace(told[name], waits_for=f"another try: its group {why}")
    if running:  # who is in them is not planned with, and what they show may decide it
        planned, tests = replace(planned, undecided=frozenset()), ()
    trouble = tuple(_trouble(planned, candidates, tests, asked, broken))
    return Round(start, finished, told, trouble, broke)


def _is_paused(members: Sequence[str], broken: Mapping[Members, Break]) -> bool:
    known = broken.get(frozenset(members))
    return known is not None and known.paused


def _trouble(
    planned: bisect.Plan,
    candidates: Iterable[Candidate],
    tests: Sequence[bisect.GroupTest],
    asked: Iterable[Sequence[str]],
    broken: Mapping[Members, Break],
) -> Iterator[str]:
    """Yield what no group to come decides, and why; the same text each time."""
    if len(tests) >= _MANY_FAILED and not any(test.passed or test.since for test in tests):
        yield (
            f"collective: {_MANY_FAILED} groups and more have failed, and none has passed; look at "
            "minBandwidth and at the template's image and network first. The tests go on"
        )
    failed = {one.name for one in candidates if not all(one.results.values())}
    if unclear := planned.undecided & failed:
        yield (
            f"collective: no test can tell which of {_named(unclear)} are bad: no group of theirs "
            "passed; free a good blade of the pool to test them with, or look at them"
        )
    for group in planned.contradicted:
        yield (
            f"collective: {_named(group)} failed together, and each of them passed with others; "
            "look at what is between them (switch, cables), and for a fault that comes and goes"
        )
    yield from breaks.trouble(asked, broken, planned.cleared)


def _named(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return ", ".join(every[:_MOST_NAMED]) + more


def _told(
    good: Mapping[str, bool],
    in_group: Mapping[str, str],
    finished: Mapping[str, GroupResult | None],
    start: Mapping[str, Sequence[str]],
    waiting: Iterable[str] = (),
) -> dict[str, Collective]:
    starting = {name: group for group, members in start.items() for name in members}
    told = {}
    for name in {*waiting, *in_group, *starting}:
        group = in_group.get(name, "") or starting.get(name, "")
        verdict = good.get(name)
        told[name] = Collective(
            good=verdict,
            group=group,
            result=finished.get(group),
            evidence=_EVIDENCE if verdict is False else "",
        )
    return told


def _by_group(pods: Iterable[WorkPod]) -> dict[str, list[WorkPod]]:
    found: dict[str, list[WorkPod]] = defaultdict(list)
    for pod in pods:
        if pod.group and not pod.deleting:
            found[pod.group].append(pod)
    return found


def _is_whole(pods: Sequence[WorkPod]) -> bool:
    return len(pods) >= max(pod.group_size for pod in pods)


def _has_ended(pods: Sequence[WorkPod], test: Test, now: float) -> bool:
    if not _is_whole(pods):  # never made, or taken away because the blade has something to do
        return now - min(pod.created_at for pod in pods) > _GROUP_IS_MADE_S
    return all(pod.outcome_at(now, test.timeout_s) is not Outcome.RUNNING for pod in pods)


def _result(group: str, pods: Sequence[WorkPod], test: Test, now: float) -> GroupResult | None:
    """Return what a group that has ended showed; None where its checker broke."""
    slowest = _slowest(pods)
    if not _is_whole(pods):
        return None
    if slowest is not None and slowest < test.min_bandwidth:
        text = f"{slowest:.1f} GB/s, must be {test.min_bandwidth:.1f} or more"
        return GroupResult(group, passed=False, value=slowest, evidence=text)
    ended = {pod.outcome_at(now, test.timeout_s) for pod in pods}
    failed = next((pod for pod in pods if pod.outcome is Outcome.FAILED), None)
    if failed is None and Outcome.BROKEN in ended:
        return None
    if Outcome.FAILED in ended:
        bad = failed or next(pod for pod in pods if pod.outcome is Outcome.RUNNING)
        text = bad.evidence if failed is not None else "no end in time"
        return GroupResult(group, passed=False, value=slowest, evidence=f"{bad.blade}: {text}")
    if slowest is None and test.min_bandwidth > 0:
        return None
    return GroupResult(group, passed=True, value=slowest)


def _slowest(pods: Iterable[WorkPod]) -> float | None:
    """Return the bandwidth of the group; one of its ranks is enough to say it."""
    told = (pod.value for pod in pods if pod.outcome is not Outcome.BROKEN)
    return min((value for value in told if value is not None), default=None)


def _why_broken(pods: Sequence[WorkPod], test: Test, now: float) -> str:
    """Return why a group showed nothing, for people."""
    if not _is_whole(pods):
        return "a pod is missing"
    late = [pod for pod in pods if pod.outcome is Outcome.RUNNING]
    for pod in (*(pod for pod in pods if pod.outcome is Outcome.BROKEN), *late):
        if pod.outcome_at(now, test.timeout_s) is Outcome.BROKEN:
            return f"{pod.blade}: {qualify.why_broken(pod, test)}"
    return (
        "all exited with 0 and none says the bandwidth: the last line of one must be "
        '{"value": 341.5}, in GB/s'
    )


def _tests(candidates: Iterable[Candidate]) -> tuple[bisect.GroupTest, ...]:
    """Return the tests whose members all still have them in their records: the second table."""
    members: dict[str, list[Candidate]] = defaultdict(list)
    for one in candidates:
        for group in one.results:
            members[group].append(one)
    return tuple(
        found
        for group in sorted(members)
        if len(members[group]) == _size(group)
        for found in _test(group, members[group])
    )


def _test(group: str, members: Sequence[Candidate]) -> Iterator[bisect.GroupTest]:
    names = frozenset(one.name for one in members)
    if not all(one.results[group] for one in members):
        since = (one.name for one in members if not one.waits and group not in one.failed)
        yield bisect.GroupTest(names, passed=False, since=frozenset(since))
    elif any(one.waits for one in members):
        yield bisect.GroupTest(names, passed=True)


def _partners(candidates: Iterable[Candidate], in_group: Mapping[str, str]) -> tuple[str, ...]:
    """Return Healthy idle blades to test others with; those who failed with others come last."""
    idle = [one for one in candidates if one.idle and one.name not in in_group]
    halves = ([one.name for one in idle if bool(one.failed) is failed] for failed in (False, True))
    return tuple(name for half in halves for name in sorted(half)[:_MOST_PARTNERS])


def _is_time(
    candidates: Iterable[Candidate], waiting: Sequence[Candidate], test: Test, now: float
) -> bool:
    """Return whether to begin: a full group is there, nobody else comes, or it was long enough."""
    suspects = any(one.results for one in waiting)
    if suspects or len(waiting) >= test.group_size or not any(one.earlier for one in candidates):
        return True
    return now - min(one.since for one in waiting) > _WAIT_FOR_OTHERS_S


def _name(members: Iterable[Candidate]) -> str:
    """Return a group's name: the same members who remember the same are the same group.

    What they have in their records goes in, so it cannot be a name that one of them has there.
    """
    known = sorted((one.name, one.since, sorted(one.results)) for one in members)
    return f"{hashlib.sha256(str(known).encode()).hexdigest()[:8]}-{len(known)}"


def _size(group: str) -> int:
    size = group.rpartition("-")[2]
    return int(size) if size.isdecimal() else 0
