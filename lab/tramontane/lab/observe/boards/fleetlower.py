"""The lower half of the fleet's board: how blades leave and return, what users get, room.

It is about hours and days; what is wrong now is the upper half's.
"""

from typing import Final

from tramontane.lab.observe.boards import links
from tramontane.lab.observe.boards.links import INFERENCE, QUEUE, TRAINING
from tramontane.lab.observe.boards.panels import Draft, gauges, graph, tile
from tramontane.lab.observe.boards.queries import Query, ours, quantile, worst
from tramontane.lab.observe.boards.tables import BLADE_COLUMN, Column, table

_GPUS: Final = ours("tramontane_gpus", "pool", "pool, state")
_QUARANTINES: Final = 'tramontane_blade_transitions_total{@pool, state="Quarantined"}'
# What a job's time goes into while it has its blades and does not train.
_LOST: Final = "start|restart|rework|hang|checkpoint"


def quarantines() -> list[Draft]:
    """Return how blades leave service and come back."""
    detect = "tramontane_agent_event_to_report_seconds{@all}"
    taint = "tramontane_quarantine_seconds{@all}"
    back = "tramontane_blade_out_seconds{@pool}"
    # Of the states of blades, in_use and spare are parts of healthy.
    blades = """
        sum by (pool) (max by (cluster, pool, state) (
          tramontane_blades{@pool, state!~"in_use|spare"}))
    """
    size = f"sum by (pool) ({_GPUS}) / ({blades})"
    return [
        graph(
            "Quarantines by reason",
            "Quarantines within the last day, by reason.",
            "none",
            Query(f"sum by (reason) (increase({_QUARANTINES}[1d])) > 0", "{{reason}}"),
            stack=True,
            width=6,
            none="No quarantines.",
        ),
        graph(
            "Blades out, and how many may be",
            "Blades that are out of service against the pool's budget, and faulty ones that have to"
            " stay in service because the budget is used up.",
            "none",
            Query("max by (pool) (tramontane_blades_out{@pool})", "{{pool}}: out"),
            Query("max by (pool) (tramontane_blades_budget{@pool})", "{{pool}}: budget"),
            Query("max by (pool) (tramontane_quarantines_refused{@pool})", "{{pool}}: refused"),
            width=6,
        ),
        graph(
            "Time to detect",
            "From a fault's event on a blade to the report that has it, and from the report's"
            " arrival at the operator to the taint; over the last hour.",
            "s",
            Query(quantile(0.5, detect, window="1h"), "report p50"),
            Query(quantile(0.95, detect, window="1h"), "report p95"),
            Query(quantile(0.5, taint, window="1h"), "taint p50"),
            Query(quantile(0.95, taint, window="1h"), "taint p95"),
            none="No fault within the hour.",
            width=6,
        ),
        tile(
            "Time to return",
            "From leaving service until the blade is healthy again, over the last week.",
            "s",
            Query(quantile(0.5, back, window="7d"), "p50"),
            Query(quantile(0.95, back, window="7d"), "p95"),
            names=True,
            width=3,
            none="none returned",
        ),
        tile(
            "Between failures",
            "GPU-hours between failures, from the failures per 1,000 blade-days that"
            " the operator has measured.",
            "suffix: GPU-h",
            Query(f"{size} * 24000 / max by (pool) (tramontane_failure_rate{{@pool}})", "{{pool}}"),
            names=True,
            width=3,
            decimals=0,
            none="too few seen",
        ),
    ]


def _lost(window: str) -> str:
    """Return the share of placed jobs' GPU time that was lost; see the alert GoodputBurn."""
    gpus = ours("tramontane_trainingjob_gpus", "all", "namespace, job")

    def spent(causes: str) -> str:
        series = f'tramontane_trainingjob_ledger_seconds{{@all, cause=~"{causes}"}}'
        jobs = f"sum by (cluster, namespace, job) (delta({series}[{window}]))"
        return f"sum(clamp_min({jobs}, 0) * {gpus})"

    return f"{spent(_LOST)} / ({spent(f'productive|{_LOST}')} > 0)"


def levels() -> list[Draft]:
    """Return what users get, against what they were promised."""
    by = ("cluster", "namespace", "deployment")
    ttft = "tramontane_inference_ttft_seconds{@all}"
    promised = ours("tramontane_inference_slo_ttft_seconds", "all", "namespace, deployment")
    broken = f"{quantile(0.95, ttft, *by, window='5m')} / {promised}"
    windows = ("5m", "30m", "1h", "6h")
    return [
        graph(
            "Training time lost",
            "Share of the GPU time of jobs that have their blades that went into starts, restarts,"
            " work done twice, hangs and checkpoints, within 5 and 30 minutes, 1 and 6 hours. The"
            " alert GoodputBurn goes by it.",
            "percentunit",
            *(Query(_lost(window), window) for window in windows),
            width=12,
            links=[links.drill(TRAINING, "Open the jobs")],
            none="No job has blades.",
        ),
        graph(
            "Models: first token against promise",
            "p95 of the time to the first token over what a deployment promises, within 5 minutes;"
            " above 1 the promise is broken. Of the 20 deployments that were worst off.",
            "none",
            Query(worst(20, broken, ", ".join(by)), "{{namespace}}/{{deployment}}"),
            width=12,
            links=[
                links.drill(
                    INFERENCE,
                    "Open the deployment",
                    namespace="namespace",
                    deployment="deployment",
                )
            ],
            none="Nothing promised, or nobody asks.",
        ),
    ]


def room() -> list[Draft]:
    """Return new blades, room for gangs, and lemons."""
    lemons = "max by (pool, blade) (tramontane_blade_lemon_score_ratio{@pool})"
    placeable = "tramontane_scheduler_placeable_blades{@pool}"
    return [
        gauges(
            "Blades of the tranches",
            "Blades that were delivered together, by how far their qualification has come.",
            "none",
            Query(
                "sum by (tranche, state) (max by (cluster, pool, tranche, state)"
                " (tramontane_tranche_blades{@pool})) > 0",
                "{{tranche}}: {{state}}",
            ),
            none="No pool names its tranches.",
        ),
        gauges(
            "Room for whole blades, by domain",
            "Largest gang of whole blades that each domain could take now; the roomiest twelve.",
            "none",
            Query(f"topk(12, max by (pool, domain) ({placeable}))", "{{domain}} ({{pool}})"),
            links=[links.drill(QUEUE, "Open the queue", pool="pool")],
        ),
        table(
            "Lemons",
            "Blades that pass every test and fail at work: how likely each of them is a lemon, by"
            " its incidents of 28 days.",
            Query(f"topk(10, {lemons})"),
            columns=[
                BLADE_COLUMN,
                Column("pool", "Pool"),
                Column("Value", "Score", unit="percentunit"),
            ],
            sort="Score",
            width=8,
            none="No blade has a record.",
        ),
    ]
