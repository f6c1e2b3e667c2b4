"""A hall in series, as promtool's tests write them: quiet, and with one trouble each.

Time is in minutes from 0, one sample a minute. A case replaces some series of the quiet hall; the
alert must be silent at `not_yet`, fire at `at` and be silent again at `over`, and no other alert
may ever fire with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LENGTH = 500
_C = 'cluster="paris"'
POOL = f'{_C}, pool="paris-a"'
JOB = f'{_C}, namespace="ml", job="llama"'
MODEL = f'{_C}, namespace="shop", deployment="claims"'
BLADE = f'{POOL}, blade="gpu-0017"'
GONE, MISSING = "stale", "_"


def level(*spans: tuple[float | str, int], rest: float | str) -> str:
    """Return a gauge: so high for so many minutes each, then `rest` for good."""
    return " ".join(_words(value, minutes) for value, minutes in (*spans, (rest, LENGTH)))


def _words(value: float | str, minutes: int) -> str:
    if value == MISSING:
        return f"_x{minutes}"
    if value == GONE:  # one mark says it, then nothing comes any more
        return GONE if minutes == 1 else f"{GONE} _x{minutes - 1}"
    return f"{value}x{minutes - 1}"


def ramp(minutes: int) -> str:
    """Return an age in seconds that grows for so many minutes and is nought afterwards."""
    return f"0+60x{minutes - 1} 0x{LENGTH}"


def growth(*spans: tuple[float, int], rest: float) -> str:
    """Return a counter: so much more each minute for so many minutes, then `rest` a minute."""
    words, value = [], 0.0
    for rate, minutes in (*spans, (rest, LENGTH)):
        words.append(f"{value:g}+{rate:g}x{minutes - 1}")
        value += rate * minutes
    return " ".join(words)


def buckets(
    name: str, labels: str, fast: str, slow: str, bounds: tuple[str, str]
) -> dict[str, str]:
    """Return a histogram of two buckets and +Inf: `fast` are in the first, `slow` up to the second.

    Both are cumulative counts, so `slow` counts the fast ones too.
    """
    return {
        f'{name}_bucket{{{labels}, le="{bounds[0]}"}}': fast,
        f'{name}_bucket{{{labels}, le="{bounds[1]}"}}': slow,
        f'{name}_bucket{{{labels}, le="+Inf"}}': slow,
        f"{name}_count{{{labels}}}": slow,
    }


STEADY = growth(rest=60)
NONE = level(rest=0)
AGENT = f'{_C}, component="agent", blade="gpu-0017"'
OPERATOR = f'{_C}, component="operator"'
REPORT, TAINT = "tramontane_agent_event_to_report_seconds", "tramontane_quarantine_seconds"
TTFT = "tramontane_inference_ttft_seconds"
RECONCILES = "tramontane_reconcile_seconds_count"

SCHEDULER_LEADS = f'tramontane_leader{{{_C}, component="scheduler", lease="tramontane-scheduler"}}'

QUIET: Mapping[str, str] = {
    f"tramontane_scheduler_oldest_wait_seconds{{{POOL}}}": level(rest=600),
    f'tramontane_scheduler_pending_gangs{{{_C}, reason="WaitingForCapacity"}}': level(rest=3),
    f'tramontane_scheduler_pending_gangs{{{_C}, reason="TopologyPlacementFailed"}}': NONE,
    f'tramontane_scheduler_pending_gangs{{{_C}, reason="HealthHold"}}': NONE,
    f"tramontane_spares_target{{{POOL}}}": level(rest=4),
    f"tramontane_spares_ready{{{POOL}}}": level(rest=4),
    f"tramontane_breaker_open{{{POOL}}}": NONE,
    f"tramontane_blades_out{{{POOL}}}": level(rest=2),
    f'tramontane_blades{{{POOL}, state="healthy"}}': level(rest=126),
    f'tramontane_blades{{{POOL}, state="in_use"}}': level(rest=120),
    f'tramontane_blades{{{POOL}, state="rma"}}': level(rest=2),
    f'tramontane_blade_state{{{BLADE}, state="Healthy", reason=""}}': level(rest=1),
    f"tramontane_blade_state_since_timestamp_seconds{{{BLADE}}}": level(rest=-900_000),
    f"up{{{AGENT}}}": level(rest=1),
    # A machine that was sent away; nobody expects its agent.
    f'tramontane_blade_state{{{POOL}, blade="gpu-0099", state="RMA", reason="RepairFailed"}}': (
        level(rest=1)
    ),
    f'tramontane_blade_state_since_timestamp_seconds{{{POOL}, blade="gpu-0099"}}': (
        level(rest=-900_000)
    ),
    f'up{{{_C}, component="agent", blade="gpu-0099"}}': NONE,
    **buckets(REPORT, AGENT, NONE, NONE, ("2.0", "5.0")),
    **buckets(TAINT, OPERATOR, NONE, NONE, ("2.0", "5.0")),
    f'tramontane_trainingjob_ledger_seconds{{{JOB}, cause="productive"}}': STEADY,
    f'tramontane_trainingjob_ledger_seconds{{{JOB}, cause="restart"}}': NONE,
    f'tramontane_trainingjob_ledger_seconds{{{JOB}, cause="queue"}}': level(rest=5_000),
    f"tramontane_trainingjob_gpus{{{JOB}}}": level(rest=1024),
    f"tramontane_trainingjob_checkpoint_age_seconds{{{JOB}}}": level(rest=900),
    f"tramontane_trainingjob_checkpoint_advice_seconds{{{JOB}}}": level(rest=600),
    **buckets(TTFT, MODEL, growth(rest=100), growth(rest=100), ("2.0", "5.0")),
    f"tramontane_inference_slo_ttft_seconds{{{MODEL}}}": level(rest=2),
    f'tramontane_gpu_power_watts{{{AGENT}, gpu="0"}}': level(rest=600),
    f'tramontane_gpu_power_watts{{{AGENT}, gpu="1"}}': level(rest=300),
    f'{RECONCILES}{{{OPERATOR}, queue="nodepool", outcome="ok"}}': growth(rest=100),
    f'{RECONCILES}{{{OPERATOR}, queue="nodepool", outcome="error"}}': NONE,
    f'tramontane_leader{{{OPERATOR}, pod="a", lease="tramontane-operator"}}': level(rest=1),
    f'tramontane_leader{{{OPERATOR}, pod="b", lease="tramontane-operator"}}': NONE,
    SCHEDULER_LEADS: level(rest=1),
    f"tramontane_clock_skew_seconds{{{OPERATOR}}}": level(rest=0.4),
    f"tramontane_clock_skew_seconds{{{AGENT}}}": level(rest=-0.6),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One trouble: what of the quiet hall is otherwise, and what comes of it.

    Attributes:
        board: path and query of the dashboard's link, without time and cluster.
        labels: of the alert, without its severity.
        values: of the chart, under `prometheusRule`.
    """

    id: str
    alert: str
    series: Mapping[str, str]
    not_yet: int
    at: int
    over: int
    description: str
    board: str
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str = "paris"
    values: Mapping[str, Any] = field(default_factory=dict)


_POOL = {"pool": "paris-a"}
_HEALTHY = f'tramontane_blade_state{{{BLADE}, state="Healthy", reason=""}}'
_JOB = {"namespace": "ml", "job": "llama"}
_TRAINING_LINK = "tramontane-training&var-namespace=ml&var-job=llama"
_LEDGER = "tramontane_trainingjob_ledger_seconds"


def _stuck(id_: str, state: str, reason: str, hours: int) -> Case:
    """Return a blade that has been in a state for so many hours after the first, and goes on."""
    since = f"tramontane_blade_state_since_timestamp_seconds{{{BLADE}}}"
    now = f'tramontane_blade_state{{{BLADE}, state="{state}", reason="{reason}"}}'
    away = {_HEALTHY: GONE, now: level((1, 120), (GONE, 1), rest=MISSING)}
    return Case(
        id_,
        "QuarantineStuck",
        {**away, since: level(rest=3600 * (1 - hours))},
        *(74, 80, 121),
        "1 blades of pool paris-a have been out of service in one state for more than 24 h, or"
        " Lost for a quarter of that. Nobody works on them, or what they wait for needs a person.",
        "tramontane-fleet&var-pool=paris-a",
        _POOL,
    )


CASES = (
    Case(
        "a gang waits for hours",
        "GangPendingTooLong",
        {f"tramontane_scheduler_oldest_wait_seconds{{{POOL}}}": ramp(140)},
        *(124, 128, 142),
        "In pool paris-a the gang that has waited longest has done so for 2h 8m 0s"
        " (limit: 120 min).",
        "tramontane-queue&var-pool=paris-a",
        _POOL,
    ),
    Case(
        "the free blades lie apart",
        "LargestGangUnplaceable",
        {
            f'tramontane_scheduler_pending_gangs{{{_C}, reason="TopologyPlacementFailed"}}': level(
                (0, 10), (2, 50), rest=0
            )
        },
        *(35, 45, 61),
        "2 gangs wait with reason TopologyPlacementFailed: enough blades are free, but not"
        " together in one domain. That other jobs end will not let them start soon.",
        "tramontane-queue",
        {"reason": "TopologyPlacementFailed"},
    ),
    Case(
        "too few blades are healthy",
        "LargestGangUnplaceable",
        {
            f'tramontane_scheduler_pending_gangs{{{_C}, reason="HealthHold"}}': level(
                (0, 10), (1, 50), rest=0
            )
        },
        *(35, 45, 61),
        "1 gangs wait with reason HealthHold: too few blades are healthy, even if all of them"
        " were free. That other jobs end will not let them start soon.",
        "tramontane-queue",
        {"reason": "HealthHold"},
    ),
    Case(
        "no spare is left",
        "SparesExhausted",
        {f"tramontane_spares_ready{{{POOL}}}": level((4, 10), (0, 40), rest=1)},
        *(20, 30, 51),
        "Pool paris-a should keep 4 healthy blades free and has none. The next blade that fails"
        " stops its job until another one comes back.",
        "tramontane-fleet&var-pool=paris-a",
        _POOL,
    ),
    Case(
        "the breaker is open",
        "QuarantineStorm",
        {f"tramontane_breaker_open{{{POOL}}}": level((0, 10), (1, 20), rest=0)},
        *(9, 10, 30),
        "2 blades of pool paris-a are out of service, and either the breaker is open or many of"
        " them went out within 10 minutes. So many do not fail by themselves at once: look for"
        " the driver, switch, power feed or rule that they have in common.",
        "tramontane-fleet&var-pool=paris-a",
        _POOL,
    ),
    Case(
        "twenty blades go out within minutes, and the breaker is still closed",
        "QuarantineStorm",
        {f"tramontane_blades_out{{{POOL}}}": level((2, 60), (12, 2), rest=22)},
        *(61, 62, 75),
        "22 blades of pool paris-a are out of service, and either the breaker is open or many of"
        " them went out within 10 minutes. So many do not fail by themselves at once: look for"
        " the driver, switch, power feed or rule that they have in common.",
        "tramontane-fleet&var-pool=paris-a",
        _POOL,
    ),
    _stuck("a quarantine that nobody ends", "Quarantined", "HardwareFault", 24),
    _stuck("a blade that was delivered and does not begin its tests", "Delivered", "", 24),
    _stuck("a qualification without an end", "Qualifying", "", 24),
    _stuck("a driver that gives no answer for a day", "Unknown", "ProbeHung", 24),
    _stuck("a machine that is gone for hours", "Lost", "NodeNotReady", 6),
    Case(
        "an agent sends no heartbeat",
        "AgentSilent",
        {
            _HEALTHY: level((1, 10), (GONE, 1), rest=MISSING),
            f'tramontane_blade_state{{{BLADE}, state="Unknown", reason="AgentSilent"}}': level(
                (MISSING, 10), (1, 40), (GONE, 1), rest=MISSING
            ),
            f"up{{{AGENT}}}": level((1, 10), (0, 40), rest=1),
        },
        # Long enough for QuarantineStuck, which must not come as well.
        *(13, 40, 51),
        "1 blades of pool paris-a have an agent that sends no heartbeat or cannot be scraped. A"
        " fault on them would not be seen, and without a heartbeat they take no new gangs.",
        "tramontane-fleet&var-pool=paris-a",
        _POOL,
    ),
    Case(
        "an agent that works cannot be scraped",
        "AgentSilent",
        {f"up{{{AGENT}}}": level((1, 10), (0, 20), rest=1)},
        *(13, 20, 31),
        "1 blades of pool paris-a have an agent that sends no heartbeat or cannot be scraped. A"
        " fault on them would not be seen, and without a heartbeat they take no new gangs.",
        "tramontane-fleet&var-pool=paris-a",
        _POOL,
    ),
    Case(
        "reports are late",
        "DetectionSlow",
        buckets(REPORT, AGENT, NONE, growth((0, 10), (1, 5), rest=0), ("2.0", "5.0")),
        *(11, 20, 80),
        "Stage report took 4.7s (90th percentile of the last hour; limit: 2 s). Meanwhile jobs"
        " stand still on blades that are broken.",
        "tramontane-fleet",
        {"stage": "report"},
    ),
    Case(
        "quarantines are late",
        "DetectionSlow",
        buckets(TAINT, OPERATOR, NONE, growth((0, 10), (1, 5), rest=0), ("2.0", "5.0")),
        *(11, 20, 80),
        "Stage quarantine took 4.7s (90th percentile of the last hour; limit: 2 s). Meanwhile jobs"
        " stand still on blades that are broken.",
        "tramontane-fleet",
        {"stage": "quarantine"},
    ),
    Case(
        "jobs restart and restart for an hour",
        "GoodputBurn",
        {
            f'{_LEDGER}{{{JOB}, cause="productive"}}': growth((60, 70), (0, 50), rest=60),
            f'{_LEDGER}{{{JOB}, cause="restart"}}': growth((0, 70), (60, 50), rest=0),
        },
        *(100, 119, 126),
        "81.67% of the GPU time of jobs that have their blades went into starts, restarts, work"
        " done twice, hangs and checkpoints (objective: 0.95 productive).",
        "tramontane-training",
    ),
    Case(
        "a third of the time is lost for hours",
        "GoodputBurn",
        {
            f'{_LEDGER}{{{JOB}, cause="productive"}}': growth((39, 400), rest=60),
            f'{_LEDGER}{{{JOB}, cause="rework"}}': growth((21, 400), rest=0),
        },
        *(355, 370, 416),
        "35% of the GPU time of jobs that have their blades went into starts, restarts, work"
        " done twice, hangs and checkpoints (objective: 0.95 productive).",
        "tramontane-training",
    ),
    Case(
        "no checkpoint for hours",
        "CheckpointStale",
        {f"tramontane_trainingjob_checkpoint_age_seconds{{{JOB}}}": ramp(150)},
        *(123, 130, 151),
        "TrainingJob ml/llama trains, and no checkpoint of it has been seen for 2h 10m 0s: the"
        " next fault costs all work since.",
        _TRAINING_LINK,
        _JOB,
    ),
    Case(
        "no checkpoint for hours, where they are dear and rare",
        "CheckpointStale",
        {
            f"tramontane_trainingjob_checkpoint_age_seconds{{{JOB}}}": ramp(250),
            f"tramontane_trainingjob_checkpoint_advice_seconds{{{JOB}}}": level(rest=3600),
        },
        *(179, 190, 251),
        "TrainingJob ml/llama trains, and no checkpoint of it has been seen for 3h 10m 0s: the"
        " next fault costs all work since.",
        _TRAINING_LINK,
        _JOB,
    ),
    Case(
        "never a checkpoint, and so no advice how often",
        "CheckpointStale",
        {
            f"tramontane_trainingjob_checkpoint_age_seconds{{{JOB}}}": ramp(150),
            f"tramontane_trainingjob_checkpoint_advice_seconds{{{JOB}}}": GONE,
        },
        *(123, 130, 151),
        "TrainingJob ml/llama trains, and no checkpoint of it has been seen for 2h 10m 0s: the"
        " next fault costs all work since.",
        _TRAINING_LINK,
        _JOB,
    ),
    Case(
        "all requests are slow for an hour",
        "TtftBurn",
        buckets(
            TTFT, MODEL, growth((100, 300), (0, 50), rest=100), growth(rest=100), ("2.0", "5.0")
        ),
        *(330, 349, 356),
        "InferenceDeployment shop/claims: far more than one request in twenty waits 2.399s or"
        " longer for its first token, and spec.slo.ttftP95 is below that.",
        "tramontane-inference&var-namespace=shop&var-deployment=claims",
        {"namespace": "shop", "deployment": "claims"},
    ),
    Case(
        "half of the requests are slow for hours",
        "TtftBurn",
        buckets(TTFT, MODEL, growth((50, 400), rest=100), growth(rest=100), ("2.0", "5.0")),
        *(1, 370, 436),
        "InferenceDeployment shop/claims: far more than one request in twenty waits 3.2s or"
        " longer for its first token, and spec.slo.ttftP95 is below that.",
        "tramontane-inference&var-namespace=shop&var-deployment=claims",
        {"namespace": "shop", "deployment": "claims"},
    ),
    Case(
        "the power budget is exceeded",
        "PowerBudgetExceeded",
        {f'tramontane_gpu_power_watts{{{AGENT}, gpu="1"}}': level((300, 10), (700, 20), rest=300)},
        *(13, 20, 31),
        "The GPUs draw 1.3kW together (budget: 1000 W). Blades, fans and switches come on top of"
        " it.",
        "tramontane-power",
        values={"powerBudgetWatts": 1000},
    ),
    Case(
        "a controller fails",
        "ReconcileErrors",
        {
            f'{RECONCILES}{{{OPERATOR}, queue="nodepool", outcome="error"}}': growth(
                (0, 20), (25, 60), rest=0
            )
        },
        *(26, 60, 95),
        "20% of the reconciles of queue nodepool end with an error (limit: 0.1 of one). What they"
        " are about stays as it is.",
        "tramontane-operator",
        {"queue": "nodepool"},
    ),
    Case(
        "the leader is gone and the other one does not take over",
        "NoLeader",
        {
            f'tramontane_leader{{{OPERATOR}, pod="a", lease="tramontane-operator"}}': level(
                (1, 10), (GONE, 1), rest=MISSING
            ),
            f'tramontane_leader{{{OPERATOR}, pod="b", lease="tramontane-operator"}}': level(
                (0, 20), rest=1
            ),
        },
        *(11, 15, 21),
        "No process that can be scraped holds the Lease tramontane-operator. Without"
        " tramontane-operator faulty blades stay in work and nothing is replaced; without"
        " tramontane-scheduler no gang gets a place. What runs goes on. The other alerts of"
        " Tramontane may be blind.",
        "tramontane-operator",
        {"lease": "tramontane-operator"},
    ),
    Case(
        "nothing is left of the scheduler",
        "NoLeader",
        {SCHEDULER_LEADS: level((1, 10), (GONE, 10), rest=1)},
        *(11, 15, 23),
        "No process that can be scraped holds the Lease tramontane-scheduler. Without"
        " tramontane-operator faulty blades stay in work and nothing is replaced; without"
        " tramontane-scheduler no gang gets a place. What runs goes on. The other alerts of"
        " Tramontane may be blind.",
        "tramontane-operator",
        {"lease": "tramontane-scheduler"},
        cluster="",
    ),
    Case(
        "a blade's clock is wrong",
        "ClockSkew",
        {f"tramontane_clock_skew_seconds{{{AGENT}}}": level((0, 10), (-7.5, 30), rest=0)},
        *(18, 25, 41),
        "The clock of a machine with component agent is 7.5s away from the API server's (limit: 5"
        " s). Times of faults and checkpoints are wrong by as much, and Leases may pass too early"
        " or too late.",
        "tramontane-operator",
        {"component": "agent"},
    ),
)
