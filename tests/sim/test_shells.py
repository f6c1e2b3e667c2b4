"""The real controllers and scheduler on a virtual clock: faults, bad weather, invariants."""

import pytest

from sim.halls import GPU, HOST, MEMORY, NETWORK, a_fault, play
from tramontane.lab.sim.client import Weather
from tramontane.lab.sim.iron import Times

# People and parts come sooner than in life: an hour of a hall costs half a second.
QUICK = Times(repair_s=900, rma_s=1800)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        pytest.param(GPU, "BladeFault", id="gpu"),
        pytest.param(MEMORY, "BladeFault", id="memory"),
        pytest.param(NETWORK, "BladeFault", id="network"),
        pytest.param(HOST, "NodeLost", id="host"),
    ],
)
def test_a_fault_costs_one_seat_and_the_job_goes_on(kind: object, cause: str) -> None:
    seen = play(8, 6, [a_fault(600, "gpu-0003", kind)], 3600, spares=1, times=QUICK)
    assert seen.violations == []
    assert [(one[0], one[2], one[3]) for one in seen.incidents] == [(cause, "gpu-0003", (2,))]
    assert seen.job["status"]["phase"] == "Running"
    assert seen.job["status"]["attempt"] == 2
    seats = seen.gang["status"]["placement"]["seats"]
    assert "gpu-0003" not in seats
    assert [seat for index, seat in enumerate(seats) if index != 2] == [
        "gpu-0001", "gpu-0002", "gpu-0004", "gpu-0005", "gpu-0006",
    ]  # fmt: skip
    # Reset, reboot or a person: it is back.
    assert set(seen.blades.values()) == {"Healthy"}


def test_what_the_ledger_says_is_what_the_model_knows() -> None:
    faults = [a_fault(at, f"gpu-000{n}") for n, at in ((2, 900), (4, 3000), (5, 6000))]
    seen = play(9, 6, faults, 2 * 3600, spares=2)
    status = seen.job["status"]
    assert seen.violations == []
    assert len(status["incidents"]) == 3
    truth = seen.course.retained_s(1_800_000_000.0 + 60 + 2 * 3600) / (2 * 3600)
    assert float(status["goodput"]["ratio"]) == pytest.approx(truth, rel=0.01)


def test_new_parts_come_and_the_blade_works_again() -> None:
    seen = play(8, 6, [a_fault(600, "gpu-0003", parts=True)], 2 * 3600, spares=1, times=QUICK)
    assert seen.violations == []
    assert any("RMA" in line for line in seen.said)
    assert seen.blades["gpu-0003"] == "Healthy"


def test_bad_weather_changes_nothing_but_the_time_it_takes() -> None:
    bad = Weather(request_s=0.05, watch_s=0.5, break_every_s=120, forget_every_s=200, seed=7)
    faults = [a_fault(600, "gpu-0003"), a_fault(1500, "gpu-0001", HOST), a_fault(2500, "gpu-0005")]
    seen = play(10, 6, faults, 3600, spares=2, weather=bad)
    assert seen.violations == []
    assert [one[2] for one in seen.incidents] == ["gpu-0003", "gpu-0001", "gpu-0005"]
    assert seen.job["status"]["phase"] == "Running"


@pytest.mark.parametrize("seed", range(3))
def test_two_faults_at_once_are_one_attempt_each_at_most(seed: int) -> None:
    weather = Weather(seed=seed)
    faults = [
        a_fault(600, "gpu-0002"),
        a_fault(600.3, "gpu-0004"),
        a_fault(601.5, "gpu-0007", HOST),
    ]
    seen = play(12, 8, faults, 1800, spares=3, weather=weather)
    assert seen.violations == []
    assert {seat for one in seen.incidents for seat in one[3]} == {1, 3, 6}
    assert seen.job["status"]["phase"] == "Running"
    assert seen.job["status"]["attempt"] <= 4


def test_the_same_seed_gives_the_same_story() -> None:
    def story() -> object:
        seen = play(8, 6, [a_fault(600, "gpu-0003")], 1800, spares=1, weather=Weather(seed=3))
        return seen.job["status"]["incidents"], seen.job["status"]["goodput"], seen.said

    assert story() == story()


def test_a_gang_that_is_made_anew_leaves_no_pod_of_the_old_life() -> None:
    seen = play(8, 6, [a_fault(600, "gpu-0003")], 1800, spares=1, recovery={"restart": "Gang"})
    assert seen.job["status"]["phase"] == "Running"
    assert [one[2] for one in seen.incidents] == ["gpu-0003"]


def test_a_job_without_spares_gets_its_own_blade_back_repaired() -> None:
    seen = play(6, 6, [a_fault(600, "gpu-0003")], 3600)
    assert seen.violations == []
    assert seen.blades["gpu-0003"] == "Healthy"
    assert seen.job["status"]["phase"] == "Running"
