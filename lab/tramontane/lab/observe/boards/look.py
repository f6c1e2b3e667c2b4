"""Give every state, phase and limit one colour, the same on all boards.

Whoever has learned on one board that orange is Draining reads the next one faster. Colours are
names of Grafana's own palette, so that they follow the viewer's theme.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from tramontane.api.blade import BladeState
from tramontane.api.inferencestatus import InferencePhase
from tramontane.api.trainingjob import JobPhase
from tramontane.lab.observe.boards.sdk import model

GOOD: Final = "green"
WARN: Final = "yellow"
BAD: Final = "red"
PLAIN: Final = "blue"
GREY: Final = "#8e8e8e"

BLADE_COLOURS: Final[Mapping[str, str]] = {
    BladeState.HEALTHY: GOOD,
    BladeState.DELIVERED: "super-light-blue",
    BladeState.QUALIFYING: "light-blue",
    BladeState.REQUALIFYING: PLAIN,
    BladeState.SUSPECT: WARN,
    BladeState.DRAINING: "orange",
    BladeState.QUARANTINED: BAD,
    BladeState.REPAIRING: "purple",
    BladeState.RMA: "dark-purple",
    BladeState.LOST: "dark-red",
    BladeState.UNKNOWN: GREY,
}
# A pool's GPUs by what is true of them: the first two are on healthy blades.
GPU_COLOURS: Final[Mapping[str, str]] = {
    "allocated": GOOD,
    "free": "super-light-green",
    "qualifying": BLADE_COLOURS[BladeState.QUALIFYING],
    "suspect": BLADE_COLOURS[BladeState.SUSPECT],
    "quarantined": BLADE_COLOURS[BladeState.QUARANTINED],
    "repairing": BLADE_COLOURS[BladeState.REPAIRING],
    "rma": BLADE_COLOURS[BladeState.RMA],
    "lost": BLADE_COLOURS[BladeState.LOST],
    "unknown": BLADE_COLOURS[BladeState.UNKNOWN],
}
JOB_COLOURS: Final[Mapping[str, str]] = {
    JobPhase.QUEUED: WARN,
    JobPhase.STARTING: "light-blue",
    JobPhase.RUNNING: GOOD,
    JobPhase.RECOVERING: "orange",
    JobPhase.CHECKPOINTING: "super-light-green",
    JobPhase.SUSPENDED: "purple",
    JobPhase.SUCCEEDED: PLAIN,
    JobPhase.FAILED: BAD,
}
SERVING_COLOURS: Final[Mapping[str, str]] = {
    InferencePhase.PLANNING: "super-light-blue",
    InferencePhase.WAITING: WARN,
    InferencePhase.LOADING: "light-blue",
    InferencePhase.SERVING: GOOD,
    InferencePhase.DEGRADED: "orange",
    InferencePhase.ROLLING_OUT: PLAIN,
    InferencePhase.ROLLED_BACK: "dark-orange",
    InferencePhase.SCALED_TO_ZERO: "purple",
    InferencePhase.FAILED: BAD,
}
# What the time of a job went into: where nothing was lost is green, what nobody wanted is red.
LEDGER_COLOURS: Final[Mapping[str, str]] = {
    "productive": GOOD,
    "queue": WARN,
    "start": "light-blue",
    "restart": BAD,
    "rework": "orange",
    "hang": "dark-red",
    "checkpoint": "super-light-green",
    "preempted": "light-purple",
    "suspended": "purple",
}
# What the scheduler says of a pool's GPUs, and a replica's requests.
USE_COLOURS: Final[Mapping[str, str]] = {
    "allocated": GOOD,
    "free": "super-light-green",
    "held": "purple",
    "out": BAD,
}
# Of a distribution: the further out, the darker.
PERCENTILE_COLOURS: Final[Mapping[str, str]] = {
    "p5": "super-light-blue",
    "p50": "light-blue",
    "p95": PLAIN,
    "p99": "dark-purple",
}
OUTCOME_COLOURS: Final[Mapping[str, str]] = {"ok": GOOD, "error": BAD}


def limits(*steps: tuple[float, str], base: str = GOOD) -> model.ThresholdsConfig:
    """Return colours by value: `base`, and from each step's value on its own."""
    first = model.Threshold(value=None, color=base)
    return model.ThresholdsConfig(
        mode=model.ThresholdsMode.ABSOLUTE,
        steps=[first, *(model.Threshold(value=value, color=colour) for value, colour in steps)],
    )


# Answers of the API server: what is in order, what is somebody else's turn, what failed.
CODE_COLOURS: Final[Mapping[str, str]] = {
    "200": GOOD,
    "201": "light-green",
    "404": GREY,
    "409": WARN,
    "410": "super-light-yellow",
    "429": "orange",
    "500": BAD,
    "503": "dark-red",
    "unreachable": "dark-purple",
}
#: 0 is well, anything above is not.
NONE_IS_GOOD: Final = limits((1, BAD))
#: A number without a verdict.
NEUTRAL: Final = limits(base=PLAIN)


def words(colours: Mapping[str, str]) -> list[model.ValueMapping]:
    """Return how words in a cell or on a tile are coloured."""
    return [_mapping({word: (word, colour) for word, colour in colours.items()})]


def numbered(colours: Mapping[str, str]) -> list[model.ValueMapping]:
    """Return the words behind the numbers of `queries.coded`, in the same order."""
    pairs = enumerate(colours.items(), start=1)
    return [_mapping({str(number): (word, colour) for number, (word, colour) in pairs})]


def said(texts: Mapping[str, tuple[str, str]]) -> list[model.ValueMapping]:
    """Return texts and colours for single values."""
    return [_mapping(texts)]


def _mapping(texts: Mapping[str, tuple[str, str]]) -> model.ValueMapping:
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(texts.items())
        }
    )


def by_name(colours: Mapping[str, str]) -> Iterable[model.DashboardFieldConfigSourceOverrides]:
    """Return overrides that give series of these names their colours."""
    for name, colour in colours.items():
        yield override(
            name, model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        )


def override(
    name: str, *properties: model.DynamicConfigValue
) -> model.DashboardFieldConfigSourceOverrides:
    """Return properties for the one series or column of that name."""
    return model.DashboardFieldConfigSourceOverrides(
        matcher=model.MatcherConfig(id_val="byName", options=name), properties=list(properties)
    )
