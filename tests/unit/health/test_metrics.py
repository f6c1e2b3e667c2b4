"""What a scrape says: names, labels, what has a sample and what has none, and how long it is."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tramontane.health.device import (
    SXID_EVENT,
    XID_EVENT,
    Event,
    Reading,
    RemappedRows,
    Unresponsive,
    Unsupported,
    Update,
    unread,
)
from tramontane.health.fake import FakeDevice
from tramontane.health.host import HostReading, Port
from tramontane.health.metrics import Metrics
from tramontane.health.series import GPU_SERIES

from .builders import NOW, fault, folded, reading, with_gpu, xid


class Scrape:
    """Metrics with clocks that a test turns."""

    def __init__(self, *, low: bool = False) -> None:
        self.registry = CollectorRegistry()
        self.at = NOW
        self.timer = 0.0
        self.metrics = Metrics(self.registry, lambda: self.at, lambda: self.timer, low=low)

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"tramontane_{name}", labels)

    def labels(self, name: str) -> list[dict[str, str]]:
        return [
            dict(sample.labels)
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"tramontane_{name}"
        ]


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


def kernel_line(code: int, *, pci: str = "", count: int = 1, type_: int = XID_EVENT) -> Event:
    return Event(-1, "", type_, code, NOW, source="kmsg", pci=pci, count=count)


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        pytest.param("gpu_temperature_celsius", {}, 41, id="temperature"),
        pytest.param("gpu_memory_temperature_celsius", {}, 47, id="memory-temperature"),
        pytest.param("gpu_margin_celsius", {}, 46, id="margin"),
        pytest.param("gpu_power_watts", {}, 118, id="power-in-watts"),
        pytest.param("gpu_ecc_errors_total", {"kind": "corrected"}, 0, id="corrected"),
        pytest.param("gpu_ecc_errors_total", {"kind": "uncorrected"}, 0, id="uncorrected"),
        pytest.param("gpu_energy_joules_total", {}, 7.08, id="energy-in-joules"),
        pytest.param("gpu_nvlinks_active", {}, 18, id="links"),
        pytest.param("gpu_pcie_replays_total", {}, 0, id="replays"),
    ],
)
def test_every_gpu_has_its_values(
    scrape: Scrape, name: str, labels: dict[str, str], value: float
) -> None:
    device = FakeDevice("gpu-0001")
    device.draw(0.06)
    scrape.metrics.saw(Update(reading=device.reading))
    for gpu in range(8):
        assert scrape.value(name, gpu=str(gpu), **labels) == pytest.approx(value)


def test_rows_are_told_where_there_are_any(scrape: Scrape) -> None:
    scrape.metrics.saw(Update(reading=with_gpu(reading(), 3, remapped_rows=RemappedRows(0, 2))))
    (told,) = scrape.labels("gpu_remapped_rows")
    assert told == {"gpu": "3", "cause": "uncorrectable"}
    assert scrape.value("gpu_remapped_rows", **told) == 2


def test_each_source_says_when_it_was_last_read(scrape: Scrape) -> None:
    assert scrape.labels("agent_last_poll_timestamp_seconds") == []
    scrape.metrics.polled(0.012)
    scrape.at += 5
    scrape.metrics.looked("host")
    stamps = {
        labels["source"]: scrape.value("agent_last_poll_timestamp_seconds", **labels)
        for labels in scrape.labels("agent_last_poll_timestamp_seconds")
    }
    assert stamps == {"nvml": NOW, "host": NOW + 5}


def test_looks_are_timed_in_eight_buckets(scrape: Scrape) -> None:
    for seconds in (0.004, 0.012, 7.0):
        scrape.metrics.polled(seconds)
    buckets = scrape.labels("agent_poll_duration_seconds_bucket")
    assert len(buckets) == 8
    assert scrape.value("agent_poll_duration_seconds_bucket", le="0.025") == 2
    assert scrape.value("agent_poll_duration_seconds_count") == 3


def test_the_lowest_detail_has_what_adds_up_and_what_is_wrong() -> None:
    scrape = Scrape(low=True)
    _full(scrape.metrics)
    scrape.metrics.saw(Update(events=(xid(79),)))
    scrape.metrics.reports(folded(None, with_gpu(reading(), 3, temperature_c=99), xid(79)))
    families = {family.name for family in scrape.registry.collect() if family.samples}
    per_gpu = {name for name in families if name.startswith("tramontane_gpu_")}
    assert per_gpu == {
        "tramontane_gpu_power_watts",
        "tramontane_gpu_energy_joules",
        "tramontane_gpu_xid_errors",
    }
    assert "tramontane_blade_fault" in families
    assert not any(name.startswith("tramontane_network") for name in families)


def test_only_info_says_what_a_gpu_is_called(scrape: Scrape) -> None:
    look = reading()
    scrape.metrics.saw(Update(reading=look))
    for row in GPU_SERIES:
        extra = {"kind", "cause"} if row.name != "gpu_info" else set(row.labels)
        for labels in scrape.labels(row.name):
            assert set(labels) - extra == {"gpu"}
    (third,) = [one for one in scrape.labels("gpu_info") if one["gpu"] == "3"]
    facts = look.gpus[3].facts
    assert (third["uuid"], third["serial"]) == (facts.uuid, facts.serial)


def test_what_cannot_be_read_has_no_sample(scrape: Scrape) -> None:
    gone = unread(Unsupported("GpuIsLost"))
    look = reading()
    for gpu in range(8):
        look = with_gpu(look, gpu, remapped_rows=RemappedRows(1, 1))
    scrape.metrics.saw(Update(reading=with_gpu(look, 3, lost=True, **gone)))
    for row in GPU_SERIES:
        has = {labels["gpu"] for labels in scrape.labels(row.name)}
        assert ("3" in has) is (row.name == "gpu_info")
        assert has >= {"0", "7"}


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(Update(unresponsive=Unresponsive(2, "no answer")), id="hang"),
        pytest.param(Update(reading=Reading("b", session_error="DriverNotLoaded")), id="no-driver"),
    ],
)
def test_old_readings_are_not_exported_as_new_ones(scrape: Scrape, update: Update) -> None:
    slow = with_gpu(reading(), 0, clock_reasons=0x40)
    scrape.metrics.saw(Update(reading=slow))
    scrape.timer += 7
    scrape.metrics.saw(update)
    scrape.timer += 100
    assert scrape.labels("gpu_temperature_celsius") == []
    assert scrape.value("gpu_throttle_seconds_total", gpu="0", reason="hardware_thermal") == 7


def test_strikes_are_counted_until_nvml_answers(scrape: Scrape) -> None:
    assert scrape.value("agent_nvml_strikes") == 0
    scrape.metrics.saw(Update(unresponsive=Unresponsive(2, "no answer")))
    assert scrape.value("agent_nvml_strikes") == 2
    scrape.metrics.saw(Update(events=(xid(13),)))  # an event is no answer to a probe
    assert scrape.value("agent_nvml_strikes") == 2
    scrape.metrics.saw(Update(reading=reading()))
    assert scrape.value("agent_nvml_strikes") == 0


def test_every_xid_has_its_own_counter(scrape: Scrape) -> None:
    scrape.metrics.saw(Update(reading=reading(), events=(xid(62), xid(45), xid(45), xid(62, 5))))
    assert scrape.value("gpu_xid_errors_total", gpu="3", xid="62") == 1
    assert scrape.value("gpu_xid_errors_total", gpu="3", xid="45") == 2
    assert scrape.value("gpu_xid_errors_total", gpu="5", xid="62") == 1
    assert scrape.value("gpu_xid_errors_total", gpu="0", xid="62") is None


def _slot(gpu: int) -> str:
    return reading().gpus[gpu].facts.pci_bus_id


@pytest.mark.parametrize(
    ("events", "count"),
    [
        pytest.param([xid(95)], 1, id="nvml-alone"),
        pytest.param([kernel_line(95, pci=_slot(3), count=800_000)], 800_000, id="kernel-alone"),
        pytest.param([xid(95), kernel_line(95, pci=_slot(3))], 1, id="both-say-the-same"),
        pytest.param([xid(95), kernel_line(95, pci=_slot(3), count=5)], 5, id="nvml-missed-some"),
        pytest.param([xid(95), xid(95), kernel_line(95, pci=_slot(3))], 2, id="kernel-missed-one"),
    ],
)
def test_an_xid_that_is_told_twice_is_counted_once(
    scrape: Scrape, events: list[Event], count: int
) -> None:
    scrape.metrics.saw(Update(reading=reading()))
    for event in events:
        scrape.metrics.saw(Update(events=(event,)))
    assert scrape.value("gpu_xid_errors_total", gpu="3", xid="95") == count


def test_a_line_without_a_known_gpu_is_counted_all_the_same(scrape: Scrape) -> None:
    lines = (kernel_line(79, pci="ffff:ff:00"), kernel_line(12028, type_=SXID_EVENT, count=3))
    scrape.metrics.saw(Update(reading=reading(), events=lines))
    assert scrape.value("gpu_xid_errors_total", gpu="", xid="79") == 1
    assert scrape.value("switch_sxid_errors_total", sxid="12028") == 3


def test_lines_are_placed_while_nvml_is_away(scrape: Scrape) -> None:
    scrape.metrics.saw(Update(reading=reading()))
    scrape.metrics.saw(Update(reading=Reading("b", session_error="GpuIsLost")))
    scrape.metrics.saw(Update(events=(kernel_line(79, pci=_slot(3)),)))
    assert scrape.value("gpu_xid_errors_total", gpu="3", xid="79") == 1


def test_slow_seconds_add_up_by_reason(scrape: Scrape) -> None:
    def clocks(reasons: int) -> None:
        scrape.metrics.saw(Update(reading=with_gpu(reading(), 2, clock_reasons=reasons)))

    clocks(0x1)  # idle slows nothing down
    scrape.timer += 10
    assert scrape.labels("gpu_throttle_seconds_total") == []
    clocks(0x4 | 0x40)
    scrape.timer += 5
    assert scrape.value("gpu_throttle_seconds_total", gpu="2", reason="hardware_thermal") == 5
    clocks(0x4)
    scrape.timer += 20
    clocks(0x1)
    scrape.timer += 60
    assert scrape.value("gpu_throttle_seconds_total", gpu="2", reason="hardware_thermal") == 5
    assert scrape.value("gpu_throttle_seconds_total", gpu="2", reason="power_cap") == 25


def test_ports_are_there_where_the_host_has_some(scrape: Scrape) -> None:
    up = Port("mlx5_0", 1, "InfiniBand", "ACTIVE", "LinkUp", 400, (("link_downed", 2),))
    down = replace(up, device="mlx5_1", state="DOWN", counters=())
    scrape.metrics.saw(Update(host=HostReading(ports=(up, down))))
    assert scrape.value("network_port_active", port="mlx5_0/1") == 1
    assert scrape.value("network_port_active", port="mlx5_1/1") == 0
    assert scrape.value("network_port_downs_total", port="mlx5_0/1") == 2
    assert scrape.value("network_port_downs_total", port="mlx5_1/1") is None
    scrape.metrics.saw(Update(host=HostReading(ports=Unsupported("Hung"))))
    assert scrape.labels("network_port_active") == []


def test_faults_are_there_while_they_are_open(scrape: Scrape) -> None:
    base = folded(None, reading())
    twice = fault("row-remap-pending")
    blade_wide = fault("nvme-missing", gpu=None, uuid=None)
    scrape.metrics.reports(base.model_copy(update={"faults": (twice, twice, blade_wide)}))
    assert scrape.value("blade_fault", gpu="3", code="row-remap-pending", severity="Fatal") == 1
    assert scrape.value("blade_fault", gpu="", code="nvme-missing", severity="Fatal") == 1
    assert len(scrape.labels("blade_fault")) == 2
    scrape.metrics.reports(base)
    assert scrape.labels("blade_fault") == []


def test_blind_checks_are_named(scrape: Scrape) -> None:
    report = folded(None, with_gpu(reading(), 0, remapped_rows=Unsupported("NotSupported")))
    scrape.metrics.reports(report)
    assert scrape.labels("agent_check_unknown") == [{"check": "row-remap"}]


def _event_then(
    change: Callable[[Scrape], None], *, at: float = NOW
) -> Callable[[Scrape], float | None]:
    def run(scrape: Scrape) -> float | None:
        base = folded(None, reading())
        scrape.metrics.reports(base)
        scrape.metrics.saw(Update(events=(xid(79, at=at),)))
        change(scrape)
        scrape.at += 0.25
        scrape.metrics.wrote(base)
        return scrape.value("agent_event_to_report_seconds_count")

    return run


def _opens(scrape: Scrape) -> None:
    scrape.metrics.reports(folded(folded(None, reading()), reading(), xid(79)))


def _opens_and_fails_to_write(scrape: Scrape) -> None:
    _opens(scrape)
    _opens(scrape)


def _is_noted(scrape: Scrape) -> None:
    scrape.metrics.reports(folded(folded(None, reading()), reading(), xid(43)))
    assert scrape.labels("blade_fault") == []


def _opens_nothing(scrape: Scrape) -> None:
    scrape.metrics.reports(folded(None, reading()))


@pytest.mark.parametrize(
    ("run", "counted"),
    [
        pytest.param(_event_then(_opens), 1, id="a-fault"),
        pytest.param(_event_then(_opens_and_fails_to_write), 1, id="a-fault-written-later"),
        pytest.param(_event_then(_opens_nothing), 0, id="no-fault"),
        pytest.param(_event_then(_is_noted), 0, id="a-fault-for-rules-only"),
        pytest.param(_event_then(_opens, at=NOW - 3600), 0, id="said-before-we-began"),
    ],
)
def test_time_to_report_is_that_of_events_that_opened_a_fault(
    scrape: Scrape, run: Callable[[Scrape], float | None], counted: int
) -> None:
    assert run(scrape) == counted
    total = scrape.value("agent_event_to_report_seconds_sum")
    assert total == pytest.approx(0.25 * counted)
    assert scrape.value("agent_reports_total") == 1


def _full(metrics: Metrics) -> None:
    """Have a healthy HGX blade under load: power-capped, ten ports, a report written."""
    look = FakeDevice("gpu-0001").reading
    for index in range(8):
        look = with_gpu(look, index, clock_reasons=0x4)
    ports = tuple(
        Port(f"mlx5_{index}", 1, "InfiniBand", "ACTIVE", "LinkUp", 400, (("link_downed", 0),))
        for index in range(10)
    )
    report = folded(None, look)
    metrics.saw(Update(reading=look, host=HostReading(ports=ports)))
    metrics.saw(Update(reading=look))
    metrics.reports(report)
    metrics.wrote(report)
    metrics.polled(0.012)
    metrics.looked("host")
    metrics.looked("kmsg")


def test_every_name_is_ours_and_says_its_unit(scrape: Scrape) -> None:
    _full(scrape.metrics)
    scrape.metrics.saw(Update(events=(xid(79), kernel_line(12028, type_=SXID_EVENT))))
    families = list(text_string_to_metric_families(scrape.text()))
    ours = [family for family in families if not family.name.startswith("process_")]
    assert len(ours) > len(GPU_SERIES) + 8
    for family in ours:
        assert re.fullmatch(r"tramontane_[a-z0-9_]+", family.name)
        assert family.documentation.endswith((".", "; 1."))
        assert not re.search(r"_(ms|us|mw|mib|gib|kb|percent|milliwatts)(_|$)", family.name)
        for sample in family.samples:
            assert "uuid" not in sample.labels or family.name == "tramontane_gpu_info"


IN_A_PROCESS_OF_ITS_OWN = """
import sys
sys.path.insert(0, {tests!r})
from prometheus_client import generate_latest
from tramontane.health import __main__, agent  # all that an agent imports, and its metrics
from tramontane.health.metrics import Metrics
from tramontane.kube import metrics as kube
from unit.health.test_metrics import _full
metrics = Metrics()
_full(metrics)
for verb, resource in [("get", "blades"), ("apply", "blades"), ("patch", "leases"),
                       ("create", "leases"), ("get", "leases")]:
    kube.REQUESTS.labels(verb, resource, "200").inc()
    kube.REQUEST_SECONDS.labels(verb, resource).observe(0.01)
kube.CLOCK_SKEW.heard("Tue, 24 Nov 2026 15:00:00 GMT", 1.0, 2.0)
print(generate_latest().decode())
"""


def test_a_scrape_of_eight_healthy_gpus_has_at_most_200_lines() -> None:
    tests = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN.format(tests=tests)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) <= 200
    samples: dict[str, Any] = {}
    for family in text_string_to_metric_families(done.stdout):
        samples |= {sample.name: sample.value for sample in family.samples}
    assert samples["process_resident_memory_bytes"] > 1 << 20
    assert samples["process_cpu_seconds_total"] > 0
    assert samples["tramontane_api_requests_total"] == 1
    assert samples["tramontane_gpu_throttle_seconds_total"] >= 0
    assert not [name for name in samples if name.startswith("python_")]
    assert not [name for name in samples if name.endswith("_created")]
