"""The board of power: what do the GPUs draw, for whom, and what does a step cost?

It shows what is measured: power and energy of GPUs, and time for which they were held down. Of
CPUs, fans and losses, nothing is known here; a meter of the rack has more to say about those.

Power of a pool or a job is the sum over its blades, joined on the blade's name: GPUs do not know
who uses them. A blade that two jobs share counts for both.
"""

from typing import Final

from tramontane.lab.observe.boards import annotations, links, look, variables
from tramontane.lab.observe.boards.layout import Board, Section, assemble
from tramontane.lab.observe.boards.links import BLADE, FLEET, INFERENCE, POWER, TRAINING
from tramontane.lab.observe.boards.panels import Draft, gauges, graph, guide, tile
from tramontane.lab.observe.boards.queries import WINDOW, Query, watts_of, worst
from tramontane.lab.observe.boards.tables import BLADE_COLUMN, Column, table

_GUIDE: Final = f"""\
**Measured at the GPUs only:** CPUs, fans and the losses before them come on top. What a job draws
is what the blades draw on which it runs. One job: [Training]({links.inline(TRAINING)}); one model:
[Inference]({links.inline(INFERENCE)}); one server: click it.
"""
_POOLS: Final = "max by (cluster, blade, pool) (tramontane_blade_state{@pool})"
_BLADE_WATTS: Final = f"""
    sum by (cluster, blade) (tramontane_gpu_power_watts{{@all}})
      * on (cluster, blade) group_left (pool) {_POOLS}
"""
_JOB: Final = "cluster, namespace, job"
_DEPLOYMENT: Final = "cluster, namespace, deployment"
_POWER_REASONS: Final = "power_cap|power_brake"
_JOULES: Final = "tramontane_gpu_energy_joules_total{@all}"


def board() -> Board:
    """Return the board."""
    return assemble(
        POWER,
        "What do the GPUs draw, for whom, and what does a step cost?",
        choices=[variables.pool()],
        marks=[annotations.quarantines("pool"), annotations.restarts(), annotations.upgrades()],
        ways=[FLEET, TRAINING, INFERENCE, BLADE],
        sections=[
            Section("", 2, [guide(_GUIDE)]),
            Section("Now", 4, _now()),
            Section("Who draws it", 9, _who()),
            Section("What it buys", 8, _cost()),
            Section("Held down", 8, _held()),
        ],
    )


def _in_pool(by_blade: str) -> str:
    """Return values by blade, of the chosen pools' blades only."""
    return f"({by_blade}) * on (cluster, blade) group_left (pool) {_POOLS}"


def _slowed(reasons: str = _POWER_REASONS, window: str = WINDOW, by: str = "cluster, blade") -> str:
    """Return how many GPUs of each blade were held down, on average over the window."""
    seconds = f'tramontane_gpu_throttle_seconds_total{{@all, reason=~"{reasons}"}}'
    return f"sum by ({by}) (rate({seconds}[{window}]))"


def _now() -> list[Draft]:
    idle = f"({_BLADE_WATTS}) unless on (cluster, blade) tramontane_allocation_info{{@all}}"
    energy = f"sum by (cluster, blade) (increase({_JOULES}[$__range]))"
    count = "count by (cluster, blade) (tramontane_gpu_power_watts{@all})"
    return [
        tile(
            "Drawn",
            "Power that the GPUs of the chosen pools draw.",
            "watt",
            Query(f"sum({_BLADE_WATTS})"),
            trend=True,
        ),
        tile(
            "Per GPU",
            "Mean power of a GPU.",
            "watt",
            Query(f"sum({_BLADE_WATTS}) / sum({_in_pool(count)})"),
            trend=True,
        ),
        tile(
            "Energy",
            "Energy that the GPUs used within the time shown.",
            "joule",
            Query(f"sum({_in_pool(energy)})"),
        ),
        tile(
            "Drawn for nobody",
            "Power of blades on which no gang, job or deployment has a seat: spares, and blades"
            " that are out.",
            "watt",
            Query(f"sum({idle}) or vector(0)"),
            trend=True,
        ),
        tile(
            "GPUs held down for power",
            "GPUs whose clocks are held down by their power limit or by the power brake, on average"
            " over the last 5 minutes.",
            "none",
            Query(f"sum({_in_pool(_slowed(window='5m'))}) or vector(0)"),
            limits=look.limits((1, look.WARN)),
            decimals=1,
        ),
        tile(
            "Hungriest GPU",
            "The GPU that draws most.",
            "watt",
            Query(f"max({_in_pool('max by (cluster, blade) (tramontane_gpu_power_watts{@all})')})"),
        ),
    ]


def _who() -> list[Draft]:
    mean = _in_pool("avg by (cluster, blade) (tramontane_gpu_power_watts{@all})")
    return [
        graph(
            "By pool",
            "Power that the GPUs of each pool draw.",
            "watt",
            Query(f"sum by (pool) ({_BLADE_WATTS})", "{{pool}}"),
            stack=True,
        ),
        graph(
            "Spread over the blades",
            "Mean power of a blade's GPUs: of the frugal, the middle and the hungry blades.",
            "watt",
            *(Query(f"quantile({rank / 100:g}, {mean})", f"p{rank}") for rank in (5, 50, 95)),
        ),
        table(
            "Hungriest blades",
            "The twenty blades whose GPUs draw most. A click opens the blade.",
            Query(f"topk(20, {_BLADE_WATTS})"),
            columns=[
                BLADE_COLUMN,
                Column("pool", "Pool"),
                Column("Value", "Power", unit="watt"),
            ],
            sort="Power",
            width=8,
        ),
    ]


def _cost() -> list[Draft]:
    job = watts_of('all, kind="TrainingJob"', "job")
    step = f"max by ({_JOB}) (tramontane_trainingjob_step_time_seconds{{@all}})"
    model = watts_of('all, kind="InferenceDeployment"', "deployment")
    tokens = (
        f"sum by ({_DEPLOYMENT})"
        f" (rate(tramontane_inference_generated_tokens_total{{@all}}[{WINDOW}])) > 0"
    )
    return [
        graph(
            "By job and model",
            "Power of the blades under the 10 training jobs and the 10 deployments that drew most.",
            "watt",
            Query(worst(10, job, _JOB), "{{namespace}}/{{job}}"),
            Query(worst(10, model, _DEPLOYMENT), "{{namespace}}/{{deployment}}"),
            links=[
                links.drill(TRAINING, "Open the job", namespace="namespace", job="job"),
                links.drill(
                    INFERENCE,
                    "Open the deployment",
                    namespace="namespace",
                    deployment="deployment",
                ),
            ],
        ),
        graph(
            "Energy of a step",
            "Power of a job's blades times the median time of its steps; of the 20 jobs in which a"
            " step cost most.",
            "joule",
            Query(worst(20, f"{job} * on ({_JOB}) {step}", _JOB), "{{namespace}}/{{job}}"),
            links=[links.drill(TRAINING, "Open the job", namespace="namespace", job="job")],
        ),
        graph(
            "Energy of a token",
            "Power of a deployment's blades over the tokens that it generates per second; of the 20"
            " deployments in which a token cost most.",
            "joule",
            Query(
                worst(20, f"{model} / on ({_DEPLOYMENT}) ({tokens})", _DEPLOYMENT),
                "{{namespace}}/{{deployment}}",
            ),
            gaps_s=300,
            none="No model generates.",
        ),
    ]


def _held() -> list[Draft]:
    everything = _slowed(".+", by="cluster, blade, reason")
    return [
        graph(
            "GPUs held down, by what",
            "How many GPUs have their clocks held down, by the reason that the driver gives. Power"
            " cap: the GPU's own limit; power brake: the server's supply asked for it.",
            "none",
            Query(f"sum by (reason) ({_in_pool(everything)})", "{{reason}}"),
            stack=True,
            width=12,
        ),
        gauges(
            "Most held down for power",
            "Share of the last hour for which the GPUs of a blade were held down by power; the 10"
            " blades with the largest.",
            "percentunit",
            Query(
                f"topk(10, {_slowed(window='1h')}"
                " / count by (cluster, blade) (tramontane_gpu_power_watts{@all}))",
                "{{blade}}",
            ),
            limits=look.limits((0.1, look.WARN), (0.5, look.BAD)),
            links=[links.drill(BLADE, "Open the blade", blade="blade")],
            most=1,
            width=12,
        ),
    ]
