"""The board of served models: do they answer as fast as promised, and what stands in the way?

Times come from the engines' own histograms. The promise of a deployment (`spec.slo`) is drawn where
it has one, and so is how near it is to waking somebody.
"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look, variables
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import BLADE, FLEET, INFERENCE, POWER, QUEUE
from tramontane.lab.observe.boards.panels import Draft, graph, guide, heat, tile, timeline
from tramontane.lab.observe.boards.queries import (
    WINDOW,
    Query,
    coded,
    in_trouble,
    ours,
    quantile,
    worst,
)
from tramontane.lab.observe.boards.tables import BLADE_COLUMN, Column, table

_BY: Final = "namespace, deployment"
_DEPLOYMENT: Final = f"cluster, {_BY}"
_NAME: Final = "{{namespace}}/{{deployment}}"
_TTFT: Final = "tramontane_inference_ttft_seconds{@deployment}"
_ITL: Final = "tramontane_inference_itl_seconds{@deployment}"
# What is promised is a p95: one request in twenty may be slower. See the alert TtftBurn.
_MAY_BE_SLOW: Final = 0.05
_BURNS: Final = ((14.4, "5m"), (14.4, "1h"), (6.0, "30m"), (6.0, "6h"))
_GUIDE: Final = f"""\
**Read it so:** are answers late, or wrong; do requests wait, is the cache full, are replicas
missing? Why they are: `tramontane why inf/NAME` and [Queue]({links.inline(QUEUE)}); the blade under
a slow one: click it at the end; what a token costs: [Power]({links.inline(POWER)}).
"""


def board() -> Board:
    """Return the board."""
    return assemble(
        INFERENCE,
        "Do the served models answer as fast as promised, and what stands in the way?",
        choices=[variables.namespace("tramontane_inference_phase"), variables.deployment()],
        marks=[annotations.quarantines(), annotations.upgrades()],
        ways=[FLEET, QUEUE, BLADE, POWER],
        sections=[
            Section("", 2, [guide(_GUIDE)]),
            Section("Now", 4, _now()),
            Section("Deployments", 7, _deployments()),
            Section("Time to the first token", 8, _first_token()),
            Section("Throughput", 8, _throughput()),
            Section("Replicas", 8, _replicas()),
        ],
    )


def _of(name: str) -> str:
    """Return a gauge of the chosen deployments, once per deployment."""
    return ours(f"tramontane_inference_{name}", "deployment", _BY)


def _rate(name: str, by: str = _BY, window: str = WINDOW) -> str:
    return f"sum by (cluster, {by}) (rate(tramontane_inference_{name}{{@deployment}}[{window}]))"


def _burnt(factor: float, window: str) -> str:
    """Return how near a promise is to burning `factor` times as fast as allowed; 1: it does.

    "72 % of the requests are slower than 2 s" is "the 28th percentile is above 2 s".
    """
    rank = 1 - factor * _MAY_BE_SLOW
    slow = quantile(rank, _TTFT, "cluster", "namespace", "deployment", window=window)
    return f"max({slow} / {_of('slo_ttft_seconds')})"


def _now() -> list[Draft]:
    p95 = quantile(0.95, _TTFT, "cluster", "namespace", "deployment", window="5m")
    errors = (
        'sum(rate(tramontane_inference_requests_total{@deployment, outcome="error"}[5m]))'
        " / sum(rate(tramontane_inference_requests_total{@deployment}[5m]))"
    )
    tokens = _rate("generated_tokens_total", window="5m")
    return [
        tile(
            "First token against promise",
            "p95 of the time to the first token over the last 5 minutes, as a share of what the"
            " deployment promises; of the worst.",
            "percentunit",
            Query(f"max({p95} / {_of('slo_ttft_seconds')})"),
            limits=look.limits((0.8, look.WARN), (1, look.BAD)),
            trend=True,
            none="nothing promised",
        ),
        tile(
            "Requests that failed",
            "Share of the requests of the last 5 minutes that ended with an error.",
            "percentunit",
            Query(errors),
            limits=look.limits((0.001, look.WARN), (0.01, look.BAD)),
            decimals=2,
            none="no requests",
        ),
        tile(
            "Replicas missing",
            "Replicas that the load calls for and that do not serve.",
            "none",
            Query(f"sum(clamp_min({_of('replicas_wanted')} - {_of('replicas_ready')}, 0))"),
            limits=look.limits((1, look.WARN)),
            trend=True,
        ),
        tile(
            "Requests waiting",
            "Requests that wait in the engines' queues.",
            "none",
            Query(f"sum({_of('requests_waiting')})"),
            trend=True,
            none="no engine tells",
        ),
        tile(
            "Fullest KV cache",
            "Share of the KV cache in use, of the replica that uses most. Near 100 %, requests are"
            " put back.",
            "percentunit",
            Query(f"max({_of('kv_use')})"),
            limits=look.limits((0.8, look.WARN), (0.95, look.BAD)),
            trend=True,
            none="no engine tells",
        ),
        tile(
            "Tokens per GPU",
            "Tokens generated per second and GPU held, over the last 5 minutes.",
            "none",
            Query(f"sum({tokens}) / sum({_of('gpus')})"),
            trend=True,
            decimals=1,
            none="no engine tells",
        ),
    ]


def _deployments() -> list[Draft]:
    here = links.cell(INFERENCE, "Only this one", namespace="namespace", deployment="deployment")
    phase = "max by (namespace, deployment, phase) (tramontane_inference_phase{@deployment})"
    metric, ill = "tramontane_inference_phase", "Degraded|Failed|RolledBack"
    phases = coded(metric, "deployment", "phase", look.SERVING_COLOURS, _DEPLOYMENT)
    trouble = in_trouble(metric, "deployment", ill, _DEPLOYMENT)
    return [
        table(
            "Deployments",
            "Every deployment of the chosen namespaces: phase, replicas that serve and that the"
            " load calls for, GPUs. A click leaves only that one on the board.",
            Query(phase),
            Query(f"max by (namespace, deployment) ({_of('replicas_ready')})"),
            Query(f"max by (namespace, deployment) ({_of('replicas_wanted')})"),
            Query(f"max by (namespace, deployment) ({_of('gpus')})"),
            columns=[
                Column("deployment", "Deployment", links=(here,)),
                Column("namespace", "Namespace"),
                Column("phase", "Phase", colours=dict(look.SERVING_COLOURS)),
                Column("Value #B", "Serve"),
                Column("Value #C", "Wanted"),
                Column("Value #D", "GPUs"),
            ],
            sort="GPUs",
            hidden=("cluster", "Value #A"),
        ),
        timeline(
            "Phases",
            "Phase over time of the 10 deployments that were Degraded, RolledBack or Failed last.",
            Query(worst(10, phases, _DEPLOYMENT, trouble), _NAME),
            colours=look.SERVING_COLOURS,
            width=12,
        ),
    ]


def _first_token() -> list[Draft]:
    buckets = "increase(tramontane_inference_ttft_seconds_bucket{@deployment}[$__rate_interval])"
    return [
        graph(
            "Time to the first token",
            "Of all chosen deployments; dashed what the strictest of them promises for its p95.",
            "s",
            *(Query(quantile(rank / 100, _TTFT), f"p{rank}") for rank in (50, 95, 99)),
            Query(f"min({_of('slo_ttft_seconds')})", "promised"),
            dashed=["promised"],
            gaps_s=120,
            none="Nobody asks.",
        ),
        graph(
            "How near the alert is",
            "TtftBurn comes when both lines of a pair are above 1: within 5 minutes and an hour"
            " 14.4 times, or within 30 minutes and 6 hours 6 times as many requests as allowed"
            " (one in twenty) waited longer than promised. Of the worst deployment.",
            "none",
            *(
                Query(_burnt(factor, window), f"{window}, {factor:g} times")
                for factor, window in _BURNS
            ),
            none="nothing promised, or nobody asks",
        ),
        heat(
            "Time to the first token, spread",
            "Requests by the time to their first token.",
            "s",
            Query(f"sum by (le) ({buckets})"),
            width=8,
        ),
    ]


def _throughput() -> list[Draft]:
    tokens = _rate("generated_tokens_total")
    per_gpu = worst(20, f"{tokens} / {_of('gpus')}", _DEPLOYMENT, f"{_of('gpus')} and {tokens}")
    outcomes = (
        f"sum by (outcome) (rate(tramontane_inference_requests_total{{@deployment}}[{WINDOW}]))"
    )
    return [
        graph(
            "Time between tokens",
            "Between one token and the next, of all chosen deployments.",
            "s",
            *(Query(quantile(rank / 100, _ITL), f"p{rank}") for rank in (50, 95, 99)),
            gaps_s=120,
            none="Nobody asks.",
            width=6,
        ),
        graph(
            "Tokens per second and GPU",
            "Tokens generated per second and GPU held, of the 20 deployments that held most GPUs.",
            "none",
            Query(per_gpu, _NAME),
            width=6,
        ),
        graph(
            "Requests per second",
            "Requests that ended, by outcome.",
            "reqps",
            Query(outcomes, "{{outcome}}"),
            stack=True,
            colours=look.OUTCOME_COLOURS,
            width=6,
        ),
        graph(
            "Requests in the engines",
            "Requests that the engines work on, and that wait for it.",
            "none",
            Query(f"sum({_of('requests_running')})", "running"),
            Query(f"sum({_of('requests_waiting')})", "waiting"),
            width=6,
        ),
    ]


def _replicas() -> list[Draft]:
    start = "tramontane_inference_start_seconds{@deployment}"
    wanted, ready = _of("replicas_wanted"), _of("replicas_ready")
    grown = "increase(tramontane_inference_{0}_total{{@deployment}}[$__rate_interval])"
    restarts, rollbacks = grown.format("restarts"), grown.format("rollbacks")
    held = "max by (cluster, blade) (tramontane_allocation_info{@deployments_blades})"
    states = f"""
        max by (cluster, blade, state, reason) (tramontane_blade_state{{@all}})
          * on (cluster, blade) group_left () {held}
    """
    return [
        graph(
            "Replicas wanted and serving",
            "Replicas that the load calls for, and that serve; of the 10 deployments that came"
            " to lack most.",
            "none",
            Query(worst(10, wanted, _DEPLOYMENT, f"{wanted} - {ready}"), f"{_NAME} wanted"),
            Query(worst(10, ready, _DEPLOYMENT, f"{wanted} - {ready}"), f"{_NAME} serve"),
            width=6,
        ),
        graph(
            "Start of a replica",
            "From a replica's creation until it serves, over the last hour: a cold start.",
            "s",
            Query(quantile(0.5, start, window="1h"), "p50"),
            Query(quantile(0.95, start, window="1h"), "p95"),
            none="No replica started within the hour.",
            width=6,
        ),
        graph(
            "Restarts and rollbacks",
            "Restarts of replicas by reason, and revisions that were rejected.",
            "none",
            Query(f"sum by (reason) ({restarts}) > 0", "{{reason}}"),
            Query(f"sum({rollbacks})", "rollbacks"),
            bars=True,
            stack=True,
            width=6,
        ),
        table(
            "Blades",
            "The blades that the chosen deployments run on. A click opens the blade.",
            Query(states),
            columns=[
                BLADE_COLUMN,
                Column("state", "State", colours=dict(look.BLADE_COLOURS)),
                Column("reason", "Reason"),
            ],
            hidden=("cluster", "Value"),
            width=6,
        ),
    ]
