"""The board to begin with: is anything wrong, and where?

The first row answers the first half with numbers that are green or are not; the second half is the
table of blades that are out, and the pools beside each other. From here every other board is one
click away.
"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look, variables
from tramontane.lab.observe.boards import fleetlower as lower
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import BLADE, INFERENCE, OPERATOR, POWER, QUEUE, TRAINING
from tramontane.lab.observe.boards.panels import Draft, graph, guide, tile
from tramontane.lab.observe.boards.queries import Query, ours
from tramontane.lab.observe.boards.tables import BLADE_COLUMN, Column, table

# An agent that has not looked for two minutes is as good as none.
SILENT_S: Final = 120
_GPUS: Final = ours("tramontane_gpus", "pool", "pool, state")
_HEALTHY: Final = 'max by (cluster, pool, state) (tramontane_gpus{@pool, state=~"allocated|free"})'
_GUIDE: Final = f"""\
**If you want to know …** why a job is slow or down, open [Training]({links.inline(TRAINING)}) ·
why a gang waits and what would fit, [Queue]({links.inline(QUEUE)}) ·
what is wrong with one server, [Blade]({links.inline(BLADE)}) ·
whether models answer in time, [Inference]({links.inline(INFERENCE)}) ·
what is drawn and what a step costs, [Power]({links.inline(POWER)}) ·
whether Tramontane itself works, [Operator]({links.inline(OPERATOR)}).
"""


def board() -> Board:
    """Return the board."""
    return assemble(
        links.FLEET,
        "Is anything wrong with the GPUs, and where?",
        choices=[variables.pool()],
        marks=[annotations.quarantines("pool"), annotations.restarts(), annotations.upgrades()],
        ways=[TRAINING, QUEUE, BLADE, INFERENCE, POWER, OPERATOR],
        sections=[
            Section("", 3, [guide(_GUIDE)]),
            Section("Is anything wrong?", 4, [*_of_blades(), *_of_work()]),
            Section("Where?", 9, _where()),
            Section("", 5, [_pools()]),
            Section("Quarantines and the way back", 8, lower.quarantines()),
            Section("Service levels", 8, lower.levels()),
            Section("New blades, and where a gang would fit", 8, lower.room()),
        ],
    )


def _of_blades() -> list[Draft]:
    silent = f"""
        count(count by (cluster, blade) (
            up{{@all, component="agent"}} == 0
            or time() - tramontane_agent_last_poll_timestamp_seconds{{@all, source="nvml"}}
               > {SILENT_S}
            or tramontane_blade_state{{@all, reason="AgentSilent"}}
        )) or vector(0)
    """
    short = f"""
        sum(clamp_min({ours("tramontane_spares_target", "pool", "pool")}
          - {ours("tramontane_spares_ready", "pool", "pool")}, 0))
    """
    return [
        tile(
            "GPUs in service",
            "Share of all GPUs that are on healthy blades. Under 95 % the reserve is used up, under"
            " 90 % work is being lost.",
            "percentunit",
            Query(f"(sum({_HEALTHY}) or vector(0)) / sum({_GPUS})"),
            limits=look.limits((0.9, look.WARN), (0.95, look.GOOD), base=look.BAD),
            width=3,
            trend=True,
        ),
        tile(
            "Breakers open",
            "Pools whose breaker stopped quarantines: so many blades fail at once that the cause is"
            " likely not the blades. A person has to look before anything goes on.",
            "none",
            Query(f"sum({ours('tramontane_breaker_open', 'pool', 'pool')})"),
            limits=look.NONE_IS_GOOD,
            width=3,
        ),
        tile(
            "Spares missing",
            "Spares that the pools should hold ready and do not. The next fault of a blade then"
            " costs a job its place.",
            "none",
            Query(short),
            limits=look.limits((1, look.WARN)),
            width=3,
        ),
        tile(
            "Silent agents",
            f"Blades that nobody watches: the agent's scrape fails, it has not read its GPUs for"
            f" {SILENT_S} s, or the operator has not heard of it.",
            "none",
            Query(silent),
            limits=look.NONE_IS_GOOD,
            width=3,
        ),
    ]


def _of_work() -> list[Draft]:
    troubled = 'tramontane_trainingjob_phase{@all, phase=~"Recovering|Failed"}'
    weight = ours("tramontane_trainingjob_gpus", "all", "namespace, job")
    goodput = ours("tramontane_trainingjob_goodput_ratio", "all", "namespace, job")
    ill = 'tramontane_inference_phase{@all, phase=~"Degraded|Failed|RolledBack"}'
    return [
        tile(
            "Jobs in trouble",
            "Training jobs that recover from a loss or have failed (a failed job is shown for ten"
            " minutes).",
            "none",
            Query(f"count(count by (cluster, namespace, job) ({troubled})) or vector(0)"),
            limits=look.limits((1, look.WARN)),
            links=[links.drill(TRAINING, "Open the jobs")],
            width=3,
        ),
        tile(
            "Goodput",
            "Productive share of the jobs' time since their creation, weighted by their GPUs."
            " Waiting for blades counts as lost.",
            "percentunit",
            Query(f"sum({goodput} * {weight}) / sum({weight})"),
            limits=look.limits((0.8, look.WARN), (0.9, look.GOOD), base=look.BAD),
            links=[links.drill(TRAINING, "Open the jobs")],
            width=3,
            trend=True,
            none="no jobs",
        ),
        tile(
            "Longest wait",
            "How long the gang has waited that waits longest.",
            "s",
            Query(f"max({ours('tramontane_scheduler_oldest_wait_seconds', 'pool', 'pool')})"),
            limits=look.limits((1800, look.WARN), (7200, look.BAD)),
            links=[links.drill(QUEUE, "Open the queue")],
            width=3,
        ),
        tile(
            "Models in trouble",
            "Deployments that are degraded, rolled back or failed.",
            "none",
            Query(f"count(count by (cluster, namespace, deployment) ({ill})) or vector(0)"),
            limits=look.limits((1, look.WARN)),
            links=[links.drill(INFERENCE, "Open the deployments")],
            width=3,
        ),
    ]


def _where() -> list[Draft]:
    since = ours("tramontane_blade_state_since_timestamp_seconds", "pool", "pool, blade")
    out = f"""
        (time() - {since}) * on (cluster, pool, blade) group_left (state, reason)
          max by (cluster, pool, blade, state, reason) (
            tramontane_blade_state{{@pool, state!="Healthy"}})
    """
    return [
        graph(
            "GPUs by state",
            "GPUs by what is true of them; allocated and free ones are on healthy blades.",
            "none",
            Query(f"sum by (state) ({_GPUS})", "{{state}}"),
            stack=True,
            colours=look.GPU_COLOURS,
            width=10,
        ),
        table(
            "Blades that are not in service",
            "Every blade that is in another state than Healthy, why, and since when. A click opens"
            " the blade.",
            Query(out),
            columns=[
                BLADE_COLUMN,
                Column("state", "State", colours=dict(look.BLADE_COLOURS)),
                Column("reason", "Reason"),
                Column("pool", "Pool"),
                Column("Value", "Since", unit="s", decimals=0),
            ],
            sort="Since",
            width=14,
            none="All blades are healthy.",
        ),
    ]


def _pools() -> Draft:
    """Return the pools beside each other: who is at the end of what it may lose?"""
    return table(
        "Pools",
        "GPUs of a pool and how many are on healthy blades; blades that are out, and how many may"
        " be at once; spares that are ready of those wanted; failures per 1,000 blade-days.",
        Query(f"sum by (pool) ({_GPUS})"),
        Query(f"sum by (pool) ({_HEALTHY})"),
        Query("max by (pool) (tramontane_blades_out{@pool})"),
        Query("max by (pool) (tramontane_blades_budget{@pool})"),
        Query("max by (pool) (tramontane_spares_ready{@pool})"),
        Query("max by (pool) (tramontane_spares_target{@pool})"),
        Query("max by (pool) (tramontane_failure_rate{@pool})"),
        columns=[
            Column("pool", "Pool", links=(links.cell(QUEUE, "Open the queue", pool="pool"),)),
            Column("Value #A", "GPUs"),
            Column("Value #B", "Healthy"),
            Column("Value #C", "Out"),
            Column("Value #D", "May be out"),
            Column("Value #E", "Spares"),
            Column("Value #F", "Wanted"),
            Column("Value #G", "Failures", decimals=1),
        ],
        sort="GPUs",
        width=24,
    )
