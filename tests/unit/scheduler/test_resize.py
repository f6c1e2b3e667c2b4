"""A gang that is placed anew keeps as many of its blades as can be."""

import pytest

from tramontane.scheduler.gangs import Ask, GangRecord, Placement, Slot
from tramontane.scheduler.leaving import leaving, without
from tramontane.scheduler.records import GPU, amounts
from tramontane.scheduler.resize import anew
from unit.scheduler.builders import NOW, WHOLE, Hall, gang, placed

NVME = Ask(WHOLE, (("disk", "nvme"),))


def resized(hall: Hall, record: GangRecord, size: int, *others: GangRecord) -> list[str] | None:
    snapshot = hall.snapshot(record, *others)
    room = without(snapshot, [leaving(snapshot, record, NOW)])
    seats = anew(room, record, size, NOW)
    return None if seats is None else list(seats)


@pytest.mark.parametrize(
    ("racks", "record", "size", "expected"),
    [
        pytest.param(
            [4, 4], placed("g", ["r0-2", "r0-3"]), 4, ["r0-0", "r0-1", "r0-2", "r0-3"], id="grows"
        ),
        pytest.param(
            [3, 6],
            placed("g", ["r0-0", "r0-1"]),
            4,
            ["r0-0", "r0-1", "r0-2", "r1-0"],
            id="keeps-its-own-where-another-rack-would-hold-all",
        ),
        pytest.param(
            [4, 4],
            placed("g", ["r0-0", "r0-1", "r0-2", "r1-3"]),
            2,
            ["r0-0", "r0-1"],
            id="shrinks-to-what-is-nearest-together",
        ),
        pytest.param(
            [4],
            placed("g", ["r0-0", "r0-1", "r0-2"], lost=((1, "r0-1"),)),
            2,
            ["r0-0", "r0-2"],
            id="shrinks-around-what-is-lost",
        ),
        pytest.param(
            [4],
            placed("g", ["r0-0", "r0-1", "r0-2"], lost=((0, "r0-0"), (1, "r0-1"))),
            2,
            ["r0-2", "r0-3"],
            id="shrinks-and-takes-a-free-one",
        ),
        pytest.param(
            [4],
            placed("g", ["r0-0"], lost=((0, "r0-1"),)),
            3,
            ["r0-0", "r0-2", "r0-3"],
            id="a-blade-lost-before-is-not-taken",
        ),
        pytest.param(
            [2, 2],
            placed("g", ["r0-0"], ["r1-1"]),
            2,
            ["r0-0", "r1-1"],
            id="its-spare-first",
        ),
        pytest.param(
            [3, 5],
            placed("g", ["r0-0", "r0-1"], pack="rack", required=True),
            4,
            ["r1-0", "r1-1", "r1-2", "r1-3"],
            id="required-moves-as-a-whole",
        ),
        pytest.param(
            [3, 3],
            placed("g", ["r0-0", "r0-1"], pack="rack", required=True),
            4,
            None,
            id="required-does-not-fit",
        ),
        pytest.param(
            [1, 1, 2],
            placed("g", ["r0-0", "r1-0"], pack="rack", required=True),
            1,
            ["r0-0"],
            id="required-that-was-relaxed-stays-so",
        ),
        pytest.param(
            [4, 4, 2],
            placed("g", ["r0-0", "r0-1", "r1-0", "r1-1"], slice_size=2, slice_level="rack"),
            6,
            ["r0-0", "r0-1", "r1-0", "r1-1", "r1-2", "r1-3"],
            id="a-slice-more",
        ),
        pytest.param(
            [2, 2, 2],
            placed(
                "g",
                ["r0-0", "r0-1", "r1-0", "r1-1"],
                lost=((1, "r0-1"),),
                slice_size=2,
                slice_level="rack",
            ),
            2,
            ["r1-0", "r1-1"],
            id="a-slice-less",
        ),
        pytest.param(
            [2, 1, 2],
            placed(
                "g",
                ["r0-0", "r0-1", "r2-0", "r2-1"],
                lost=((1, "r0-1"), (2, "r2-0")),
                slice_size=2,
                slice_level="rack",
            ),
            2,
            None,
            id="no-whole-slice",
        ),
        pytest.param([2], placed("g", ["r0-0"]), 3, None, id="too-few"),
    ],
)
def test_as_many_of_its_blades_are_kept_as_can_be(
    racks: list[int], record: GangRecord, size: int, expected: list[str] | None
) -> None:
    assert resized(Hall(racks), record, size) == expected


def test_a_broken_slice_is_made_whole_elsewhere() -> None:
    record = placed(
        "g",
        ["r0-0", "r0-1", "r1-0", "r1-1"],
        lost=((1, "r0-1"), (2, "r1-0")),
        slice_size=2,
        slice_level="rack",
    )
    assert resized(Hall([2, 2, 2]), record, 2) == ["r2-0", "r2-1"]


def test_blades_out_of_service_or_avoided_are_not_kept() -> None:
    hall = Hall([4])
    hall.break_("r0-0")
    record = placed("g", ["r0-0", "r0-1"], avoid=frozenset({"r0-1"}))
    assert resized(hall, record, 2) == ["r0-2", "r0-3"]
    assert resized(hall, record, 3) is None


def test_what_others_have_is_not_taken() -> None:
    record, other = placed("g", ["r0-0"]), placed("h", ["r0-1"], ["r0-2"])
    assert resized(Hall([4]), record, 2, other) == ["r0-0", "r0-3"]
    assert resized(Hall([4]), record, 3, other) is None


def test_each_slot_keeps_what_serves_it() -> None:
    hall = Hall([0])
    for labels in ({"disk": "nvme"}, {}, {}, {}, {"disk": "nvme"}):
        hall.add(0, labels=labels)
    slots = (Slot("a", 2, Ask(WHOLE)), Slot("b", 1, NVME))
    seats = Placement(("r0-1", "r0-2", "r0-0"))
    record = gang("g", slots=slots, sizes=(3, 2, 1), placement=seats)
    grown = resized(hall, record, 3)
    assert grown is not None
    assert set(grown[:3]) == {"r0-1", "r0-2", "r0-3"}
    assert grown[3] == "r0-0"
    assert resized(hall, record, 1) in (["r0-1", "r0-0"], ["r0-2", "r0-0"])


def test_half_blades_stay_half() -> None:
    hall = Hall([2])
    half = Ask(amounts({GPU: "4"}))
    record, other = placed("g", ["r0-0"], ask=half), placed("h", ["r0-0"], ask=half)
    assert resized(hall, record, 2, other) == ["r0-0", "r0-1"]
