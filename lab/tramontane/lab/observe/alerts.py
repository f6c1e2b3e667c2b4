"""List the alerts: fourteen, each with a runbook in docs/runbooks.

What they have in common:

* Gauges of pools, jobs and deployments come from the replica that leads. When another one takes
  over there may be two of each for a moment, or none for a scrape: so `max by`, and a `for`.
* Counters begin at nought with each process. They are compared by `rate` and `increase`, which
  know that, and only of series that are there from the start.
* A series that vanishes ends the alert that looks at it. So one alert, NoLeader, looks for what
  should always be there: as long as it is quiet, the others can be believed.
* One blade in quarantine is the day's work and wakes nobody. Many at once do.

With `metrics.detail: low` there are no series of single blades, jobs and deployments: AgentSilent,
QuarantineStuck, GoodputBurn, CheckpointStale and TtftBurn have nothing to look at then.

`python -m tramontane.lab.observe.alerts [DIR]` writes the chart's file.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tramontane.api.names import LEASE_OPERATOR, LEASE_SCHEDULER
from tramontane.lab.observe.alertrules import Alert, Record, Severity, rules_file

FILE: Final = "alerts.yaml"
_DIR: Final = Path("charts/tramontane/files/rules")
FLEET, TRAINING, QUEUE = "tramontane-fleet", "tramontane-training", "tramontane-queue"
INFERENCE, POWER, OPERATOR = "tramontane-inference", "tramontane-power", "tramontane-operator"

# Burn rates: how many times faster than allowed an error budget goes. At 14.4 an hour takes 2 % of
# a month's, at 6 six hours take 5 %: what a person should be woken for. The short window of each
# pair ends the alert soon after the trouble has ended.
# Source: "The Site Reliability Workbook", chapter 5, alerts on multiple burn rates and windows.
FAST: Final = (14.4, "1h", "5m")
SLOW: Final = (6.0, "6h", "30m")

# What a job's time goes into while it has its blades. Waiting in the queue, giving way and being
# suspended are decisions, not losses.
_LOST: Final = "start|restart|rework|hang|checkpoint"
_LEDGERS: Final = {
    "job:tramontane_ledger_lost:sum": _LOST,
    "job:tramontane_ledger_held:sum": f"productive|{_LOST}",
}
# An InferenceDeployment's objective is on its 95th percentile: one request in twenty may be slower.
_MAY_BE_SLOW: Final = 0.05


def _max(series: str, *by: str) -> str:
    """Return a gauge of the leader's, once."""
    return f"max by ({', '.join(('cluster', *by))}) ({series})"


def _lost(window: str) -> str:
    """Return the name of the recorded share of GPU time that training lost within a window."""
    return f"cluster:tramontane_training_lost:ratio_{window}"


def _records() -> Iterator[Record]:
    by = ("namespace", "job")
    for name, causes in _LEDGERS.items():
        series = f'tramontane_trainingjob_ledger_seconds{{cause=~"{causes}"}}'
        yield Record(name, f"sum by (cluster, namespace, job) ({_max(series, *by, 'cause')})")
    gpus = f"on (cluster, namespace, job) {_max('tramontane_trainingjob_gpus', *by)}"
    for window in (*FAST[1:], *SLOW[1:]):
        # No `increase`: when more is known, time is moved between causes (a step turns out to have
        # been done in vain), so one may shrink, and that is no counter that began again.
        lost, held = (
            f"sum by (cluster) (clamp_min({name} - {name} offset {window}, 0) * {gpus})"
            for name in _LEDGERS
        )
        yield Record(_lost(window), f"{lost}\n/\n({held} > 0)")


def _goodput_burn(factor: float, *windows: str) -> str:
    limit = f"{factor:g} * (1 - ${{goodputObjective}})"
    return " and ".join(f"{_lost(window)} > {limit}" for window in windows)


def _ttft_burn(factor: float, long: str, short: str) -> str:
    """Return where `factor` times too many requests are slower than the objective.

    "More than 30 % are slower than 2 s" is "the 70th percentile is above 2 s": that needs no
    bucket at the objective, which every deployment chooses for itself.
    """
    by = "cluster, namespace, deployment"
    objective = _max("tramontane_inference_slo_ttft_seconds", "namespace", "deployment")

    def slow(window: str) -> str:
        rate = f"sum by ({by}, le) (rate(tramontane_inference_ttft_seconds_bucket[{window}]))"
        return f"histogram_quantile({1 - factor * _MAY_BE_SLOW:g}, {rate})"

    # A handful of requests says nothing.
    count = f"sum by ({by}) (increase(tramontane_inference_ttft_seconds_count[{short}]))"
    return (
        f"{slow(long)} > {objective}\nand {slow(short)} > {objective}\nand on ({by}) {count} > 20"
    )


def _slow(histogram: str, stage: str) -> str:
    """Return the 90th percentile of an hour where it is too slow, of three faults at least."""
    rate = f"sum by (cluster, le) (increase({histogram}_bucket[1h]))"
    count = f"sum by (cluster) (increase({histogram}_count[1h]))"
    slow = f"histogram_quantile(0.9, {rate}) > ${{detectionSlowSeconds}} and {count} > 2.5"
    return f'label_replace(\n  {slow},\n  "stage", "{stage}", "cluster", ".*"\n)'


_OUT: Final = "tramontane_blades_out"
# Every blade once: those in use and the spares are among the healthy ones.
_BLADES: Final = 'tramontane_blades{state!~"in_use|spare"}'
# A machine that is lost is somebody's to fetch sooner than one that is worked on: after a quarter.
_LOST_BLADE: Final = '0.25 * tramontane_blade_state{state="Lost"}'
# Of those that are Unknown, AgentSilent tells where the agent is silent.
_AWAY: Final = (
    "tramontane_blade_state{"
    'state=~"Delivered|Qualifying|Quarantined|Draining|Repairing|Requalifying|Unknown", '
    'reason!="AgentSilent"}'
)
_SILENT: Final = 'tramontane_blade_state{reason="AgentSilent"}'
_HEALTHY: Final = 'tramontane_blade_state{state="Healthy"}'
_RECONCILES: Final = "tramontane_reconcile_seconds_count"

RECORDS: Final = tuple(_records())
ALERTS: Final = (
    Alert(
        "GangPendingTooLong",
        Severity.WARNING,
        _max("tramontane_scheduler_oldest_wait_seconds", "pool") + " > ${gangPendingMinutes} * 60",
        "A gang has waited for a place for a long time.",
        "In pool {{ $labels.pool }} the gang that has waited longest has done so for"
        " {{ $value | humanizeDuration }} (limit: ${gangPendingMinutes} min).",
        (QUEUE, "pool"),
        wait="5m",
    ),
    Alert(
        "LargestGangUnplaceable",
        Severity.WARNING,
        "sum by (cluster, reason) (\n"
        '  tramontane_scheduler_pending_gangs{reason=~"TopologyPlacementFailed|HealthHold"}\n'
        ") > 0",
        "Gangs wait that the hall is large enough for, and cannot take as it is.",
        "{{ $value }} gangs wait with reason {{ $labels.reason }}:"
        ' {{ if eq $labels.reason "HealthHold" }}too few blades are healthy, even if all of them'
        " were free{{ else }}enough blades are free, but not together in one domain{{ end }}."
        " That other jobs end will not let them start soon.",
        (QUEUE,),
        wait="30m",
    ),
    Alert(
        "SparesExhausted",
        Severity.WARNING,
        f"({_max('tramontane_spares_target', 'pool')} > 0)\n"
        f"unless on (cluster, pool) ({_max('tramontane_spares_ready', 'pool')} > 0)",
        "A pool has no spare blade left.",
        "Pool {{ $labels.pool }} should keep {{ $value }} healthy blades free and has none. The"
        " next blade that fails stops its job until another one comes back.",
        (FLEET, "pool"),
        wait="15m",
    ),
    Alert(
        "QuarantineStorm",
        Severity.CRITICAL,
        f"{_max(_OUT, 'pool')}\nand on (cluster, pool) (\n"
        f"  {_max('tramontane_breaker_open', 'pool')} > 0\n"
        "  or on (cluster, pool)\n"
        f"  {_max(_OUT, 'pool')} - {_max(f'max_over_time({_OUT}[2m] offset 10m)', 'pool')}\n"
        f"  >= clamp_min(${{quarantineStormRatio}} * sum by (cluster, pool) ({_BLADES}), 3)\n"
        ")",
        "Many blades of a pool have gone out of service at once.",
        "{{ $value }} blades of pool {{ $labels.pool }} are out of service, and either the breaker"
        " is open or many of them went out within 10 minutes. So many do not fail by themselves at"
        " once: look for the driver, switch, power feed or rule that they have in common.",
        (FLEET, "pool"),
    ),
    Alert(
        "QuarantineStuck",
        Severity.WARNING,
        "count by (cluster, pool) (\n"
        "  time() - "
        f"{_max('tramontane_blade_state_since_timestamp_seconds', 'pool', 'blade')}\n"
        "  > on (cluster, pool, blade)\n"
        "  ${quarantineStuckHours} * 3600 * max by (cluster, pool, blade) (\n"
        f"    {_AWAY}\n    or {_LOST_BLADE}\n"
        "  )\n"
        ")",
        "Blades are out of service and do not come back.",
        "{{ $value }} blades of pool {{ $labels.pool }} have been out of service in one state for"
        " more than ${quarantineStuckHours} h, or Lost for a quarter of that. Nobody works on them,"
        " or what they wait for needs a person.",
        (FLEET, "pool"),
        wait="15m",
    ),
    Alert(
        "AgentSilent",
        Severity.WARNING,
        "count by (cluster, pool) (\n"
        f"  max by (cluster, pool, blade) (\n    {_SILENT}\n"
        f'    or ({_HEALTHY} and on (cluster, blade) (up{{component="agent"}} == 0))\n'
        "  )\n)",
        "Health agents are silent: nobody looks at these blades.",
        "{{ $value }} blades of pool {{ $labels.pool }} have an agent that sends no heartbeat or"
        " cannot be scraped. A fault on them would not be seen, and without a heartbeat they take"
        " no new gangs.",
        (FLEET, "pool"),
        wait="5m",
    ),
    Alert(
        "DetectionSlow",
        Severity.WARNING,
        f"{_slow('tramontane_agent_event_to_report_seconds', 'report')}\nor\n"
        f"{_slow('tramontane_quarantine_seconds', 'quarantine')}",
        "Faults are noticed too late.",
        "Stage {{ $labels.stage }} took {{ $value | humanizeDuration }} (90th percentile of the"
        " last hour; limit: ${detectionSlowSeconds} s). Meanwhile jobs stand still on blades that"
        " are broken.",
        (FLEET,),
    ),
    Alert(
        "GoodputBurn",
        Severity.CRITICAL,
        f"({_goodput_burn(*FAST)})\nor\n({_goodput_burn(*SLOW)})",
        "Training loses much more GPU time than its objective allows.",
        "{{ $value | humanizePercentage }} of the GPU time of jobs that have their blades went into"
        " starts, restarts, work done twice, hangs and checkpoints (objective: ${goodputObjective}"
        " productive).",
        (TRAINING,),
        wait="2m",
    ),
    Alert(
        "CheckpointStale",
        Severity.WARNING,
        "(\n"
        f"  {_max('tramontane_trainingjob_checkpoint_age_seconds', 'namespace', 'job')}\n"
        "  > on (cluster, namespace, job)\n"
        f"  (3 * {_max('tramontane_trainingjob_checkpoint_advice_seconds', 'namespace', 'job')}\n"
        f"  or 0 * {_max('tramontane_trainingjob_checkpoint_age_seconds', 'namespace', 'job')})\n"
        ") > ${checkpointStaleMinutes} * 60",
        "A training job has not saved a checkpoint for a long time.",
        "TrainingJob {{ $labels.namespace }}/{{ $labels.job }} trains, and no checkpoint of it has"
        " been seen for {{ $value | humanizeDuration }}: the next fault costs all work since.",
        (TRAINING, "namespace", "job"),
        wait="5m",
    ),
    Alert(
        "TtftBurn",
        Severity.CRITICAL,
        f"(\n{_ttft_burn(*FAST)}\n)\nor\n(\n{_ttft_burn(*SLOW)}\n)",
        "A model answers much too slowly.",
        "InferenceDeployment {{ $labels.namespace }}/{{ $labels.deployment }}: far more than one"
        " request in twenty waits {{ $value | humanizeDuration }} or longer for its first token,"
        " and spec.slo.ttftP95 is below that.",
        (INFERENCE, "namespace", "deployment"),
        wait="2m",
    ),
    Alert(
        "PowerBudgetExceeded",
        Severity.CRITICAL,
        "sum by (cluster) (tramontane_gpu_power_watts) > ${powerBudgetWatts}",
        "The GPUs draw more power than the hall has for them.",
        "The GPUs draw {{ $value | humanize }}W together (budget: ${powerBudgetWatts} W). Blades,"
        " fans and switches come on top of it.",
        (POWER,),
        wait="5m",
        off_at_zero="powerBudgetWatts",
    ),
    Alert(
        "ReconcileErrors",
        Severity.WARNING,
        f'sum by (cluster, queue) (rate({_RECONCILES}{{outcome="error"}}[10m]))\n'
        f"/ sum by (cluster, queue) (rate({_RECONCILES}[10m]))\n"
        "> ${reconcileErrorRatio}\n"
        "and on (cluster, queue)\n"
        f'sum by (cluster, queue) (increase({_RECONCILES}{{outcome="error"}}[10m])) > 5',
        "A controller fails at its work again and again.",
        "{{ $value | humanizePercentage }} of the reconciles of queue {{ $labels.queue }} end with"
        " an error (limit: ${reconcileErrorRatio} of one). What they are about stays as it is.",
        (OPERATOR,),
        wait="10m",
    ),
    Alert(
        "NoLeader",
        Severity.CRITICAL,
        "\nor\n".join(
            (
                "max by (cluster, lease) (tramontane_leader) == 0",
                *(
                    f'absent(tramontane_leader{{lease="{lease}"@own}})'
                    for lease in (LEASE_OPERATOR, LEASE_SCHEDULER)
                ),
            )
        ),
        "Nobody leads: faults have no consequences, or nothing is placed.",
        "No process that can be scraped holds the Lease {{ $labels.lease }}. Without"
        " tramontane-operator faulty blades stay in work and nothing is replaced; without"
        " tramontane-scheduler no gang gets a place. What runs goes on. The other alerts of"
        " Tramontane may be blind.",
        (OPERATOR,),
        wait="2m",
    ),
    Alert(
        "ClockSkew",
        Severity.WARNING,
        "max by (cluster, component) (abs(tramontane_clock_skew_seconds)) > ${clockSkewSeconds}",
        "A machine's clock differs from the API server's.",
        "The clock of a machine with component {{ $labels.component }} is"
        " {{ $value | humanizeDuration }} away from the API server's (limit: ${clockSkewSeconds} s)"
        ". Times of faults and checkpoints are wrong by as much, and Leases may pass too early or"
        " too late.",
        (OPERATOR,),
        wait="10m",
    ),
)


def main() -> None:
    """Write the file into a folder, the chart's by default."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else _DIR
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(rules_file(RECORDS, ALERTS))


if __name__ == "__main__":
    main()
