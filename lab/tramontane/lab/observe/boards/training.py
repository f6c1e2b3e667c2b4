"""The board of training jobs: how fast, how far, and where did the time go?

It opens with all jobs in a table; a click on one leaves only that one on the board. What a job
stands on is at the end, and leads to the blades.
"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look, variables
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import BLADE, FLEET, POWER, QUEUE, TRAINING
from tramontane.lab.observe.boards.panels import Draft, gauges, graph, guide, tile, timeline
from tramontane.lab.observe.boards.queries import (
    Query,
    coded,
    in_trouble,
    ours,
    quantile,
    watts_of,
    worst,
)
from tramontane.lab.observe.boards.tables import BLADE_COLUMN, Column, table

_BY: Final = "namespace, job"
_JOB: Final = f"cluster, {_BY}"
_NAME: Final = "{{namespace}}/{{job}}"
_GUIDE: Final = f"""\
**Pick a job** in the table, then read downwards: is it slow now, what was its time lost to, and
what does it stand on? A job that waits: [Queue]({links.inline(QUEUE)}). A blade under suspicion:
click it at the end. Energy of all jobs: [Power]({links.inline(POWER)}).
"""


def board() -> Board:
    """Return the board."""
    return assemble(
        TRAINING,
        "How fast is a training job, how far is it, and where did its time go?",
        choices=[variables.namespace("tramontane_trainingjob_phase"), variables.job()],
        marks=[annotations.restarts("job"), annotations.quarantines(), annotations.upgrades()],
        ways=[FLEET, QUEUE, BLADE, POWER],
        sections=[
            Section("", 2, [guide(_GUIDE)]),
            Section("Jobs", 8, _jobs()),
            Section("Now", 4, _now()),
            Section("Where the time went", 8, _time()),
            Section("Speed", 8, _speed()),
            Section("Losses and the way back", 8, _losses()),
            Section("What it stands on", 8, _blades()),
        ],
    )


def _of(name: str, by: str = _BY) -> str:
    """Return a gauge of the chosen jobs, once per job."""
    return ours(f"tramontane_trainingjob_{name}", "job", by)


def _jobs() -> list[Draft]:
    here = links.cell(TRAINING, "Only this job", namespace="namespace", job="job")
    phase = "max by (cluster, namespace, job, phase) (tramontane_trainingjob_phase{@job})"
    phases = coded("tramontane_trainingjob_phase", "job", "phase", look.JOB_COLOURS, _JOB)
    trouble = in_trouble("tramontane_trainingjob_phase", "job", "Recovering|Failed", _JOB)
    return [
        table(
            "Jobs",
            "Every job of the chosen namespaces: phase, productive share of its time, GPUs, pods"
            " that are ready of those it has, last step. A click leaves only that job here.",
            Query(f"max by (namespace, job, phase) ({phase})"),
            Query(f"max by (namespace, job) ({_of('goodput_ratio')})"),
            Query(f"max by (namespace, job) ({_of('gpus')})"),
            Query(f"max by (namespace, job) ({_of('ready')})"),
            Query(f"max by (namespace, job) ({_of('size')})"),
            Query(f"max by (namespace, job) ({_of('step')})"),
            columns=[
                Column("job", "Job", links=(here,)),
                Column("namespace", "Namespace"),
                Column("phase", "Phase", colours=dict(look.JOB_COLOURS)),
                Column("Value #B", "Goodput", unit="percentunit", decimals=1),
                Column("Value #C", "GPUs"),
                Column("Value #D", "Ready"),
                Column("Value #E", "Of"),
                Column("Value #F", "Step"),
            ],
            sort="GPUs",
            hidden=("cluster", "Value #A"),
            width=14,
        ),
        timeline(
            "Phases",
            "Phase over time of the 10 jobs that were Recovering or Failed last.",
            Query(worst(10, phases, _JOB, trouble), _NAME),
            colours=look.JOB_COLOURS,
            width=10,
        ),
    ]


def _now() -> list[Draft]:
    advice = f"max({_of('checkpoint_age_seconds')} / {_of('checkpoint_advice_seconds')})"
    restarts = "sum(increase(tramontane_trainingjob_restarts_total{@job}[$__range]))"
    return [
        tile(
            "Goodput",
            "Productive share of the time since creation, weighted by GPUs.",
            "percentunit",
            Query(f"sum({_of('goodput_ratio')} * {_of('gpus')}) / sum({_of('gpus')})"),
            limits=look.limits((0.8, look.WARN), (0.9, look.GOOD), base=look.BAD),
            decimals=1,
            trend=True,
        ),
        tile(
            "Pods ready",
            "Pods that are ready, as a share of the pods of this attempt.",
            "percentunit",
            Query(f"sum({_of('ready')}) / sum({_of('size')})"),
            limits=look.limits((1, look.GOOD), base=look.WARN),
            trend=True,
        ),
        tile(
            "Step time now",
            "Median time of a step of the slowest of the chosen jobs.",
            "s",
            Query(f"max({_of('step_time_seconds')})"),
            trend=True,
            none="no steps yet",
        ),
        tile(
            "Checkpoint against advice",
            "Age of the last checkpoint over the interval that loses the least time; of the job"
            " that is worst. Above 2, a fault costs more than a checkpoint would have.",
            "none",
            Query(advice),
            limits=look.limits((1, look.WARN), (2, look.BAD)),
            decimals=1,
            none="no advice yet",
        ),
        tile(
            "Restarts",
            "Restarts within the time shown, whoever caused them.",
            "none",
            Query(restarts),
            limits=look.limits((1, look.WARN), (5, look.BAD)),
            decimals=0,
        ),
        tile(
            "Loss now",
            "Last loss that rank 0 told; of several jobs the largest.",
            "none",
            Query(f"max({_of('loss')})"),
            trend=True,
            decimals=3,
            none="no loss told",
        ),
    ]


def _time() -> list[Draft]:
    spent = "clamp_min(delta(tramontane_trainingjob_ledger_seconds{@job}[$__rate_interval]), 0)"
    lost = """
        sum by (cause) (max by (cluster, namespace, job, cause) (
          tramontane_trainingjob_ledger_seconds{@job, cause!="productive"}))
    """
    return [
        graph(
            "What the time goes into",
            "Seconds of each job's time by what they go into, as a share: 100 % per job. Time is"
            " moved when more is known (steps done twice become rework), so a share may move late.",
            "percentunit",
            Query(f"sum by (cause) ({spent}) / scalar(sum({spent}))", "{{cause}}"),
            stack=True,
            colours=look.LEDGER_COLOURS,
            most=1,
            width=10,
        ),
        gauges(
            "Time lost so far",
            "Time since creation that was not productive, by cause.",
            "s",
            Query(lost, "{{cause}}"),
            colours=look.LEDGER_COLOURS,
            width=7,
        ),
        gauges(
            "Time lost to restarts",
            "The stages of all restarts so far: until the loss was noticed, until every seat had a"
            " pod again, until the next step.",
            "s",
            Query(f"sum by (stage) ({_of('restart_seconds', f'{_BY}, stage')})", "{{stage}}"),
            width=7,
        ),
    ]


def _speed() -> list[Draft]:
    median, p99 = _of("step_time_seconds"), _of("step_time_p99_seconds")
    age, loss = _of("checkpoint_age_seconds"), _of("loss")
    largest = f"{_of('gpus')} and {loss}"
    return [
        graph(
            "Step time",
            "Median and 99th percentile of the last steps of the 10 jobs in which they came to lie"
            " farthest apart. A p99 far above the median is a straggler, or a slow network.",
            "s",
            Query(worst(10, median, _JOB, f"{p99} / {median}"), f"{_NAME} p50"),
            Query(worst(10, p99, _JOB, f"{p99} / {median}"), f"{_NAME} p99"),
        ),
        graph(
            "Loss",
            "The loss that rank 0 told, of the 20 jobs that held most GPUs.",
            "none",
            Query(worst(20, loss, _JOB, largest), _NAME),
            least=None,
        ),
        graph(
            "Age of the last checkpoint",
            "What a fault would cost, against the advised interval; of the 10 jobs in which it came"
            " to most. Where none was seen yet: since the job first ran.",
            "s",
            Query(worst(10, age, _JOB), f"{_NAME} age"),
            Query(worst(10, _of("checkpoint_advice_seconds"), _JOB, age), f"{_NAME} advised"),
        ),
    ]


def _losses() -> list[Draft]:
    recovery = "tramontane_trainingjob_recovery_seconds{@all}"
    incidents = "increase(tramontane_trainingjob_incidents_total{@job}[$__rate_interval])"
    restarts = "increase(tramontane_trainingjob_restarts_total{@job}[$__rate_interval])"
    return [
        graph(
            "Incidents by cause",
            "What interrupted the chosen jobs, and when.",
            "none",
            Query(f"sum by (cause) ({incidents})", "{{cause}}"),
            bars=True,
            stack=True,
        ),
        graph(
            "Restarts by who caused them",
            "Restarts for an infrastructure fault, for the user's own, or for somebody's priority.",
            "none",
            Query(f"sum by (cause) ({restarts})", "{{cause}}"),
            bars=True,
            stack=True,
        ),
        graph(
            "Recovery of all jobs",
            "From an incident until it was detected, until its seats had pods again, and until"
            " steps again; over the last hour, for every job of the cluster.",
            "s",
            Query(quantile(0.5, recovery, "stage", window="1h"), "{{stage}} p50"),
            Query(quantile(0.95, recovery, "stage", window="1h"), "{{stage}} p95"),
            none="Nothing recovered within the hour.",
        ),
    ]


def _blades() -> list[Draft]:
    held = "max by (cluster, blade) (tramontane_allocation_info{@jobs_blades})"
    states = f"""
        max by (cluster, blade, state, reason) (tramontane_blade_state{{@all}})
          * on (cluster, blade) group_left () {held}
    """
    slowed = f"""
        sum by (reason) (rate(tramontane_gpu_throttle_seconds_total{{@all}}[$__rate_interval])
          * on (cluster, blade) group_left () {held})
    """
    drawn = f"sum(tramontane_gpu_power_watts{{@all}} * on (cluster, blade) group_left () {held})"
    step = f"""
        {watts_of("jobs_blades", "job")}
          * on (cluster, namespace, job) {_of("step_time_seconds")}
    """
    return [
        table(
            "Blades",
            "The blades that the chosen jobs run on, with their state. A click opens the blade.",
            Query(states),
            columns=[
                BLADE_COLUMN,
                Column("state", "State", colours=dict(look.BLADE_COLOURS)),
                Column("reason", "Reason"),
            ],
            hidden=("cluster", "Value"),
            width=6,
        ),
        graph(
            "GPUs held down",
            "How many GPUs of these blades have their clocks held down, by what.",
            "none",
            Query(slowed, "{{reason}}"),
            stack=True,
            width=6,
            none="Nothing holds them down.",
        ),
        graph(
            "Power",
            "Power that all GPUs of these blades draw; a blade that two jobs share counts whole.",
            "watt",
            Query(drawn, "drawn"),
            width=6,
        ),
        graph(
            "Energy of a step",
            "Power of a job's blades times the median time of its steps; of the 20 jobs in which a"
            " step cost most.",
            "joule",
            Query(worst(20, step, _JOB), _NAME),
            width=6,
            none="No job that steps.",
        ),
    ]
