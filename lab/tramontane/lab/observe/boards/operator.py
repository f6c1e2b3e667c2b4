"""The board of Tramontane itself: do operator, scheduler and agents work, and keep up?"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import FLEET, OPERATOR, QUEUE
from tramontane.lab.observe.boards.panels import Draft, graph, guide, tile
from tramontane.lab.observe.boards.queries import WINDOW, Query, quantile
from tramontane.lab.observe.boards.tables import Column, table

_GUIDE: Final = f"""\
**Read it so:** somebody has to lead, reconciles must not err, keys must not wait, and the API
server must answer. Is this cluster fit at all? `tramontane doctor`. What the scheduler decides:
[Queue]({links.inline(QUEUE)}); what the agents see: [Fleet]({links.inline(FLEET)}).
"""
_OURS: Final = 'component=~"operator|scheduler|agent"'


def board() -> Board:
    """Return the board."""
    return assemble(
        OPERATOR,
        "Do operator, scheduler and agents work, and do they keep up?",
        choices=[],
        marks=[annotations.upgrades(), annotations.quarantines()],
        ways=[FLEET, QUEUE],
        sections=[
            Section("", 2, [guide(_GUIDE)]),
            Section("Now", 4, _now()),
            Section("Reconciles", 8, _reconciles()),
            Section("The API server, seen from here", 8, _api()),
            Section("Caches and watches", 8, _caches()),
            Section("Processes", 8, _processes()),
        ],
    )


def _rate(name: str, *by: str) -> str:
    """Return how often something happens per second; never nothing, so that 0 is 0."""
    rate = f"(rate(tramontane_{name}_total{{@all}}[{WINDOW}]))"
    return f"sum by ({', '.join(by)}) {rate}" if by else f"sum {rate} or vector(0)"


def _now() -> list[Draft]:
    failed = 'sum(rate(tramontane_reconcile_seconds_count{@all, outcome="error"}[5m]))'
    every = "sum(rate(tramontane_reconcile_seconds_count{@all}[5m]))"
    absent = f"count(up{{@all, {_OURS}}} == 0) or vector(0)"
    return [
        tile(
            "Leads",
            "Whether somebody holds the Lease of the operator and of the scheduler.",
            "none",
            Query("sum by (cluster, lease) (tramontane_leader{@all})", "{{lease}}"),
            limits=look.limits((1, look.GOOD), (2, look.BAD), base=look.BAD),
            mappings=look.said({"0": ("nobody", look.BAD), "1": ("yes", look.GOOD)}),
            names=True,
        ),
        tile(
            "Scrapes that fail",
            "Processes of ours that Prometheus cannot read.",
            "none",
            Query(absent),
            limits=look.NONE_IS_GOOD,
        ),
        tile(
            "Reconciles that err",
            "Share of the reconciles of the last 5 minutes that ended with an error.",
            "percentunit",
            Query(f"({failed} or vector(0)) / {every}"),
            limits=look.limits((0.01, look.WARN), (0.1, look.BAD)),
            decimals=1,
            trend=True,
        ),
        tile(
            "Oldest key",
            "How long the key has waited for a worker that waits longest.",
            "s",
            Query("max(tramontane_workqueue_oldest_seconds{@all})"),
            limits=look.limits((5, look.WARN), (60, look.BAD)),
            decimals=1,
            trend=True,
        ),
        tile(
            "Clocks apart",
            "Largest difference of a process's clock to the API server's. Ages and times to detect"
            " are wrong by as much.",
            "s",
            Query("max(abs(tramontane_clock_skew_seconds{@all}))"),
            limits=look.limits((1, look.WARN), (5, look.BAD)),
            decimals=1,
        ),
        tile(
            "Series",
            "Samples of one scrape of all our processes: what Prometheus keeps for us.",
            "none",
            Query(f"sum(scrape_samples_scraped{{@all, {_OURS}}})"),
            limits=look.limits((300_000, look.WARN)),
            trend=True,
        ),
    ]


def _reconciles() -> list[Draft]:
    took = "tramontane_reconcile_seconds{@all}"
    done = f"""
        sum by (queue, outcome) (rate(tramontane_reconcile_seconds_count{{@all}}[{WINDOW}]))
    """
    return [
        graph(
            "Reconciles per second",
            "Reconciles by queue and outcome.",
            "ops",
            Query(done, "{{queue}} {{outcome}}"),
            width=6,
        ),
        graph(
            "Time of a reconcile",
            "99th percentile by queue.",
            "s",
            Query(quantile(0.99, took, "queue"), "{{queue}}"),
            width=6,
        ),
        graph(
            "Keys that wait",
            "Keys that wait for a worker, by queue.",
            "none",
            Query("sum by (queue) (tramontane_workqueue_depth{@all})", "{{queue}}"),
            width=6,
        ),
        graph(
            "Oldest key by queue",
            "How long the oldest key of each queue has waited for a worker.",
            "s",
            Query("max by (queue) (tramontane_workqueue_oldest_seconds{@all})", "{{queue}}"),
            width=6,
        ),
    ]


def _api() -> list[Draft]:
    took = "tramontane_api_request_seconds{@all}"
    return [
        graph(
            "Requests by answer",
            "Requests to the API server per second, by HTTP status.",
            "reqps",
            Query(_rate("api_requests", "code"), "{{code}}"),
            stack=True,
            colours=look.CODE_COLOURS,
        ),
        graph(
            "Time of a request",
            "99th percentile by verb; waiting for a slot of ours is not in it.",
            "s",
            Query(quantile(0.99, took, "verb"), "{{verb}}"),
        ),
        graph(
            "Sent again",
            "Requests sent again because the API server asked to wait (429), writes of Nodes that"
            " had to be planned again, and events that were not written.",
            "ops",
            Query(_rate("api_retries"), "asked to wait"),
            Query(_rate("stale_node_patches"), "Node patches again"),
            Query(_rate("events_dropped"), "events dropped"),
        ),
    ]


def _caches() -> list[Draft]:
    return [
        graph(
            "Events of watches",
            "Events that the watches bring per second, by resource, those that kopf passes on, and"
            " reports that agents write.",
            "ops",
            Query(_rate("informer_events", "resource"), "{{resource}}"),
            Query(_rate("kopf_events", "kind"), "kopf {{kind}}"),
            Query(_rate("agent_reports"), "reports"),
            width=6,
        ),
        graph(
            "Objects in the caches",
            "Objects of each resource in the largest cache of it.",
            "none",
            Query(
                "max by (resource) (tramontane_informer_objects{@all})",
                "{{resource}}",
            ),
            width=6,
        ),
        graph(
            "Watches that end",
            "Watches that ended by cause (served: its time was over), and complete lists by what"
            " made them necessary; per second.",
            "ops",
            Query(_rate("informer_watch_ends", "cause"), "watch {{cause}}"),
            Query(_rate("informer_relists", "cause"), "list {{cause}}"),
            Query(_rate("informer_undecodable"), "undecodable"),
            width=6,
        ),
        graph(
            "Who leads",
            "Which process holds each Lease. A step is a change of leader.",
            "none",
            Query(
                "max by (lease, instance) (tramontane_leader{@all}) > 0", "{{lease}} {{instance}}"
            ),
            width=6,
            most=1.2,
        ),
    ]


def _processes() -> list[Draft]:
    memory = f"process_resident_memory_bytes{{@all, {_OURS}}}"
    cpu = f"rate(process_cpu_seconds_total{{@all, {_OURS}}}[{WINDOW}])"
    return [
        graph(
            "Memory",
            "Resident memory of the largest process of each component.",
            "bytes",
            Query(f"max by (component) ({memory})", "{{component}}"),
            width=6,
        ),
        graph(
            "CPU",
            "Cores that the busiest process of each component uses.",
            "none",
            Query(f"max by (component) ({cpu})", "{{component}}"),
            width=6,
        ),
        graph(
            "Scrapes and probes",
            "Time of the slowest scrape of each component, and of the agents' probes (p99).",
            "s",
            Query(
                f"max by (component) (scrape_duration_seconds{{@all, {_OURS}}})",
                "scrape of {{component}}",
            ),
            Query(quantile(0.99, "tramontane_agent_poll_duration_seconds{@all}"), "probe"),
            width=6,
        ),
        table(
            "Versions",
            "How many processes run which version.",
            Query(
                "count by (component, version) (tramontane_build_info{@all})"
                " or count by (component, version) (tramontane_agent_info{@all})"
            ),
            columns=[
                Column("component", "Component"),
                Column("version", "Version"),
                Column("Value", "Processes"),
            ],
            width=6,
        ),
    ]
