"""The board of one blade: everything that Tramontane knows about a server.

Who is sent here wants to know three things: may it be trusted, what spoke against it, and who is
on it. DCGM's own figures are in a folded row at the end, for clusters that run its exporter.
"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look, variables
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import BLADE, FLEET, INFERENCE, POWER, TRAINING
from tramontane.lab.observe.boards.panels import Draft, graph, guide, tile, timeline
from tramontane.lab.observe.boards.queries import WINDOW, Query, coded
from tramontane.lab.observe.boards.tables import Column, table

_GPU: Final = "GPU {{gpu}}"
_GUIDE: Final = f"""\
**$blade.** The whole story with the rule that decided: `tramontane explain blade/$blade`. To take
it out or back by hand: `tramontane quarantine|release $blade --reason WHY`. Other blades that are
out: [Fleet]({links.inline(FLEET)}).
"""


def board() -> Board:
    """Return the board."""
    return assemble(
        BLADE,
        "Everything about one server: state, faults, readings, and who is on it.",
        choices=[variables.blade()],
        marks=[
            annotations.quarantines("blade"),
            annotations.restarts_here(),
            annotations.upgrades(),
        ],
        ways=[FLEET, TRAINING, INFERENCE, POWER],
        sections=[
            Section("", 2, [guide(_GUIDE)]),
            Section("May it be trusted?", 4, _now()),
            Section("", 5, [_states()]),
            Section("What speaks against it, and who is on it", 7, _evidence()),
            Section("Heat, power and clocks", 8, _readings()),
            Section("Memory and links", 8, _wear()),
            Section("DCGM (optional: where its exporter runs)", 8, _dcgm(), optional=True),
        ],
    )


def _now() -> list[Draft]:
    since = """
        (time() - max by (cluster, blade) (tramontane_blade_state_since_timestamp_seconds{@blade}))
          * on (cluster, blade) group_left (reason)
            label_replace(
              max by (cluster, blade, reason) (tramontane_blade_state{@blade}),
              "reason", "no reason given", "reason", "")
    """
    poll = "time() - max(tramontane_agent_last_poll_timestamp_seconds{@blade})"
    return [
        tile(
            "State",
            "State of the blade.",
            "none",
            Query(coded("tramontane_blade_state", "blade", "state", look.BLADE_COLOURS, "blade")),
            mappings=look.numbered(look.BLADE_COLOURS),
        ),
        tile(
            "Since, and why",
            "How long it has been in this state, and the reason for it.",
            "s",
            Query(since, "{{reason}}"),
            names=True,
            decimals=0,
        ),
        tile(
            "Open faults",
            "Faults that the agent sees now.",
            "none",
            Query("count(tramontane_blade_fault{@blade}) or vector(0)"),
            limits=look.NONE_IS_GOOD,
        ),
        tile(
            "Last look",
            "Since the agent last read GPUs, host or kernel log; over 120 s nobody watches.",
            "s",
            Query(poll),
            limits=look.limits((30, look.WARN), (120, look.BAD)),
            decimals=1,
        ),
        tile(
            "NVML strikes",
            "Probes in a row that NVML did not answer. At three the library hangs.",
            "none",
            Query("max(tramontane_agent_nvml_strikes{@blade})"),
            limits=look.limits((1, look.WARN), (3, look.BAD)),
        ),
        tile(
            "Lemon score",
            "How likely it is a lemon, by its incidents of 28 days; from 70 % on it is taken out.",
            "percentunit",
            Query("max(tramontane_blade_lemon_score_ratio{@blade}) or vector(0)"),
            limits=look.limits((0.35, look.WARN), (0.7, look.BAD)),
            decimals=0,
        ),
    ]


def _states() -> Draft:
    states = coded("tramontane_blade_state", "blade", "state", look.BLADE_COLOURS, "blade")
    return timeline(
        "States",
        "State of the blade over time.",
        Query(states, "{{blade}}"),
        colours=look.BLADE_COLOURS,
    )


def _evidence() -> list[Draft]:
    told = """
        sum by (gpu, code) (
          label_replace(
            tramontane_gpu_xid_errors_total{@blade}, "code", "XID $1", "xid", "(.+)")
          or label_replace(
            tramontane_switch_sxid_errors_total{@blade}, "code", "SXID $1", "sxid", "(.+)")
        )
    """
    job = links.cell(TRAINING, "Open the job", namespace="namespace", job="name")
    deployment = links.cell(
        INFERENCE, "Open the deployment", namespace="namespace", deployment="name"
    )
    hosted = "max by (kind, namespace, name) (tramontane_allocation_info{@blade})"
    return [
        table(
            "Faults",
            "Faults that are open, with the code under which the manual explains them; no GPU: the"
            " whole blade's. Empty on a blade that is well.",
            Query("max by (gpu, code, severity) (tramontane_blade_fault{@blade})"),
            columns=[
                Column("code", "Fault"),
                Column("gpu", "GPU"),
                Column(
                    "severity",
                    "Severity",
                    colours={"Fatal": look.BAD, "Degraded": look.WARN, "Info": look.PLAIN},
                ),
            ],
            hidden=("cluster", "Value"),
            width=6,
            none="No fault is open.",
        ),
        table(
            "XIDs and SXIDs",
            "Errors that GPUs and NVSwitches told of since the agent started, by code.",
            Query(told),
            columns=[Column("gpu", "GPU"), Column("code", "Code"), Column("Value", "Times")],
            sort="Times",
            none="None since the agent started.",
            width=5,
        ),
        table(
            "Blind checks",
            "Checks that cannot be made on this blade: what they would find stays unseen.",
            Query("max by (check) (tramontane_agent_check_unknown{@blade})"),
            columns=[Column("check", "Check")],
            none="Every check can be made.",
            hidden=("cluster", "Value"),
            width=4,
        ),
        table(
            "Who is on it",
            "Gangs, jobs and deployments with a seat here. A click on the name leads on.",
            Query(hosted),
            columns=[
                Column("name", "Name", links=(job, deployment)),
                Column("kind", "Kind"),
                Column("namespace", "Namespace"),
            ],
            none="Nobody.",
            hidden=("cluster", "Value"),
            width=9,
        ),
    ]


def _readings() -> list[Draft]:
    slowed = f"sum by (reason) (rate(tramontane_gpu_throttle_seconds_total{{@blade}}[{WINDOW}]))"
    return [
        graph(
            "Temperature",
            "Temperature of each GPU.",
            "celsius",
            Query("tramontane_gpu_temperature_celsius{@blade}", _GPU),
            width=6,
            least=None,
        ),
        graph(
            "Hottest memory, least margin",
            "Temperature of the hottest GPU memory, and how much hotter the GPU nearest to its"
            " limit may become before it is slowed down.",
            "celsius",
            Query("max(tramontane_gpu_memory_temperature_celsius{@blade})", "memory"),
            Query("min(tramontane_gpu_margin_celsius{@blade})", "margin"),
            width=6,
        ),
        graph(
            "Power",
            "Power that each GPU draws.",
            "watt",
            Query("tramontane_gpu_power_watts{@blade}", _GPU),
            width=6,
        ),
        graph(
            "GPUs held down",
            "How many GPUs have their clocks held down, by what.",
            "none",
            Query(slowed, "{{reason}}"),
            stack=True,
            none="Nothing holds them down.",
            width=6,
        ),
    ]


def _wear() -> list[Draft]:
    def rate(name: str) -> str:
        return f"rate({name}{{@blade}}[{WINDOW}])"

    return [
        graph(
            "Memory errors and remapped rows",
            "Memory errors over the GPUs' lives by kind, and rows that spares replace by cause.",
            "none",
            Query("sum by (kind) (tramontane_gpu_ecc_errors_total{@blade})", "errors {{kind}}"),
            Query(
                "sum by (cause) (tramontane_gpu_remapped_rows{@blade}) or vector(0)",
                "rows {{cause}}",
            ),
        ),
        graph(
            "NVLinks and ports that are up",
            "NVLinks that carry traffic or sleep on the GPU that has fewest, and network ports that"
            " are up.",
            "none",
            Query("min(tramontane_gpu_nvlinks_active{@blade})", "NVLinks of a GPU"),
            Query("sum(tramontane_network_port_active{@blade})", "ports"),
        ),
        graph(
            "Links that err",
            "PCIe packets sent again and link losses of network ports, per second.",
            "ops",
            Query(f"sum({rate('tramontane_gpu_pcie_replays_total')})", "PCIe replays"),
            Query(
                f"sum by (port) ({rate('tramontane_network_port_downs_total')})", "{{port}} downs"
            ),
        ),
        table(
            "GPUs",
            "What the GPUs are called: for a repair order.",
            Query(
                "max by (gpu, product, serial, uuid, pci_bus_id, vbios)"
                " (tramontane_gpu_info{@blade})"
            ),
            columns=[
                Column("gpu", "GPU"),
                Column("product", "Product"),
                Column("serial", "Serial"),
                Column("pci_bus_id", "PCI"),
                Column("vbios", "VBIOS"),
                Column("uuid", "UUID"),
            ],
            hidden=("cluster", "Value"),
            width=16,
        ),
        table(
            "Versions",
            "Versions of agent, driver and CUDA.",
            Query("max by (version, driver, cuda) (tramontane_agent_info{@blade})"),
            columns=[
                Column("version", "Agent"),
                Column("driver", "Driver"),
                Column("cuda", "CUDA"),
            ],
            hidden=("cluster", "Value"),
            width=8,
        ),
    ]


def _dcgm() -> list[Draft]:
    of = '{cluster=~"$cluster", Hostname=~"$blade"}'
    return [
        graph(
            "Tensor cores in use (DCGM)",
            "Share of the time that the tensor cores of each GPU work.",
            "percentunit",
            Query(f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{of}", _GPU),
            most=1,
        ),
        graph(
            "Memory in use (DCGM)",
            "Memory of each GPU that is in use.",
            "mbytes",
            Query(f"DCGM_FI_DEV_FB_USED{of}", _GPU),
        ),
        graph(
            "NVLink traffic (DCGM)",
            "Bytes per second over the NVLinks of each GPU.",
            "Bps",
            Query(f"DCGM_FI_PROF_NVLINK_TX_BYTES{of}", f"{_GPU} sent"),
            Query(f"DCGM_FI_PROF_NVLINK_RX_BYTES{of}", f"{_GPU} received"),
        ),
    ]
