"""Lost seats move, and nobody else does."""

import pytest

from tramontane.scheduler.gangs import Ask, GangRecord, Placement, Told
from tramontane.scheduler.records import GPU, amounts
from tramontane.scheduler.recover import Recovery, recover, refill
from unit.scheduler.builders import NOW, Hall, gang, placed

HALF = Ask(amounts({GPU: "4"}))


def recovered(hall: Hall, wanted: GangRecord, *others: GangRecord) -> Recovery:
    return recover(hall.snapshot(wanted, *others), wanted, NOW)


@pytest.mark.parametrize(
    ("racks", "record", "broken", "expected"),
    [
        pytest.param(
            [3, 3],
            placed("g", ["r0-0", "r0-1"], ["r1-0"], lost=((1, "r0-1"),)),
            [],
            ["r0-0", "r1-0"],
            id="the-own-spare-first",
        ),
        pytest.param(
            [3, 3],
            placed("g", ["r0-0", "r0-1"], ["r1-0"], lost=((1, "r0-1"),)),
            ["r1-0"],
            ["r0-0", "r0-2"],
            id="a-broken-spare-is-none",
        ),
        pytest.param(
            [2, 2, 2],
            placed("g", ["r0-0", "r0-1"], lost=((0, "r0-0"),)),
            [],
            ["r1-0", "r0-1"],
            id="the-same-block-before-another",
        ),
        pytest.param(
            [2, 0, 2],
            placed("g", ["r0-0", "r0-1"], lost=((0, "r0-0"),)),
            [],
            ["r2-0", "r0-1"],
            id="anywhere-when-preferred",
        ),
        pytest.param(
            [4],
            placed("g", ["r0-0", "r0-1"], lost=((0, "r0-0"), (1, "r0-1"))),
            [],
            ["r0-2", "r0-3"],
            id="all-of-them",
        ),
        pytest.param(
            [3],
            placed("g", ["r0-0", "r0-1"], lost=((0, "r0-2"), (1, "elsewhere"))),
            [],
            ["r0-0", "r0-1"],
            id="old-entries-are-ignored",
        ),
        pytest.param(
            [4],
            placed("g", ["r0-0", "r0-1"], lost=((0, "r0-2"), (0, "r0-0"))),
            [],
            ["r0-3", "r0-1"],
            id="a-blade-once-lost-is-not-taken-again",
        ),
        pytest.param(
            [4],
            placed("g", ["r0-0", "gone"], lost=((1, "gone"),)),
            [],
            ["r0-0", "r0-1"],
            id="the-lost-blade-is-gone-altogether",
        ),
        pytest.param(
            [3],
            placed("g", ["r0-0", "r0-1"], lost=((1, "r0-1"),), avoid=frozenset({"r0-2"})),
            [],
            None,
            id="avoided-blades-are-none",
        ),
        pytest.param(
            [2, 4],
            placed("g", ["r0-0", "r0-1"], lost=((1, "r0-1"),), pack="rack", required=True),
            [],
            None,
            id="required-never-leaves-its-rack",
        ),
        pytest.param(
            [2, 2, 4],
            placed(
                "g", ["r0-0", "r1-0"], ["r2-0"], lost=((1, "r1-0"),), pack="block", required=True
            ),
            [],
            ["r0-0", "r1-1"],
            id="required-leaves-its-spare-elsewhere",
        ),
        pytest.param(
            [2, 2],
            placed("g", ["r0-0", "r1-0"], lost=((1, "r1-0"),), pack="rack", required=True),
            [],
            ["r0-0", "r0-1"],
            id="required-comes-together-again",
        ),
        pytest.param(
            [1, 1, 1, 1],
            placed("g", ["r0-0", "r1-0", "r2-0"], lost=((2, "r2-0"),), pack="rack", required=True),
            [],
            ["r0-0", "r1-0", "r3-0"],
            id="required-was-relaxed-long-ago",
        ),
        pytest.param(
            [2, 3],
            placed(
                "g", ["r0-0", "r0-1"], lost=((0, "r0-0"), (1, "r0-1")), pack="rack", required=True
            ),
            [],
            ["r1-0", "r1-1"],
            id="required-moves-as-a-whole-when-all-is-lost",
        ),
        pytest.param(
            [4, 3, 2],
            placed(
                "g",
                ["r0-0", "r0-1", "r1-0", "r1-1"],
                ["r2-0"],
                lost=((2, "r1-0"),),
                slice_size=2,
                slice_level="rack",
            ),
            [],
            ["r0-0", "r0-1", "r1-2", "r1-1"],
            id="a-slice-stays-together",
        ),
        pytest.param(
            [3, 2, 2],
            placed(
                "g",
                ["r0-0", "r0-1", "r1-0", "r1-1"],
                lost=((2, "r1-0"), (3, "r1-1")),
                slice_size=2,
                slice_level="rack",
            ),
            [],
            ["r0-0", "r0-1", "r2-0", "r2-1"],
            id="a-whole-lost-slice-moves-together",
        ),
        pytest.param(
            [1],
            placed("g", ["gone"], lost=((0, "gone"),), pool="q"),
            [],
            None,
            id="the-pool-is-gone",
        ),
    ],
)
def test_lost_seats_move(
    racks: list[int], record: GangRecord, broken: list[str], expected: list[str] | None
) -> None:
    hall = Hall(racks)
    hall.break_(*broken)
    hall.break_(*(blade for _, blade in record.lost if blade in hall.blades))
    for blade in ("r0-2",):  # named as lost in an old entry, but healthy again
        if blade in hall.blades:
            hall.break_(blade, state="Healthy")
    answer = recovered(hall, record)
    assert record.placement is not None
    if expected is None:
        assert answer.placement.seats == record.placement.seats
        assert answer.waiting
        return
    assert list(answer.placement.seats) == expected
    assert not answer.waiting
    assert len(answer.moves) == len(record.lost_seats())


def test_one_moves_and_one_waits() -> None:
    record = placed("g", ["r0-0", "r0-1"], lost=((0, "r0-0"), (1, "r0-1")))
    answer = recovered(Hall([3]), record)
    assert answer.placement.seats == ("r0-2", "r0-1")
    assert answer.waiting == ((1, "no blade of 8 GPUs is free"),)


def test_another_gangs_spare_is_not_taken() -> None:
    record = placed("g", ["r0-0"], lost=((0, "r0-0"),))
    assert recovered(Hall([2]), record, placed("h", [], ["r0-1"])).waiting


def test_a_half_used_blade_serves_a_seat_that_fits() -> None:
    hall = Hall([3])
    hall.occupy("r0-1", gpus=4)
    record = placed("g", ["r0-0"], lost=((0, "r0-0"),), ask=HALF)
    assert recovered(hall, record).placement.seats == ("r0-1",)


def test_relaxing_lets_a_lost_seat_leave() -> None:
    told = Told("Placed", 1, ready=False, ready_since_s=NOW - 10)
    record = placed(
        "g",
        ["r0-0", "r0-1"],
        lost=((1, "r0-1"),),
        pack="rack",
        required=True,
        relax_after_s=10.0,
        told=told,
    )
    assert recovered(Hall([2, 1]), record).placement.seats == ("r0-0", "r1-0")


@pytest.mark.parametrize(
    ("record", "broken", "expected"),
    [
        pytest.param(placed("g", ["r0-0"], spares=()), [], (), id="none-asked"),
        pytest.param(
            gang("g", spares=2, placement=Placement(("r0-0",))), [], ("r0-1", "r0-2"), id="refilled"
        ),
        pytest.param(
            gang("g", spares=1, placement=Placement(("r0-0",), ("r0-1", "r0-2"))),
            [],
            ("r0-1",),
            id="one-too-many",
        ),
        pytest.param(
            gang("g", spares=1, placement=Placement(("r0-0",), ("r0-1",))),
            ["r0-1"],
            ("r0-2",),
            id="a-broken-one-is-replaced",
        ),
        pytest.param(
            gang("g", spares=1, placement=Placement(("r0-0",), ("r0-1",))),
            ["r0-1", "r0-2", "r1-0", "r1-1"],
            ("r0-1",),
            id="a-broken-one-is-kept-while-there-is-no-other",
        ),
        pytest.param(
            gang("g", spares=1, placement=Placement(("r0-0",), ("gone",))),
            [],
            ("r0-1",),
            id="one-that-is-gone",
        ),
        pytest.param(
            gang("g", spares=1, placement=Placement(("gone",))), [], (), id="seats-are-nowhere"
        ),
        pytest.param(
            gang("g", spares=1, pool="q", placement=Placement(("r0-0",))), [], (), id="no-pool"
        ),
    ],
)
def test_spares_are_taken_anew(
    record: GangRecord, broken: list[str], expected: tuple[str, ...]
) -> None:
    hall = Hall([3, 2])
    hall.break_(*broken)
    snapshot = hall.snapshot(record)
    assert record.placement is not None
    assert refill(snapshot, record, record.placement, NOW).spares == expected
    held = {snapshot.fleet.names[row] for row in snapshot.spare_of}
    assert held == {name for name in expected if name in hall.blades}
