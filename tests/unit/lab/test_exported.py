"""The list of what is exported: nothing missing, nothing invented."""

import json
import subprocess
import sys

import pytest

from tramontane.lab.observe import exported
from tramontane.lab.observe.exported import AGENT, COMPONENTS, OPERATOR, SCHEDULER, families

PROCESSES = {
    OPERATOR: "tramontane.controllers.__main__",
    SCHEDULER: "tramontane.scheduler.__main__",
}
# Every family that a process has once it has imported what it runs, by its own registry.
REGISTERED = """
import json
from importlib import import_module
from prometheus_client import REGISTRY
import_module({module!r})
print(json.dumps(sorted({{family.name for family in REGISTRY.collect()}})))
"""


def of(component: str) -> dict[str, exported.Family]:
    return {family.name: family for family in families() if family.component == component}


def base(family: exported.Family) -> str:
    """Return the name that the registry has for it."""
    return family.name.removesuffix("_total") if family.kind == "counter" else family.name


@pytest.mark.parametrize("component", PROCESSES)
def test_it_is_what_the_process_registers(component: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REGISTERED.format(module=PROCESSES[component])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(map(base, of(component).values())) == json.loads(done.stdout)


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_is_told_whole_and_once(component: str) -> None:
    found = [family for family in families() if family.component == component]
    assert len({family.name for family in found}) == len(found)
    for family in found:
        assert family.kind in {"counter", "gauge", "histogram"}
        assert family.help
        assert (family.kind == "counter") is family.name.endswith("_total")
        assert "__name__" not in family.labels
        assert "le" not in family.labels


@pytest.mark.parametrize(
    ("component", "name", "kind", "labels", "unit"),
    [
        (AGENT, "tramontane_gpu_energy_joules_total", "counter", ("gpu",), "joules"),
        (AGENT, "tramontane_agent_poll_duration_seconds", "histogram", (), "seconds"),
        (OPERATOR, "tramontane_gpus", "gauge", ("pool", "state"), "gpus"),
        (
            OPERATOR,
            "tramontane_inference_ttft_seconds",
            "histogram",
            ("namespace", "deployment"),
            "seconds",
        ),
        (OPERATOR, "tramontane_clock_skew_seconds", "gauge", (), "seconds"),
        (
            SCHEDULER,
            "tramontane_scheduler_tenant_gpus",
            "gauge",
            ("pool", "tenant", "kind"),
            "gpus",
        ),
    ],
)
def test_what_is_told_of_some(
    component: str, name: str, kind: str, labels: tuple[str, ...], unit: str
) -> None:
    family = of(component)[name]
    assert (family.kind, family.labels, family.unit) == (kind, labels, unit)


def test_the_agent_has_no_room_for_what_others_do() -> None:
    names = set(of(AGENT))
    assert "tramontane_clock_skew_seconds" in names
    assert not {"tramontane_workqueue_oldest_seconds", "tramontane_build_info"} & names
    assert not any(name.startswith("python_") for name in names)


def test_a_query_finds_the_parts_of_a_histogram() -> None:
    assert "tramontane_agent_poll_duration_seconds_bucket" in exported.names()
    assert "tramontane_agent_poll_duration_seconds" not in exported.names()
    assert "tramontane_gpu_power_watts" in exported.names()


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    exported.main()
    assert len(json.loads(capsys.readouterr().out)) == len(families())
