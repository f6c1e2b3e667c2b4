"""The ledger: every millisecond since creation has one cause."""

from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.trainingjob import Goodput, GoodputLost, JobPhase
from tramontane.controllers.trainingjob.goodput import Cause, Ledger, cause_of

CREATED = 1_800_000_000.0
causes = st.sampled_from(list(Cause))
steps = st.lists(
    st.tuples(st.floats(0, 1e6), causes, causes, st.floats(0, 1e5)), min_size=1, max_size=30
)


@given(steps)
def test_productive_and_lost_add_up_to_the_wall_time_whatever_is_moved(
    steps: list[tuple[float, Cause, Cause, float]],
) -> None:
    ledger, now = Ledger(), CREATED
    for passed_s, cause, target, moved_s in steps:
        now += passed_s
        ledger = ledger.advance(CREATED, now, cause).move(cause, target, moved_s)
        # It goes through the status each time, as between two reconciles.
        ledger = Ledger.of(ledger.to_status(CREATED))
        assert ledger.total_ms == round((now - CREATED) * 1000)
        assert all(getattr(ledger, one) >= 0 for one in Cause)


def test_the_status_shows_seconds_and_the_ratio() -> None:
    ledger = Ledger().advance(CREATED, CREATED + 10.25, Cause.QUEUE)
    ledger = ledger.advance(CREATED, CREATED + 41, Cause.PRODUCTIVE)

    shown = ledger.to_status(CREATED).to_dict()

    assert shown["productive"] == "30.75s"
    assert shown["lost"]["queue"] == "10.25s"
    assert shown["lost"]["hang"] == "0s"
    assert shown["ratio"] == "0.750"
    assert shown["at"] == "2027-01-15T08:00:41Z"


def test_a_clock_that_goes_back_changes_nothing() -> None:
    ledger = Ledger().advance(CREATED, CREATED + 100, Cause.QUEUE)

    assert ledger.advance(CREATED, CREATED + 40, Cause.PRODUCTIVE) == ledger


def test_no_more_is_moved_than_there_is() -> None:
    ledger = Ledger(productive=5000).move(Cause.PRODUCTIVE, Cause.REWORK, 60)

    assert ledger == Ledger(rework=5000)


def test_each_phase_has_a_cause() -> None:
    assert {phase: cause_of(phase) for phase in (None, *list(JobPhase)[:6])} == {
        None: Cause.QUEUE,
        JobPhase.QUEUED: Cause.QUEUE,
        JobPhase.STARTING: Cause.START,
        JobPhase.RUNNING: Cause.PRODUCTIVE,
        JobPhase.RECOVERING: Cause.RESUME,
        JobPhase.CHECKPOINTING: Cause.CHECKPOINT,
        JobPhase.SUSPENDED: Cause.SUSPENDED,
    }
    assert cause_of(JobPhase.QUEUED, preempted=True) is Cause.PREEMPTED
    assert cause_of(JobPhase.CHECKPOINTING, preempted=True) is Cause.PREEMPTED
    assert cause_of(JobPhase.RUNNING, preempted=True) is Cause.PRODUCTIVE


def test_the_stages_add_up_to_the_restarts() -> None:
    ledger = Ledger(productive=10, detect=1, replace=20, resume=300)

    shown = ledger.to_status(CREATED)

    assert shown.lost.restart == "0.321s"
    assert shown.restart.to_dict() == {"detect": "0.001s", "replace": "0.02s", "resume": "0.3s"}
    assert Ledger.of(shown) == ledger


def test_a_restart_that_no_stage_claims_was_resume() -> None:
    written = Goodput.model_validate(
        {"lost": {"restart": "1m"}, "restart": {"detect": "2s", "replace": "80s"}}
    )

    assert Ledger.of(written) == Ledger(detect=2000, replace=58_000)
    assert Ledger.of(Goodput(lost=GoodputLost(restart="250ms"))) == Ledger(resume=250)
