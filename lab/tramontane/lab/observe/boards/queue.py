"""The board of the queue: why does a gang wait, what would fit, and is it shared fairly?"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look, variables
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import FLEET, OPERATOR, QUEUE, TRAINING
from tramontane.lab.observe.boards.panels import Draft, gauges, graph, guide, heat, tile
from tramontane.lab.observe.boards.queries import WINDOW, Query, ours, quantile, worst
from tramontane.lab.observe.boards.tables import Column, table

_GUIDE: Final = f"""\
**Read it so:** is there room (left), what do the waiting gangs lack (right)? One gang and what it
lacks in numbers: `tramontane why tj/NAME`; its job: [Training]({links.inline(TRAINING)}). Blades
that are missing: [Fleet]({links.inline(FLEET)}). A scheduler that is late itself:
[Operator]({links.inline(OPERATOR)}).
"""
_USES: Final = ours("tramontane_scheduler_gpus", "pool", "pool, use")
_WAITING: Final = ours("tramontane_scheduler_waiting_blades", "pool", "pool")
_PENDING: Final = (
    'max by (cluster, reason) (tramontane_scheduler_pending_gangs{@all, reason!="Suspended"})'
)
_PLACEABLE: Final = ours("tramontane_scheduler_placeable_blades", "pool", "pool")


def board() -> Board:
    """Return the board."""
    return assemble(
        QUEUE,
        "Why does a gang wait, what would fit, and is it shared fairly?",
        choices=[variables.pool()],
        marks=[annotations.quarantines("pool"), annotations.restarts(), annotations.upgrades()],
        ways=[FLEET, TRAINING, OPERATOR],
        sections=[
            Section("", 2, [guide(_GUIDE)]),
            Section("Now", 4, _now()),
            Section("Room, and what waits for it", 8, _room()),
            Section("Waiting", 8, _waiting()),
            Section("Shares", 9, _shares()),
            Section("What the scheduler does", 8, _doings()),
        ],
    )


def _now() -> list[Draft]:
    free = 'sum(max by (cluster, pool) (tramontane_scheduler_gpus{@pool, use="free"}))'
    promises = "tramontane_scheduler_promises_total{@all"
    kept = f'sum(increase({promises}, outcome="kept"}}[7d]))'
    return [
        tile(
            "Gangs that wait",
            "Gangs without a whole place, whatever they lack; of all pools. Those that are"
            " suspended wait for nothing and are left out.",
            "none",
            Query(f"sum({_PENDING})"),
            trend=True,
        ),
        tile(
            "Longest wait",
            "How long the gang has waited that waits longest.",
            "s",
            Query(f"max({ours('tramontane_scheduler_oldest_wait_seconds', 'pool', 'pool')})"),
            limits=look.limits((1800, look.WARN), (7200, look.BAD)),
            trend=True,
        ),
        tile(
            "Largest gang: lacks blades",
            "Whole blades by which the largest gang that waits exceeds the roomiest domain of its"
            " pool. Above 0 it waits for blades beside each other, not for a place in the queue.",
            "none",
            Query(f"max(clamp_min({_WAITING} - {_PLACEABLE}, 0))"),
            limits=look.limits((1, look.WARN)),
        ),
        tile(
            "GPUs free",
            "Share of all GPUs that nobody holds and a gang could have.",
            "percentunit",
            Query(f"{free} / sum({_USES})"),
            trend=True,
        ),
        tile(
            "Promises kept",
            "Gangs that started at the time they had been promised, over the last week.",
            "percentunit",
            Query(f"{kept} / sum(increase({promises}}}[7d]))"),
            limits=look.limits((0.8, look.WARN), (0.95, look.GOOD), base=look.BAD),
            none="none due",
        ),
        tile(
            "Labels that contradict",
            "Levels of the topology where labels are missing or contradict each other. Placement"
            " does not trust such a level.",
            "none",
            Query(f"sum({ours('tramontane_scheduler_topology_oddities', 'pool', 'pool')})"),
            limits=look.limits((1, look.WARN)),
        ),
    ]


def _room() -> list[Draft]:
    fragments = ours("tramontane_scheduler_fragmentation_ratio", "pool", "pool")
    return [
        graph(
            "GPUs by use",
            "GPUs that are allocated, held as spares, free, or on blades that are out of service.",
            "none",
            Query(f"sum by (use) ({_USES})", "{{use}}"),
            stack=True,
            colours=look.USE_COLOURS,
            width=7,
        ),
        graph(
            "Largest gang: waiting and placeable",
            "Blades of the largest gang that waits, and of the largest one that a domain could take"
            " now. A waiting line above the placeable one is a gang without room.",
            "none",
            Query(f"max by (pool) ({_WAITING})", "{{pool}}: waits"),
            Query(f"max by (pool) ({_PLACEABLE})", "{{pool}}: fits"),
            width=7,
        ),
        gauges(
            "Room by domain",
            "Blades that are wholly free, in the roomiest domains of the widest level.",
            "none",
            Query(
                "topk(12, max by (pool, domain) (tramontane_scheduler_placeable_blades{@pool}))",
                "{{domain}} ({{pool}})",
            ),
            width=6,
        ),
        graph(
            "Fragmentation",
            "Share of the free GPUs that are on blades partly in use: free, for no whole blade.",
            "percentunit",
            Query(f"max by (pool) ({fragments})", "{{pool}}"),
            width=4,
            most=1,
        ),
    ]


def _waiting() -> list[Draft]:
    wait = "tramontane_scheduler_gang_wait_seconds{@all}"
    buckets = "tramontane_scheduler_gang_wait_seconds_bucket{@all}"
    return [
        graph(
            "Waiting gangs by reason",
            "What the gangs lack that have no whole place. What each reason means and what helps:"
            " `tramontane explain REASON`.",
            "none",
            Query(f"sum by (reason) ({_PENDING}) > 0", "{{reason}}"),
            stack=True,
            none="Nothing waits.",
        ),
        graph(
            "Wait of those placed",
            "How long the gangs had waited that were placed within the last hour.",
            "s",
            Query(quantile(0.5, wait, window="1h"), "p50"),
            Query(quantile(0.95, wait, window="1h"), "p95"),
            none="Nothing was placed within the hour.",
        ),
        heat(
            "How long gangs wait",
            "Gangs placed, by how long they had waited.",
            "s",
            Query(f"sum by (le) (increase({buckets}[$__rate_interval]))"),
            width=8,
        ),
    ]


def _shares() -> list[Draft]:
    share = "max by (cluster, pool, tenant) (tramontane_scheduler_tenant_gpus{@pool, kind="
    used, owed, most = (f'{share}"{kind}"}})' for kind in ("used", "guaranteed", "maximum"))
    uses, off = f"sum by (tenant) ({used})", f"sum by (tenant) ({used} - {owed})"
    return [
        table(
            "Tenants",
            "GPUs that each tenant uses, is owed and may have at most. Above what it is owed they"
            " are borrowed: an owner who asks gets them back.",
            Query(f"max by (pool, tenant) ({used})"),
            Query(f"max by (pool, tenant) ({owed})"),
            Query(f"max by (pool, tenant) ({most})"),
            columns=[
                Column("tenant", "Tenant"),
                Column("pool", "Pool"),
                Column("Value #A", "Uses"),
                Column("Value #B", "Is owed"),
                Column("Value #C", "At most"),
            ],
            sort="Uses",
            width=8,
        ),
        graph(
            "Use by tenant",
            "GPUs of the 20 tenants that used most.",
            "none",
            Query(worst(20, uses, "tenant"), "{{tenant}}"),
            stack=True,
        ),
        graph(
            "Off the fair share",
            "GPUs that a tenant uses above (borrowed) or below what it is owed; of the 20 that"
            " were farthest off.",
            "none",
            Query(worst(20, off, "tenant", f"abs({off})"), "{{tenant}}"),
            least=None,
        ),
    ]


def _doings() -> list[Draft]:
    def rate(name: str, *by: str) -> str:
        total = f"rate(tramontane_scheduler_{name}_total{{@all}}[{WINDOW}])"
        return f"sum by ({', '.join(by)}) ({total})" if by else f"sum({total})"

    decision = "tramontane_scheduler_decision_seconds{@all}"
    reserved = ours("tramontane_scheduler_reserved_gangs", "pool", "pool")
    gangs = "sum by (phase) (max by (cluster, phase) (tramontane_scheduler_gangs{@all}))"
    return [
        graph(
            "Gangs by phase",
            "All gangs by their phase, and those that wait with a promise of blades.",
            "none",
            Query(gangs, "{{phase}}"),
            Query(f"sum({reserved})", "promised"),
            width=6,
        ),
        graph(
            "Decisions per second",
            "Gangs placed or asked to give way, lost seats moved, pods of other controllers bound.",
            "ops",
            Query(rate("placements"), "placed"),
            Query(rate("preemptions"), "asked to give way"),
            Query(rate("moved_seats", "to"), "seats to {{to}}"),
            Query(rate("bindings", "outcome"), "bound: {{outcome}}"),
            width=6,
        ),
        graph(
            "Time of a pass",
            "Duration of one pass over all gangs, without its writes.",
            "s",
            Query(quantile(0.5, decision), "p50"),
            Query(quantile(0.99, decision), "p99"),
            gaps_s=600,
            width=6,
        ),
        graph(
            "Writes, and pods not seen yet",
            "Writes of gangs' statuses per second by outcome, and pods that were bound and that no"
            " watch has shown yet.",
            "none",
            Query(rate("status_writes", "outcome"), "{{outcome}}/s"),
            Query("max(tramontane_scheduler_assumed_pods{@all})", "not seen yet"),
            width=6,
        ),
    ]
