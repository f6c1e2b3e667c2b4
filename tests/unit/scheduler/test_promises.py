"""Promises keep their time and their blades, whoever comes after."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.scheduler.engine import Pass, decide
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.timetable import Promise
from unit.scheduler.builders import NOW, Hall, gang
from unit.scheduler.test_properties import gangs, halls, thorough, written
from unit.scheduler.test_waiting import runs


def decided(
    hall: Hall, records: list[GangRecord], before: Mapping[str, Promise] | None = None
) -> Pass:
    return decide(hall.fleet, {r.key: r for r in records}, hall.pods, NOW, promises=before)


def later_than_promised(first: Pass, again: Pass) -> list[str]:
    """Return the gangs that start later than they were promised, or are promised nothing more."""
    later = []
    for key, promise in first.promises.items():
        outcome = again.outcomes[key]
        if outcome.placement is None and (outcome.reserved_s or math.inf) > promise.start_s:
            later.append(key)
    return later


def crowd() -> tuple[Hall, list[GangRecord]]:
    """Return a hall in which `w1` may start at once, beside the promises of all others.

    Where it sits then, one slice of two fits less well than elsewhere. If `w0` looked for its
    blades anew, it would take those of `w2`, `w2` that of `w4`, and `w4` would wait 200 s longer.
    """
    hall = Hall([5, 4, 4, 3])
    sit = {
        ("r0-2", "r3-2", "r0-1"): 300.0,
        ("r2-0", "r0-3"): 600.0,
        ("r3-0",): 100.0,
        ("r3-1", "r0-4"): 600.0,
        ("r1-0", "r2-3"): 500.0,
        ("r1-1", "r0-0", "r1-3"): 100.0,
        ("r2-2", "r2-1"): 100.0,
    }
    slices = {"slice_size": 2, "slice_level": "rack"}
    wait = [
        gang("w0", 2, max_runtime_s=600.0, **slices),
        gang("w1", 1, max_runtime_s=400.0, pack="rack"),
        gang("w2", 3, max_runtime_s=400.0, pack="rack"),
        gang("w3", 2, max_runtime_s=900.0, **slices),
        gang("w4", 1, max_runtime_s=500.0),
    ]
    return hall, [
        replace(one, preemptible=False, created_s=NOW - 50 + number)
        for number, one in enumerate(
            [*(runs(f"s{i}", *seats, for_s=s) for i, (seats, s) in enumerate(sit.items())), *wait]
        )
    ]


def test_blades_that_were_promised_are_not_chosen_anew() -> None:
    hall, records = crowd()
    first = decided(hall, records)
    assert first.outcomes["ns/w1"].placement is not None
    after = written(records, first)
    again = decided(hall, after, first.promises)
    assert again.promises == first.promises
    # A process that has just started knows of no promises: it makes them anew.
    assert later_than_promised(first, decided(hall, after)) == ["ns/w4"]


def test_a_gang_starts_on_the_blades_that_it_was_promised() -> None:
    hall, record = Hall([2, 2]), gang("w", 1, max_runtime_s=100.0)
    best = decided(hall, [record]).outcomes["ns/w"].placement
    assert best is not None
    promised = next(one for one in ("r1-1", "r0-0") if one not in best.seats)
    promise = Promise(record.uid, record.generation, NOW, Placement((promised,), ()))

    for before, seats in (({"ns/w": promise}, (promised,)), ({}, best.seats)):
        placement = decided(hall, [record], before).outcomes["ns/w"].placement
        assert placement is not None
        assert placement.seats == seats


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"uid": "another"}, id="another-gang-of-the-name"),
        pytest.param({"generation": 2}, id="another-spec"),
    ],
)
def test_a_promise_to_other_words_is_void(more: dict[str, Any]) -> None:
    hall, records = crowd()
    first = decided(hall, records)
    after = [replace(one, **more) for one in written(records, first)]
    anew = decided(hall, after)
    assert {k: p.placement for k, p in decided(hall, after, first.promises).promises.items()} == {
        k: p.placement for k, p in anew.promises.items()
    }


def test_a_promise_is_dropped_where_its_blades_are_out_or_the_hall_is_laid_out_anew() -> None:
    hall, records = crowd()
    first = decided(hall, records)
    after = written(records, first)
    kept = first.promises["ns/w0"].placement.seats
    hall.break_(kept[0])
    assert decided(hall, after, first.promises).promises["ns/w0"].placement.seats != kept
    hall, _ = crowd()
    for name in kept[:1]:  # no longer in the rack of the other one of its slice
        labels = {**hall.nodes[name].labels, "topology/rack": "elsewhere"}
        hall.nodes[name] = replace(hall.nodes[name], labels=labels)
    assert decided(hall, after, first.promises).promises["ns/w0"].placement.seats != kept


def test_blades_that_are_free_sooner_are_taken_instead() -> None:
    hall, records = crowd()
    first = decided(hall, records)
    after = [
        replace(one, max_runtime_s=50.0) if one.key in {"ns/s2", "ns/s5"} else one
        for one in written(records, first)
    ]
    again = decided(hall, after, first.promises)
    assert again.promises["ns/w0"].start_s == NOW + 50
    assert not later_than_promised(first, again)


@st.composite
def limited(draw: st.DrawFn) -> list[GangRecord]:
    """Return gangs that end, ask nobody to give way and hold no spares."""
    return [
        replace(
            draw(gangs(f"g{i}")),
            spares=0,
            preemptible=False,
            max_runtime_s=float(draw(st.integers(1, 9)) * 100),
        )
        for i in range(draw(st.integers(2, 9)))
    ]


@thorough
@given(halls(), limited())
def test_nobody_waits_longer_because_of_those_who_started(
    hall: Hall, queue: list[GangRecord]
) -> None:
    """Whoever starts in a pass is seen in the next one: what was promised beside him holds."""
    first = decided(hall, queue)
    again = decided(hall, written(queue, first), first.promises)
    assert not later_than_promised(first, again)
