"""`helm test`: a pod runs `tramontane doctor` under an account that is there for the test only.

There is no kubelet, so the test is it: it runs the pod's command as a process, with a token of the
pod's account, and then says how the pod has ended.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chart.helm import CHART, NAMESPACE, RELEASE, Helm, Object, is_hook
from plane import chart_cluster
from plane.chart_cluster import MERGE, WAIT_S, Cluster, path_of
from tramontane.lab import binaries
from tramontane.lab.keys import User, write_kubeconfig

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]

POD = f"/api/v1/namespaces/{NAMESPACE}/pods/tramontane-doctor"
COMMAND = "from tramontane.cli.main import main; main()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with chart_cluster.installed(tmp_path_factory.mktemp("chart")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    """Both Helms, built here, where no time-out counts."""
    return binaries.ensure(["helm", "helm3"])


def examine(cluster: Cluster, folder: Path, pod: Object) -> tuple[int, list[dict[str, Any]]]:
    """Run what the pod would run, as its account; return exit status and findings."""
    (container,) = pod["spec"]["containers"]
    name, *arguments = container["command"]
    assert name == "tramontane"
    token = cluster.token(pod["spec"]["serviceAccountName"], pod).token
    account = User("doctor", (), token)
    config = write_kubeconfig(folder / "doctor", cluster.admin.server, cluster.ca, account)
    words = [one.replace("$(NAMESPACE)", NAMESPACE) for one in arguments]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"KUBECONFIG": str(config), "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def left(cluster: Cluster) -> list[str]:
    """Return what is still there of what the test needs besides its pod."""
    return [
        item["kind"]
        for item in cluster.helm.template()
        if is_hook(item) and item["kind"] != "Pod"
        if cluster.admin.call(
            "GET", f"{path_of(item, cluster.admin)}/{item['metadata']['name']}"
        ).status
        == 200
    ]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_doctor_sees_all_and_leaves_no_right_behind(
    installed: Cluster, programs: dict[str, Path], tmp_path: Path, program: str, phase: str
) -> None:
    helm = Helm(programs[program], tmp_path, installed.helm.environment)
    old = installed.admin.call("GET", POD).body.get("metadata", {}).get("uid")
    with ThreadPoolExecutor() as pool:
        testing = pool.submit(helm.run, "test", RELEASE, "-n", NAMESPACE, "--timeout", "60s")
        deadline = time.monotonic() + WAIT_S
        while (pod := installed.admin.call("GET", POD)).status != 200 or (
            pod.body["metadata"]["uid"] == old
        ):
            assert time.monotonic() < deadline, "the test's pod must be there by now"
            time.sleep(0.1)
        status, findings = examine(installed, tmp_path, pod.body)
        ended = installed.admin.call("PATCH", f"{POD}/status", {"status": {"phase": phase}}, MERGE)
        assert ended.status == 200, ended.message
        done = testing.result(90)
    unread = [one for one in findings if "could not be looked at" in one["message"]]
    assert not unread
    assert len(findings) > 5
    assert status == 3, "nothing of it runs here, and doctor has to say so"
    assert (done.returncode == 0) is (phase == "Succeeded"), done.stderr
    assert left(installed) == []


def test_a_release_without_doctor_has_no_test(installed: Cluster) -> None:
    installed.release("upgrade", RELEASE, str(CHART), values={"doctor": {"enabled": False}})
    hooks = installed.release("get", "hooks", RELEASE)
    assert not hooks.strip()
