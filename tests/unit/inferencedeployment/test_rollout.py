"""How a revision replaces another: each step by itself, and whole rollouts over a small hall."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api import clock
from tramontane.api.inferencedeployment import Rollout, RolloutStep, RolloutStrategy
from tramontane.api.inferencestatus import (
    MAX_REVISIONS,
    Revision,
    RevisionVerdict,
    RolloutStatus,
)
from tramontane.controllers.inferencedeployment.rollout import Rolled, Standing, roll
from unit.inferencedeployment.loads import NOW, a_load, alike

OBSERVING, ACCEPTED, REJECTED = RevisionVerdict
FINE = (a_load(alike(0.12, 200)),)
SLOW = (a_load(alike(0.18, 200)),)
STEPS = (RolloutStep(weight=5, hold="10m"), RolloutStep(weight=50, hold="10m"))


def ago(seconds: float) -> str:
    return clock.utc(NOW - seconds)


def revision(hash_: str, verdict: RevisionVerdict | None, **fields: Any) -> Revision:
    return Revision(hash=hash_, verdict=verdict, **fields)


KNOWN = (revision("a", ACCEPTED), revision("b", OBSERVING))


def at(step: int, since: float | None = None, *, serial: bool = False) -> RolloutStatus:
    """Return a rollout from a to b at a step whose hold began so many seconds ago."""
    begun = None if since is None else ago(since)
    return RolloutStatus(from_="a", to="b", step=step, since=begun, serial=serial)


def rolled(
    *standings: Standing,
    rollout: RolloutStatus | None = None,
    known: tuple[Revision, ...] = KNOWN,
    spec_is: str = "b",
    wanted: int = 4,
    strategy: RolloutStrategy = RolloutStrategy.AUTO,
    steps: tuple[RolloutStep, ...] = STEPS,
) -> Rolled:
    spec = Rollout(strategy=strategy, steps=steps)
    by_hash = {one.hash: one for one in standings}
    return roll(NOW, spec_is, wanted, spec, None, known, rollout, by_hash)


def verdicts(answer: Rolled) -> dict[str, RevisionVerdict | None]:
    return {one.hash: one.verdict for one in answer.revisions}


def whats(answer: Rolled) -> list[str]:
    return [what for what, _ in answer.decisions]


def s(hash_: str, live: int, serving: int | None = None, **fields: Any) -> Standing:
    return Standing(hash_, live, live if serving is None else serving, **fields)


@pytest.mark.parametrize(
    ("standings", "verdict", "decided"),
    [
        pytest.param([], OBSERVING, [], id="nothing yet"),
        pytest.param([s("a", 4, 0)], OBSERVING, [], id="it loads"),
        pytest.param([s("a", 4, 0, failed="EngineFailed")], OBSERVING, [], id="it cannot start"),
        pytest.param([s("a", 4, 1)], ACCEPTED, ["accept a"], id="one serves"),
    ],
)
def test_the_first_revision_is_not_judged(
    standings: list[Standing], verdict: RevisionVerdict, decided: list[str]
) -> None:
    answer = rolled(*standings, known=(), spec_is="a")
    assert (answer.targets, answer.weights) == ({"a": 4}, {"a": 100})
    assert (verdicts(answer), whats(answer)) == ({"a": verdict}, decided)
    assert answer.rollout is None


@pytest.mark.parametrize(
    ("old", "new", "rollout", "targets", "weight"),
    [
        # Surge
        pytest.param(s("a", 4), s("b", 0), at(0), (4, 1), 0, id="one comes"),
        pytest.param(s("a", 4), s("b", 1, 0), at(0), (4, 1), 0, id="it loads"),
        pytest.param(s("a", 4), s("b", 1), at(0), (4, 1), 5, id="it serves"),
        pytest.param(s("a", 4), s("b", 1), at(1), (3, 1), 25, id="one of the old leaves first"),
        pytest.param(s("a", 3), s("b", 1), at(1), (3, 2), 25, id="then one comes"),
        pytest.param(s("a", 3), s("b", 2, 1), at(1), (3, 2), 25, id="half of the step serves"),
        pytest.param(s("a", 3), s("b", 2), at(1), (3, 2), 50, id="the step serves"),
        pytest.param(s("a", 3), s("b", 2), at(2), (2, 2), 50, id="all: one leaves"),
        pytest.param(s("a", 2), s("b", 2), at(2), (2, 3), 50, id="all: one comes"),
        pytest.param(s("a", 2), s("b", 3), at(2), (1, 3), 75, id="all: it serves"),
        pytest.param(s("a", 1), s("b", 4, 3), at(2), (1, 4), 75, id="all: the last one loads"),
        pytest.param(s("a", 2), s("b", 3, 2), at(2), (2, 3), 50, id="one fails: as they were"),
        pytest.param(s("a", 3, 0), s("b", 2), at(1), (3, 2), 100, id="no old one answers"),
        pytest.param(s("a", 2, 1), s("b", 2), at(1), (3, 2), 50, id="an old one fails"),
        # Serial
        pytest.param(s("a", 4), s("b", 0), at(0, serial=True), (3, 1), 0, id="one makes room"),
        pytest.param(s("a", 3), s("b", 1), at(0, serial=True), (3, 1), 5, id="serial: it serves"),
        pytest.param(s("a", 3), s("b", 1), at(1, serial=True), (2, 2), 25, id="serial: the next"),
        pytest.param(s("a", 2), s("b", 2), at(2, serial=True), (1, 3), 50, id="serial: all"),
        pytest.param(s("a", 1), s("b", 3), at(2, serial=True), (0, 4), 75, id="serial: the last"),
        pytest.param(s("a", 1), s("b", 3, 2), at(2, serial=True), (1, 3), 66, id="serial: fails"),
    ],
)
def test_replicas_and_requests(
    old: Standing, new: Standing, rollout: RolloutStatus, targets: tuple[int, int], weight: int
) -> None:
    strategy = RolloutStrategy.SERIAL if rollout.serial else RolloutStrategy.SURGE
    answer = rolled(old, new, rollout=rollout, strategy=strategy)
    assert (answer.targets["a"], answer.targets["b"]) == targets
    assert answer.weights == {"a": 100 - weight, "b": weight}
    assert [one.weight for one in answer.revisions] == [100 - weight, weight]


@pytest.mark.parametrize(
    ("wanted", "steps", "serial", "targets"),
    [
        pytest.param(1, STEPS, False, {"a": 1, "b": 1}, id="one replica"),
        pytest.param(1, STEPS, True, {"a": 0, "b": 1}, id="one replica, serially"),
        pytest.param(4, (), False, {"a": 4, "b": 1}, id="no steps"),
        pytest.param(4, (), True, {"a": 3, "b": 1}, id="no steps, serially"),
        pytest.param(0, STEPS, False, {}, id="scaled to zero"),
    ],
)
def test_where_it_begins(
    wanted: int, steps: tuple[RolloutStep, ...], serial: bool, targets: dict[str, int]
) -> None:
    strategy = RolloutStrategy.SERIAL if serial else RolloutStrategy.SURGE
    answer = rolled(s("a", wanted), wanted=wanted, steps=steps, strategy=strategy)
    assert answer.targets == targets
    assert answer.rollout == at(0, serial=serial)
    assert whats(answer) == ["roll out b"]


@pytest.mark.parametrize(
    ("new", "rollout", "step", "since", "decided"),
    [
        pytest.param(s("b", 1, 0), at(0), 0, None, [], id="it loads"),
        pytest.param(s("b", 1), at(0), 0, 0, [], id="the hold begins"),
        pytest.param(s("b", 1), at(0, 599), 0, 599, [], id="it goes on"),
        pytest.param(s("b", 1), at(0, 600), 1, None, ["give 50 % of the requests to b"],
                     id="the next step"),
        pytest.param(s("b", 1, 0), at(0, 600), 0, None, [], id="nobody serves any more"),
        pytest.param(s("b", 1), at(1, None), 1, None, [], id="half of the next step"),
        pytest.param(s("b", 2), at(1, None), 1, 0, [], id="the next hold begins"),
        pytest.param(s("b", 2, 1), at(1, 300), 1, 300, [], id="half of it still serves"),
        pytest.param(s("b", 2, 1), at(1, 600), 1, 600, [], id="over, but one is missing"),
        pytest.param(s("b", 2), at(1, 600), 2, None, ["give all requests to b"], id="all"),
        pytest.param(s("b", 4, 3), at(2), 2, None, [], id="all but one serve"),
        pytest.param(s("b", 2), at(7), 7, None, [], id="there are fewer steps now"),
    ],
)  # fmt: skip
def test_steps(
    new: Standing, rollout: RolloutStatus, step: int, since: float | None, decided: list[str]
) -> None:
    answer = rolled(s("a", 3), new, rollout=rollout)
    assert answer.rollout == at(step, since)
    assert whats(answer) == decided
    assert all(why for _, why in answer.decisions)


def test_it_says_when_a_hold_is_over() -> None:
    assert rolled(s("a", 4), s("b", 1), rollout=at(0, 200)).after == 400
    assert rolled(s("a", 4), s("b", 1, 0), rollout=at(0)).after is None


def test_the_last_replica_makes_it_accepted_and_the_old_one_stays_listed() -> None:
    answer = rolled(s("a", 1), s("b", 4), rollout=at(2))
    assert verdicts(answer) == {"a": ACCEPTED, "b": ACCEPTED}
    assert [(one.hash, one.weight) for one in answer.revisions] == [("a", 0), ("b", 100)]
    assert (answer.targets, answer.weights, answer.rollout) == ({"b": 4}, {"b": 100}, None)
    again = rolled(s("b", 4), known=answer.revisions)
    assert (again.targets, again.decisions) == ({"b": 4}, ())


def test_a_slow_one_is_rolled_back_and_not_tried_again() -> None:
    old, new = s("a", 4, load=FINE), s("b", 1, load=SLOW)
    answer = rolled(old, new, rollout=at(0, 60))
    assert verdicts(answer) == {"a": ACCEPTED, "b": REJECTED}
    assert (answer.targets, answer.weights, answer.rollout) == ({"a": 4}, {"a": 100}, None)
    assert answer.decisions == (("roll back b to a", answer.revisions[1].why),)
    assert "1.50 times" in (answer.revisions[1].why or "")
    again = rolled(s("a", 4), known=answer.revisions)
    assert (again.targets, again.rollout, again.decisions) == ({"a": 4}, None, ())
    assert again.revisions[1].why == answer.revisions[1].why


@pytest.mark.parametrize(
    ("rollout", "new"),
    [
        pytest.param(at(0), s("b", 1, 0, failed="ArtifactMismatch"), id="before its hold"),
        pytest.param(at(1, 10), s("b", 2, failed="EngineFailed"), id="in its hold"),
        pytest.param(at(2), s("b", 3, failed="EngineFailed"), id="with all requests"),
        pytest.param(at(2), s("b", 3, load=SLOW), id="slow with all requests"),
    ],
)
def test_it_is_rejected_at_any_time(rollout: RolloutStatus, new: Standing) -> None:
    answer = rolled(s("a", 3, load=FINE), new, rollout=rollout)
    assert verdicts(answer)["b"] is REJECTED
    assert answer.rollout is None


@pytest.mark.parametrize(
    ("strategy", "standings", "serial"),
    [
        pytest.param("Auto", [s("a", 4), s("b", 1, 0)], False, id="it loads"),
        pytest.param("Auto", [s("a", 4), s("b", 1, 0, waiting_for_capacity=True)], True,
                     id="it waits"),
        pytest.param("Surge", [s("a", 4), s("b", 1, 0, waiting_for_capacity=True)], False,
                     id="Surge waits for ever"),
        pytest.param("Serial", [s("a", 4), s("b", 1, 0)], True, id="Serial"),
        pytest.param("Auto", [s("a", 4, leaving=1), s("b", 1, 0, waiting_for_capacity=True)], False,
                     id="one is leaving"),
        pytest.param("Auto", [s("a", 5), s("b", 1, 0, waiting_for_capacity=True)], False,
                     id="one is about to leave"),
        pytest.param("Auto", [s("a", 4), s("b", 1, 0, waiting_for_capacity=True), s("c", 1)], False,
                     id="another revision's is about to leave"),
    ],
)  # fmt: skip
def test_auto_turns_serial_where_nothing_else_makes_room(
    strategy: str, standings: list[Standing], serial: bool
) -> None:
    answer = rolled(*standings, rollout=at(0), strategy=RolloutStrategy(strategy))
    assert answer.serial == serial
    assert whats(answer) == (["roll out b serially"] if serial and strategy == "Auto" else [])
    assert answer.rollout is not None
    again = rolled(s("a", 4), s("b", 1), rollout=answer.rollout, strategy=RolloutStrategy(strategy))
    assert again.serial == serial


def test_where_the_old_one_cannot_start_nobody_waits_for_steps() -> None:
    answer = rolled(s("a", 4, 0, failed="EngineFailed"), s("b", 1), rollout=at(0, 10))
    assert answer.rollout == at(2)
    assert whats(answer) == ["give all requests to b"]
    assert answer.targets == {"a": 0, "b": 4}


@pytest.mark.parametrize(
    ("spec_is", "standings", "targets", "weights", "candidate"),
    [
        pytest.param("a", [s("a", 3), s("b", 2)], {"a": 4, "b": 1}, {"a": 75, "b": 25}, None,
                     id="back: it stays until the old ones are back"),
        pytest.param("a", [s("a", 4), s("b", 1)], {"a": 4}, {"a": 100}, None, id="back: all there"),
        pytest.param("c", [s("a", 4), s("b", 1)], {"a": 4, "c": 1}, {"a": 100, "c": 0}, "c",
                     id="a third one"),
        pytest.param("c", [s("a", 1), s("b", 3)], {"a": 4, "b": 3, "c": 1},
                     {"a": 25, "b": 75, "c": 0}, "c", id="a third one, late"),
    ],
)  # fmt: skip
def test_another_spec_in_the_middle(
    spec_is: str,
    standings: list[Standing],
    targets: dict[str, int],
    weights: dict[str, int],
    candidate: str | None,
) -> None:
    answer = rolled(*standings, rollout=at(1, 5), spec_is=spec_is)
    assert (answer.targets, answer.weights) == (targets, weights)
    assert (answer.rollout.to if answer.rollout else None) == candidate
    assert verdicts(answer)["b"] is None
    assert whats(answer)[0] == "give up b"
    again = rolled(*standings, known=answer.revisions, rollout=answer.rollout, spec_is=spec_is)
    assert (again.targets, again.decisions) == (targets, ())


def test_one_that_was_given_up_may_come_again() -> None:
    known = rolled(s("a", 4), s("b", 1), rollout=at(0), spec_is="a").revisions
    answer = rolled(s("a", 4), known=known)
    assert verdicts(answer)["b"] is OBSERVING
    assert answer.rollout == at(0)


def test_an_accepted_one_that_comes_again_is_watched_again() -> None:
    known = (revision("b", ACCEPTED), revision("a", ACCEPTED))
    answer = rolled(s("a", 4), known=known)
    assert answer.rollout == at(0)
    done = rolled(s("b", 4), known=answer.revisions, rollout=at(2))
    assert [one.hash for one in done.revisions] == ["a", "b"]
    assert set(verdicts(done).values()) == {ACCEPTED}


def test_the_list_keeps_what_must_not_be_forgotten() -> None:
    old = tuple(revision(f"o{n}", ACCEPTED) for n in range(5))
    bad = tuple(revision(f"r{n}", REJECTED) for n in range(5))
    given_up = (revision("g", None),)
    known = (*bad, *old, *given_up, revision("b", OBSERVING))
    answer = rolled(s("o4", 4), s("b", 1), known=known)
    hashes = [one.hash for one in answer.revisions]
    assert len(hashes) == MAX_REVISIONS
    assert hashes == [*(f"r{n}" for n in range(5)), "o2", "o3", "o4", "g", "b"]


def test_what_others_wrote_into_a_revision_stays() -> None:
    digest = "sha256:" + "0" * 64
    known = (revision("a", ACCEPTED, digest=digest, training_job="t"), KNOWN[1])
    answer = rolled(s("a", 4), s("b", 1), known=known, rollout=at(0))
    assert (answer.revisions[0].digest, answer.revisions[0].training_job) == (digest, "t")
    assert [one.ready for one in answer.revisions] == [4, 1]


@dataclass
class Hall:
    """A hall with so many places, and whoever fills and empties it as `roll` says.

    A replica takes a place at once, if there is one, serves `slow` rounds later, and drains for as
    long. Who must leave does so only where enough others serve.
    """

    places: int
    wanted: int
    strategy: RolloutStrategy
    slow: int
    floor: int
    known: tuple[Revision, ...] = (revision("a", ACCEPTED),)
    rollout: RolloutStatus | None = None
    now: float = NOW
    live: dict[str, list[int | None]] = field(default_factory=dict)  # rounds left; None: waits
    leaving: list[tuple[str, int]] = field(default_factory=list)
    least: int = 10**9
    broken: str = ""

    def serving(self) -> int:
        return sum(one == 0 for ages in self.live.values() for one in ages)

    def standing(self, hash_: str) -> Standing:
        ages = self.live.get(hash_, [])
        return Standing(
            hash_,
            len(ages),
            sum(one == 0 for one in ages),
            waiting_for_capacity=None in ages,
            failed="EngineFailed" if hash_ == self.broken else "",
            leaving=sum(name == hash_ for name, _ in self.leaving),
        )

    def round(self, spec_is: str) -> Rolled:
        spec = Rollout(strategy=self.strategy, steps=STEPS)
        standings = {hash_: self.standing(hash_) for hash_ in self.live}
        answer = roll(
            self.now, spec_is, self.wanted, spec, None, self.known, self.rollout, standings
        )
        self.known, self.rollout = answer.revisions, answer.rollout
        for hash_, ages in self.live.items():
            for _ in range(len(ages) - answer.targets.get(hash_, 0)):
                idle = [one for one in ages if one != 0]
                enough = self.wanted - (answer.serial or self.floor < self.wanted)
                if idle:
                    ages.remove(idle[0])
                    if idle[0] is None:
                        continue
                elif self.serving() - 1 >= enough:
                    ages.remove(0)
                else:
                    break
                self.leaving.append((hash_, self.slow))
        for hash_, target in answer.targets.items():
            ages = self.live.setdefault(hash_, [])
            ages.extend([None] * (target - len(ages)))
        self._place()
        self.least = min(self.least, self.serving())
        assert sum(answer.weights.values()) == 100
        return answer

    def _place(self) -> None:
        self.now += 60
        self.leaving = [(name, left - 1) for name, left in self.leaving if left > 1]
        taken = len(self.leaving)
        taken += sum(one is not None for ages in self.live.values() for one in ages)
        for ages in self.live.values():
            for index, one in enumerate(ages):
                if one is None and taken < self.places:
                    ages[index], taken = self.slow, taken + 1
                elif one:
                    ages[index] = one - 1

    def settled(self, spec_is: str) -> bool:
        others = [ages for hash_, ages in self.live.items() if hash_ != spec_is and ages]
        return self.live.get(spec_is) == [0] * self.wanted and not others and not self.leaving


halls = st.builds(
    Hall,
    places=st.just(0),
    wanted=st.integers(1, 6),
    strategy=st.sampled_from([RolloutStrategy.AUTO, RolloutStrategy.SERIAL, RolloutStrategy.SURGE]),
    slow=st.integers(1, 4),
    floor=st.just(0),
)


def filled(hall: Hall, spare: int) -> Hall:
    live: dict[str, list[int | None]] = {"a": [0] * hall.wanted}
    surges = spare and hall.strategy is not RolloutStrategy.SERIAL
    floor = hall.wanted if surges else hall.wanted - 1
    return replace(hall, places=hall.wanted + spare, live=live, floor=floor)


@given(
    hall=halls,
    spare=st.integers(0, 2),
    turn=st.integers(1, 120),
    then=st.sampled_from(["back", "third", "broken"]),
)
def test_a_rollout_ends_wherever_it_is_turned_and_at_most_one_is_missing(
    hall: Hall, spare: int, turn: int, then: str
) -> None:
    if not spare and hall.strategy is RolloutStrategy.SURGE:
        spare = 1  # it waits for ever, and is meant to
    hall = filled(hall, spare)
    for _ in range(turn):
        hall.round("b")
    accepted = hall.known[-1].verdict is ACCEPTED
    spec_is = {"back": "a", "third": "c", "broken": "b"}[then]
    hall.broken = "b" if then == "broken" and not accepted else ""
    last = "a" if hall.broken else spec_is
    for _ in range(400):
        hall.round(spec_is)
        if hall.settled(last) and hall.rollout is None:
            break
    else:
        pytest.fail(f"never done: {hall}")
    # Two that are on their way at once may need more than the one spare place; what is rejected
    # does not wait until all others are back.
    crowded = then == "third" and hall.strategy is RolloutStrategy.AUTO
    assert hall.least >= min(hall.floor - crowded, hall.wanted - bool(hall.broken))


@pytest.mark.parametrize("spare", [0, 1])
def test_auto_with_a_spare_place_never_misses_a_replica(spare: int) -> None:
    hall = filled(Hall(0, 4, RolloutStrategy.AUTO, 3, 0), spare)
    serial = False
    for _ in range(200):
        serial = hall.round("b").serial or serial
    assert hall.settled("b")
    assert hall.least == 3 + spare
    assert serial == (not spare)
