"""Each invariant has a world that breaks it and the nearest one that does not."""

from dataclasses import replace

import pytest

from tramontane.lab.invariants import (
    Recorded,
    SeenBlade,
    SeenGang,
    SeenPod,
    condemned_without_cause,
    gpus_given_twice,
    partly_placed,
    restarted_without_cause,
    seated_on_sick_blades,
    seats_given_twice,
    survivors_moved,
)

POD = SeenPod("u1", "llama-0", "ml/llama", 0, "gpu-1", 8, "Running", 1)
GANG = SeenGang("ml/llama", 2, (), ("gpu-1", "gpu-2"), ("gpu-9",), 1, frozenset())


def healthy(*names: str) -> dict[str, SeenBlade]:
    return {name: SeenBlade(name, "Healthy", 0.0) for name in names}


@pytest.mark.parametrize(
    ("second", "broken"),
    [
        pytest.param(replace(POD, uid="u2", name="other-0"), True, id="two pods on one blade"),
        pytest.param(replace(POD, uid="u2", phase="Failed"), False, id="the second has ended"),
        pytest.param(replace(POD, uid="u2", node="gpu-2"), False, id="the second is elsewhere"),
    ],
)
def test_gpus_given_twice(second: SeenPod, broken: bool) -> None:
    found = gpus_given_twice([POD, second], {"gpu-1": 8, "gpu-2": 8}, 1.0)
    assert bool(found) is broken
    if broken:
        assert "gpu-1 has 8 GPUs (pods hold 16: llama-0, other-0)" in str(found[0])


def test_seats_given_twice() -> None:
    other = replace(GANG, name="ml/other", seats=("gpu-9",), spares=())
    assert [str(v) for v in seats_given_twice([GANG, other], 1.0)] == [
        "no seat given twice: gpu-9 is held by ml/llama, ml/other"
    ]
    assert seats_given_twice([GANG, replace(other, seats=("gpu-8",))], 1.0) == []


@pytest.mark.parametrize(
    ("seats", "sizes", "broken"),
    [
        pytest.param(("gpu-1", "gpu-2"), (), False, id="whole"),
        pytest.param((), (), False, id="none"),
        pytest.param(("gpu-1",), (), True, id="one of two"),
        pytest.param(("gpu-1",), (2, 1), False, id="an accepted smaller size"),
        pytest.param(("gpu-1", ""), (), True, id="an empty seat"),
    ],
)
def test_partly_placed(seats: tuple[str, ...], sizes: tuple[int, ...], broken: bool) -> None:
    assert bool(partly_placed(replace(GANG, seats=seats, sizes=sizes), 1.0)) is broken


@pytest.mark.parametrize(
    ("blade", "at_s", "broken"),
    [
        pytest.param(SeenBlade("gpu-9", "Healthy", 0.0), 10.0, False, id="healthy"),
        pytest.param(SeenBlade("gpu-9", "Quarantined", 0.0), 10.0, True, id="long quarantined"),
        pytest.param(SeenBlade("gpu-9", "Quarantined", 9.9), 10.0, False, id="in that moment"),
        pytest.param(None, 10.0, True, id="no such blade"),
    ],
)
def test_new_seats_need_healthy_blades(blade: SeenBlade | None, at_s: float, broken: bool) -> None:
    blades = healthy("gpu-2") | ({"gpu-9": blade} if blade else {})
    after = replace(GANG, seats=("gpu-9", "gpu-2"), spares=())
    assert bool(seated_on_sick_blades(GANG, after, blades, at_s)) is broken


def test_a_seat_that_stays_may_be_on_a_sick_blade() -> None:
    sick = {"gpu-1": SeenBlade("gpu-1", "Lost", 0.0)} | healthy("gpu-2")
    assert seated_on_sick_blades(GANG, replace(GANG, epoch=2), sick, 10.0) == []


def test_only_lost_seats_move() -> None:
    moved = replace(GANG, seats=("gpu-9", "gpu-2"), spares=())
    assert len(survivors_moved(GANG, moved, 1.0)) == 1
    lost = replace(GANG, lost=frozenset({(0, "gpu-1")}))
    assert survivors_moved(lost, moved, 1.0) == []
    assert survivors_moved(replace(GANG, seats=()), moved, 1.0) == []


def test_a_pod_that_went_needs_an_incident_for_its_seat() -> None:
    assert len(restarted_without_cause([POD], {}, 1.0)) == 1
    other_seat = {"ml/llama": Recorded({("BladeFault", (3,))})}
    assert len(restarted_without_cause([POD], other_seat, 1.0)) == 1
    recorded = {"ml/llama": Recorded({("BladeFault", (0, 3))})}
    assert restarted_without_cause([POD], recorded, 1.0) == []


@pytest.mark.parametrize(
    ("state", "broken"),
    [
        pytest.param("Delivered", False, id="delivered"),
        pytest.param("Qualifying", False, id="qualifying"),
        pytest.param("Healthy", False, id="healthy"),
        pytest.param("Unknown", False, id="nobody-knows"),
        pytest.param("Suspect", True, id="suspect"),
        pytest.param("Quarantined", True, id="quarantined"),
        pytest.param("Draining", True, id="draining"),
        pytest.param("Repairing", True, id="repairing"),
        pytest.param("Requalifying", True, id="requalifying"),
        pytest.param("RMA", True, id="rma"),
    ],
)
def test_only_sick_blades_are_condemned(state: str, broken: bool) -> None:
    seen = SeenBlade("gpu-1", state, 0.0)
    assert bool(condemned_without_cause(seen, frozenset({"gpu-2"}), 1.0)) is broken
    assert condemned_without_cause(seen, frozenset({"gpu-1"}), 1.0) == []
