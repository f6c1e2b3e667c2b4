"""The simulation plays a trace as a cluster would, and its measures say what happened."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tramontane.lab.paths import LabError
from tramontane.lab.queueing import fifo
from tramontane.lab.queueing.hall import Hall
from tramontane.lab.queueing.learning import Scheduler
from tramontane.lab.queueing.lives import Fault, Life, Promise, Run
from tramontane.lab.queueing.measure import estimates, late, quantile, waits_by_size
from tramontane.lab.queueing.promises import Broken, Watched
from tramontane.lab.queueing.simulate import SAVE_S, SETBACK_S, simulate
from tramontane.lab.queueing.trace import Job, Shape, draw, job
from tramontane.scheduler.engine import Outcome, Pass
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import PREEMPTING, Estimate, GangRecord, Placement
from tramontane.scheduler.snapshot import Pods

HOUR = 3600.0


def hall(blades: int = 4) -> Hall:
    return Hall(blades, rack=2, racks_per_block=2)


def starts(run: Run) -> dict[str, float | None]:
    return {life.job.gang.uid: life.start_s for life in run.lives}


def ends(run: Run) -> dict[str, float | None]:
    return {life.job.gang.uid: life.end_s for life in run.lives}


# The run


def test_fifo_starts_whoever_fits_in_the_order_of_the_queue() -> None:
    jobs = [
        job("first", 0, 3, 100),
        job("big", 10, 4, 100),  # would have to wait for the first
        job("small", 20, 1, 200),  # and then for the small one, which fits
        job("urgent", 30, 2, 50, priority=1),
    ]
    run = simulate(hall(), jobs, fifo.decide)
    assert starts(run) == {"first": 0, "small": 20, "urgent": 100, "big": 220}
    assert ends(run) == {"first": 100, "small": 220, "urgent": 150, "big": 320}


def test_a_job_ends_after_its_runtime_not_at_its_limit() -> None:
    run = simulate(hall(), [job("a", 0, 1, 100, max_runtime_s=1000)], fifo.decide)
    assert ends(run) == {"a": 100}


def test_used_is_counted_until_the_last_arrival() -> None:
    run = simulate(hall(), [job("a", 0, 4, 100), job("b", 200, 1, 1000)], fifo.decide)
    assert (run.used_s, run.offered_s) == (400, 800)
    assert run.utilisation == 0.5


def test_a_lost_blade_costs_the_time_until_the_gang_is_whole_and_the_work_since_its_save() -> None:
    fault = Fault("b00000", at_s=50, back_s=500)
    run = simulate(hall(1), [job("a", 0, 1, 100, max_runtime_s=9000)], fifo.decide, [fault])
    # The blade is not taken again once it was lost, and there is no other.
    assert ends(run) == {"a": 9000}
    run = simulate(hall(2), [job("a", 0, 1, 100, max_runtime_s=9000)], fifo.decide, [fault])
    assert ends(run) == {"a": 100 + SETBACK_S}


def test_a_job_that_was_set_back_still_ends_at_its_limit() -> None:
    fault = Fault("b00000", at_s=50, back_s=500)
    run = simulate(hall(2), [job("a", 0, 1, 100, max_runtime_s=110)], fifo.decide, [fault])
    assert ends(run) == {"a": 110}


def test_nobody_is_put_on_a_blade_that_is_out_of_service() -> None:
    fault = Fault("b00000", at_s=50, back_s=500)
    run = simulate(hall(1), [job("a", 60, 1, 100)], fifo.decide, [fault])
    assert starts(run) == {"a": 500}


def test_a_policy_that_gives_a_blade_twice_is_found_out() -> None:
    def everybody_on_the_first(
        _: Fleet, gangs: Mapping[str, GangRecord], __: Pods, ___: float
    ) -> Pass:
        place = Placement(("b00000",))
        return Pass({key: Outcome("Placed", 1, place, ready=True) for key in gangs})

    jobs = [job("a", 0, 1, 100), job("b", 10, 1, 100)]
    with pytest.raises(LabError, match=r"Gang trace/b: seat 0 must be on a free blade .*trace/a"):
        simulate(hall(), jobs, everybody_on_the_first)


def test_a_gang_that_is_told_to_give_way_saves_goes_and_comes_back_for_the_rest() -> None:
    ordered: list[float] = []

    def on_the_second_pass(
        fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods, now_s: float
    ) -> Pass:
        done = fifo.decide(fleet, gangs, pods, now_s)
        a = gangs.get("trace/a")
        if "trace/b" in gangs and a and a.placement and not ordered:
            ordered.append(now_s)
            done.outcomes["trace/a"] = replace(done.outcomes["trace/a"], phase=PREEMPTING)
        elif a and a.told.phase == PREEMPTING:
            assert not pods.live_seats("trace/a")
            done.outcomes["trace/a"] = Outcome("Pending", 2, None, ready=False)
        return done

    jobs = [job("a", 0, 1, 1000, max_runtime_s=9000), job("b", 100, 1, 10)]
    run = simulate(hall(2), jobs, on_the_second_pass)
    assert ordered == [100]
    life = run.lives[0]
    assert (life.preempted, life.start_s) == (1, 0)
    # Without a deadline it goes at once; it starts again when something happens: b's end.
    assert life.end_s == 110 + (1000 - 100) + SETBACK_S
    assert SAVE_S < 100


# Against each other


def test_fifo_is_what_the_engine_does_without_its_reservations() -> None:
    """On a hall that has room for everybody, both start everybody at once."""
    jobs = draw(Shape(blades=64, largest=8, load=0.2, days=2), seed=3)
    run = simulate(Hall(64), jobs, Scheduler())
    assert starts(run) == starts(simulate(Hall(64), jobs, fifo.decide))
    assert all(life.end_s is not None for life in run.lives)


def test_a_run_is_the_same_each_time() -> None:
    jobs = draw(Shape(blades=32, largest=16, days=2), seed=5)
    faults = [Fault("b00003", jobs[20].gang.created_s, jobs[40].gang.created_s)]
    once, again = (simulate(Hall(32), jobs, Scheduler(), faults) for _ in range(2))
    assert once == again


# The measures


def life(at_s: float, start_s: float, seats: int = 1, **more: object) -> Life:
    one = Life(job(f"j{at_s:g}", at_s, seats, 100, priority=more.pop("priority", 0)), start_s)
    for name, value in more.items():
        setattr(one, name, value)
    return one


def ran(*lives: Life, faults: tuple[Fault, ...] = ()) -> Run:
    return Run(list(lives), 0, 0, 0, faults)


def test_quantile_is_the_smallest_value_that_the_share_does_not_exceed() -> None:
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(range(100), 0.99) == 98
    assert quantile([5], 0.99) == 5


def test_waits_are_told_apart_by_size() -> None:
    found = waits_by_size([life(0, 10), life(5, 5), life(0, 300, seats=4)])
    assert list(found) == [1, 4]
    assert (found[1].jobs, found[1].mean_s, found[1].most_s) == (2, 5, 10)
    assert found[4].p99_s == 300


def test_a_start_after_a_promise_is_late_unless_a_more_important_job_or_a_fault_came() -> None:
    missed = life(0, 100, promises=[Promise(10, 50), Promise(30, 100)])
    kept = life(1, 50, promises=[Promise(10, 50)])
    assert [one.job.gang.uid for one, _ in late(ran(missed, kept))] == ["j0"]
    assert late(ran(missed, life(20, 20)))  # no excuse: it ranks lower
    assert not late(ran(missed, life(40, 40, priority=1)))
    assert late(ran(missed, life(5, 5, priority=1)))  # it was there when the promise was made
    assert late(ran(missed, faults=(Fault("b", 20, 30),)))  # it was said again after the fault
    assert not late(ran(missed, faults=(Fault("b", 40, 50),)))


def test_estimates_are_judged_against_the_wait_that_was_left() -> None:
    exact = life(0, 1000, estimates=[(0, Estimate(1000, 1200))])
    early = life(0, 1000, estimates=[(0, Estimate(500, 900)), (400, Estimate(940, 1500))])
    short = life(0, 30, estimates=[(0, Estimate(500, 900))])
    found = estimates([exact, early, short])
    assert found is not None
    assert (found.judged, found.median_error) == (2, 0.25)
    assert (found.within_p50, found.within_p90) == (0.5, 0.5)
    half_way = estimates([early], at=0.5)
    assert half_way is not None
    assert half_way.median_error == pytest.approx(0.1)
    assert half_way.within_p90 == 1
    assert estimates([short]) is None


# Promises


def promising(jobs: list[Job], *, careful: bool) -> tuple[Run, Watched]:
    """Play jobs where `big` is promised the end of `first`, or of the one of high priority."""

    def decide(fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods, now_s: float) -> Pass:
        done = fifo.decide(fleet, gangs, pods, now_s)
        big = gangs.get("trace/big")
        if big is None or big.placement is not None:
            return done
        if careful and "trace/small" in gangs and not gangs["trace/small"].placement:
            done.outcomes["trace/small"] = Outcome("Pending", 0, None, ready=False)
        ends_s = [
            (outcome.placed_s or 0) + (gangs[key].max_runtime_s or 0)
            for key, outcome in done.outcomes.items()
            if outcome.placement
        ]
        if done.outcomes[big.key].placement is None:
            done.outcomes[big.key] = replace(done.outcomes[big.key], reserved_s=max(ends_s))
        return done

    watched = Watched(decide, decide)
    return simulate(hall(), jobs, watched), watched


JOBS = [job("first", 0, 3, 100), job("big", 10, 4, 100), job("small", 20, 1, 200)]


def test_a_promise_that_a_small_job_delays_is_broken() -> None:
    run, watched = promising(JOBS, careful=False)
    assert starts(run)["big"] == 220
    assert watched.broken == [Broken("trace/big", Promise(10, 100), 20, 220, 100)]
    assert [promise for _, promise in late(run)] == [Promise(10, 100)]


def test_a_promise_that_is_kept_is_not_broken() -> None:
    run, watched = promising(JOBS, careful=True)
    assert starts(run)["big"] == 100
    assert watched.promised == {"trace/big"}
    assert not watched.broken


def test_a_promise_that_a_more_important_job_delays_is_not_broken() -> None:
    urgent = job("urgent", 20, 1, 200, priority=1)
    run, watched = promising([*JOBS[:2], urgent], careful=True)
    assert starts(run)["big"] == 220
    assert not watched.broken
    assert not late(run)


def test_a_small_job_does_not_hide_behind_a_more_important_one() -> None:
    """What is said after the excuse counts."""
    urgent = job("urgent", 20, 1, 200, priority=1)
    run, watched = promising(
        [job("first", 0, 2, 100), JOBS[1], urgent, job("small", 30, 1, 300)], careful=False
    )
    assert starts(run)["big"] == 330
    assert watched.broken == [Broken("trace/big", Promise(20, 220), 30, 330, 220)]
