"""What is known of a gang between a write, its answer and the watch."""

from dataclasses import replace

import pytest

from tramontane.scheduler.gangs import GangRecord, Placement, Told
from tramontane.scheduler.memory import Memory
from unit.scheduler.builders import gang, placed

PENDING = gang("g", 2, version=5)
WRITTEN = placed("g", ["a", "b"], version=6)
EDITED = placed("g", ["a", "a"], version=7)


def seats(memory: Memory) -> tuple[str, ...] | None:
    gangs, _ = memory.gangs()
    found = gangs["ns/g"].placement
    return found.seats if found else None


def test_the_answer_to_a_write_counts_until_the_watch_is_as_new() -> None:
    memory = Memory()
    assert memory.observe("ns/g", PENDING)
    memory.wrote(WRITTEN)
    assert seats(memory) == ("a", "b")
    assert not memory.observe("ns/g", PENDING), "an old event is no news"
    assert not memory.observe("ns/g", WRITTEN), "our own echo is no news"
    assert seats(memory) == ("a", "b")
    assert memory.observe("ns/g", replace(WRITTEN, version=8, priority=3))
    assert memory.seen["ns/g"].priority == 3


def test_a_write_without_an_answer_counts_as_given() -> None:
    memory = Memory()
    memory.observe("ns/g", PENDING)
    memory.hope(replace(PENDING, placement=WRITTEN.placement))
    assert memory.unsure("ns/g")
    assert seats(memory) == ("a", "b")
    assert memory.seen["ns/g"].placement is None
    memory.observe("ns/g", WRITTEN)
    assert not memory.unsure("ns/g")
    assert memory.gangs() == ({"ns/g": WRITTEN}, {})


def test_a_write_that_was_not_done_is_forgotten() -> None:
    memory = Memory()
    memory.observe("ns/g", PENDING)
    memory.hope(replace(PENDING, placement=WRITTEN.placement))
    memory.give_up("ns/g")
    assert seats(memory) is None


def test_a_hope_that_came_true_is_protected_against_edits() -> None:
    memory = Memory()
    memory.observe("ns/g", PENDING)
    memory.hope(replace(PENDING, placement=WRITTEN.placement))
    memory.observe("ns/g", WRITTEN)
    memory.observe("ns/g", EDITED)
    assert seats(memory) == ("a", "b")


@pytest.mark.parametrize("how", ["written", "adopted"])
def test_an_edit_is_put_back(how: str) -> None:
    memory = Memory()
    memory.observe("ns/g", PENDING if how == "written" else WRITTEN)
    if how == "written":
        memory.wrote(WRITTEN)
    else:
        memory.adopt("ns/g")
    memory.observe("ns/g", EDITED)
    gangs, findings = memory.gangs()
    assert gangs["ns/g"].placement == Placement(("a", "b"))
    assert gangs["ns/g"].told.epoch == EDITED.told.epoch + 1
    assert findings["ns/g"].mended


def test_a_placement_that_was_not_trusted_may_be_corrected() -> None:
    memory = Memory()
    memory.observe("ns/g", EDITED)
    memory.wrote(replace(EDITED, version=8), trusted=False)
    memory.observe("ns/g", replace(WRITTEN, version=9))
    assert seats(memory) == ("a", "b")


@pytest.mark.parametrize(
    "later",
    [
        pytest.param([None, replace(PENDING, version=9)], id="deleted-and-made-anew"),
        pytest.param([replace(PENDING, version=9, uid="another")], id="made-anew-unseen"),
    ],
)
def test_a_new_gang_of_the_name_starts_afresh(later: list[GangRecord | None]) -> None:
    memory = Memory()
    memory.observe("ns/g", WRITTEN)
    memory.adopt("ns/g")
    for record in later:
        assert memory.observe("ns/g", record)
    assert seats(memory) is None
    assert not memory.observe("ns/other", None)


def test_a_hope_for_a_gang_that_is_gone_is_none() -> None:
    memory = Memory()
    memory.hope(replace(PENDING, told=Told(), placement=WRITTEN.placement))
    assert memory.gangs() == ({}, {})
