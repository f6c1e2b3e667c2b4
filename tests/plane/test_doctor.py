"""`tramontane doctor` and `tramontane support` on a real API server with a real operator."""

import asyncio
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from plane.harness import SYSTEM, Plane
from plane.operating import all_in, all_report, make_pool, operating
from tramontane.api.clock import micro
from tramontane.api.names import API_VERSION, heartbeat_lease
from tramontane.kube.client import Client
from tramontane.kube.resources import LEASES, TRAININGJOBS, Resource
from tramontane.lab.fleet import Fleet, Layout

pytestmark = pytest.mark.plane

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
PLANTED = ("s3cr3t-one", "s3cr3t-two")


async def said(kubeconfig: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from tramontane.cli.main import main; main()",
        *arguments,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def levels(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in json.loads(text):
        found.setdefault(one["check"], set()).add(one["level"])
    return found


async def hall(client: Client, blades: int) -> tuple[str, ...]:
    fleet = Fleet(client, Layout(blades=blades, rack=2))
    await make_pool(client)
    await fleet.create()
    await fleet.wait_ready()
    await all_in(client, fleet.names, "Unknown")
    await all_report(client, fleet.names)
    await all_in(client, fleet.names, "Healthy")
    return fleet.names


async def test_the_doctor_sees_a_clock_that_is_off(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client, operating(plane, tmp_path):
        one, _ = await hall(client, 2)
        code, text = await said(plane.kubeconfig, "doctor", "-o", "json")
        before = levels(text)
        # No scheduler runs here, nothing was installed by a chart.
        assert code == 3
        assert before["leaders"] == {"OK", "Problem"}
        assert before["versions"] == before["crds"] == before["clocks"] == {"OK"}
        assert before["agents"] == before["nodes"] == before["pools"] == {"OK"}
        renewal = {"spec": {"renewTime": micro(time.time() + 30)}}
        await client.merge_patch(LEASES, heartbeat_lease(one), renewal, SYSTEM)
        code, text = await said(plane.kubeconfig, "doctor")
        assert code == 3
        assert f"whoever writes Lease {heartbeat_lease(one)}" in text
        assert "not fit: " in text


async def test_who_may_read_nothing_is_told_that_nothing_is_known(
    plane: Plane, tmp_path: Path
) -> None:
    async with await plane.client() as client:
        body = {"metadata": {"name": "nobody", "namespace": SYSTEM}}
        await client.create(SERVICE_ACCOUNTS, body, SYSTEM)
        asked: dict[str, Any] = {"spec": {"expirationSeconds": 600}}
        made = await client.create(
            SERVICE_ACCOUNTS, asked, SYSTEM, name="nobody", subresource="token"
        )
        config = yaml.safe_load(plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": made["status"]["token"]}
        limited = tmp_path / "kubeconfig"
        limited.write_text(yaml.safe_dump(config))
        code, text = await said(limited, "doctor", "-o", "json")
        assert levels(text)["crds"] == levels(text)["pools"] == {"Unknown"}
        strict, text = await said(limited, "doctor", "--strict")
        assert (code, strict) == (0, 3)
        assert "fit as far as could be looked at: " in text
        await client.delete(SERVICE_ACCOUNTS, "nobody", SYSTEM)


async def test_a_support_file_has_everything_but_secrets(plane: Plane, tmp_path: Path) -> None:
    trainer = {
        "name": "trainer",
        "image": "registry.example/train:1",
        "command": ["train", f"--token={PLANTED[0]}"],
        "env": [{"name": "KEY", "value": PLANTED[1]}],
    }
    job = {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": "llama", "namespace": "default"},
        "spec": {"nodePool": "paris", "nodes": 4, "template": {"spec": {"containers": [trainer]}}},
    }
    target = tmp_path / "support.tar.gz"
    async with await plane.client() as client, operating(plane, tmp_path):
        await hall(client, 1)
        await client.create(TRAININGJOBS, job, "default")
        code, text = await said(plane.kubeconfig, "support", "-o", str(target))
        assert code == 0, text
        assert "taken out" in text
    with tarfile.open(target) as tar:
        files = {
            Path(one.name).name: handle.read().decode()
            for one in tar.getmembers()
            if (handle := tar.extractfile(one))
        }
    assert target.stat().st_mode & 0o777 == 0o600
    assert [name for name, content in files.items() for word in PLANTED if word in content] == []
    [kept] = json.loads(files["trainingjobs.json"])
    assert kept["spec"]["template"]["spec"]["containers"][0]["image"] == trainer["image"]
    assert files["unread.txt"] == "everything was read\n"
    assert json.loads(files["snapshot.json"])["format"] == "tramontane.dev/snapshot"
    assert any(one["check"] == "crds" for one in json.loads(files["doctor.json"]))
    again, _ = await said(plane.kubeconfig, "support", "-o", str(target))
    assert again == 1, "nothing is written over"
