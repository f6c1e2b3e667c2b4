"""`promtool check metrics` on what each component exports.

Prometheus' own rules: names, units, help texts, `_total` on counters and on nothing else. The
agent is a real process over the simulated library, and once more with all the trouble that gives
it more series. Of operator and scheduler every metric that they define has a sample.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tramontane.api.blade import Action, Fault, Report, Severity
from tramontane.health.device import SXID_EVENT, XID_EVENT, Event, GpuReading, Reading, Update
from tramontane.health.fake import FakeDevice
from tramontane.health.host import HostReading, Port
from tramontane.health.metrics import Metrics
from tramontane.lab import binaries, paths
from tramontane.lab.controlplane import free_ports
from tramontane.lab.gobuild import BuildFailed
from tramontane.lab.nvml import StateFile, blade, build

# A first promtool is built in a fixture, which takes minutes.
pytestmark = pytest.mark.timeout(60, func_only=True)

PATIENCE_S = 30.0
MOST_LINES = 200
NOWHERE = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
"""


@pytest.fixture(scope="session")
def promtool() -> Path:
    try:
        return binaries.ensure(["promtool"])["promtool"]
    except BuildFailed as error:
        if shutil.which("go") or os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def complaints(promtool: Path, text: str) -> str:
    """Return what promtool has to say; nothing if it has no complaint."""
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    said = (done.stdout + done.stderr).strip()
    assert said or done.returncode == 0
    return said


@contextlib.contextmanager
def agent(folder: Path) -> Iterator[str]:
    """Start an agent without an API server; gives the address of its metrics."""
    machine = StateFile(folder / "blade.nvml")
    machine.write(blade("gpu-0001"))
    (folder / "kubeconfig").write_text(NOWHERE)
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tramontane.health", "--node-name", "gpu-0001"),
            *("--nvml-library", str(build(paths.cache_dir()))),
            *("--metrics-port", str(port), "--log-level", "error"),
        ],
        env={**os.environ, **machine.environment(), "KUBECONFIG": str(folder / "kubeconfig")},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def scrape(address: str, until: str) -> str:
    """Return the metrics as soon as they have `until` in them."""
    deadline = time.monotonic() + PATIENCE_S
    text = ""
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError):
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
                text = str(answer.read(), "utf-8")
            if until in text:
                return text
        time.sleep(0.05)
    raise AssertionError(f"metrics: must have {until!r} (got {text!r})")


def test_a_healthy_agent(promtool: Path, tmp_path: Path) -> None:
    with agent(tmp_path) as address:
        text = scrape(address, 'tramontane_gpu_temperature_celsius{gpu="7"}')
    assert len(text.strip().splitlines()) <= MOST_LINES
    assert complaints(promtool, text) == ""


def in_trouble() -> str:
    """Return what an agent exports that has seen some of everything."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    healthy = FakeDevice("gpu-0001").reading
    slow: tuple[GpuReading, ...] = tuple(replace(gpu, clock_reasons=0xFF) for gpu in healthy.gpus)
    look: Reading = replace(healthy, gpus=slow)
    port = Port("mlx5_0", 1, "InfiniBand", "DOWN", "Polling", 400, (("link_downed", 1),))
    events = tuple(Event(0, "", type_, 79, time.time()) for type_ in (XID_EVENT, SXID_EVENT))
    metrics.saw(Update(reading=look, events=events, host=HostReading(ports=(port,))))
    gone = Fault(code="xid-79", gpu=0, severity=Severity.FATAL, action=Action.REBOOT)
    report = Report.model_validate({"checks": {"run": 1, "unknown": ["sram"]}})
    report = report.model_copy(update={"faults": (gone,)})
    metrics.reports(report)
    metrics.wrote(report)
    return generate_latest(registry).decode()


def test_an_agent_in_trouble(promtool: Path) -> None:
    text = in_trouble()
    for name in ("blade_fault", "agent_check_unknown", "gpu_xid_errors_total", "port_downs_total"):
        assert f"{name}{{" in text
    assert complaints(promtool, text) == ""


@pytest.mark.parametrize(
    ("component", "has"),
    [
        pytest.param("operator", 'tramontane_blade_state{blade="gpu-0001"', id="operator"),
        pytest.param("scheduler", "tramontane_scheduler_tenant_gpus{kind=", id="scheduler"),
        pytest.param("agent", "tramontane_gpu_energy_joules_total{gpu=", id="agent"),
    ],
)
def test_a_component(promtool: Path, component: str, has: str) -> None:
    roots = [str(Path(__file__).parents[1]), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-m", "support.monitored", component, "text"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert has in done.stdout
    said = complaints(promtool, done.stdout)
    assert said == ""


def test_what_promtool_would_not_let_pass(promtool: Path) -> None:
    said = complaints(promtool, "# TYPE tramontane_downs counter\ntramontane_downs 1\n")
    assert "no help text" in said
    assert '"_total"' in said
