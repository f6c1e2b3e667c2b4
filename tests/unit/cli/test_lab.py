"""`tramontane lab status`, over a hall that answers."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from tramontane.lab.description import Description
from tramontane.lab.fleet import Layout
from tramontane.lab.keys import make_keys
from tramontane.lab.processes import Record, start_ticks
from tramontane.lab.remote import Remote
from unit.cli.desk import NODES, Desk


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desk: Desk) -> Desk:
    """A folder of a lab with a hall that answers: one process of it runs, one has ended."""
    Description(Layout(blades=2)).save(tmp_path)
    make_keys(tmp_path / "keys", {})
    ours = Record("us", os.getpid(), start_ticks(os.getpid()) or 0, "/logs/us.log", gentle=True)
    (tmp_path / "processes.json").write_text(
        json.dumps([asdict(ours), asdict(replace(ours, name="gone", started=1))])
    )
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    for name, status in (("gpu-0001", ready), ("gpu-0002", {})):
        desk.server.put(NODES, name, status=status)
    desk.blade("gpu-0001")
    desk.blade("gpu-0002", "Lost")

    async def faults(_remote: Remote) -> dict[str, list[str]]:
        return {"gpu-0002": ["gpu-lost"]}

    monkeypatch.setattr(Remote, "faults", faults)
    return desk


def test_status_says_what_runs_and_how_the_blades_are(lab: Desk, tmp_path: Path) -> None:
    first, second, *rest = lab.says("lab", "status", "--dir", str(tmp_path)).splitlines()
    assert first.split()[0] == "us"
    assert first.split()[3:] == ["MiB", "/logs/us.log"]
    assert second.split() == ["gone", str(os.getpid()), "ENDED", "/logs/us.log"]
    assert rest == [
        "", "nodes   1 Ready, 1 not", "blades  1 Healthy, 1 Lost", "fault   gpu-0002: gpu-lost",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_status_for_programs_is_one_object(lab: Desk, tmp_path: Path, form: str) -> None:
    said = lab.says("lab", "status", "--dir", str(tmp_path), "-o", form)
    whole = yaml.safe_load(said)
    assert [(one["name"], one["memoryMiB"] is None) for one in whole.pop("processes")] == [
        ("us", False),
        ("gone", True),
    ]
    assert whole == {
        "nodes": {"ready": 1, "notReady": 1},
        "blades": {"Healthy": 1, "Lost": 1},
        "faults": {"gpu-0002": ["gpu-lost"]},
    }
    assert said.startswith("{") is (form == "json")
