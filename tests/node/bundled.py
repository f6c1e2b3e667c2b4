"""Install Tramontane from its bundle, where there is nothing but the hall: run by test_bundle.

    BUNDLE=build/tramontane-0.2.0-airgap.tar python tests/node/airgap.py tests/node/bundled.py

Two real nodes, no component of the lab's own: operator, scheduler and agents are pods from the
images of the bundle, on kubelets, with service accounts. First the images lie in the nodes' own
containerd, then, at an upgrade, they come from a registry in the hall. (Not the other way round:
an image that a kubelet has pulled once it gives under another name to nobody without credentials.)
Not collected by itself: its name does not begin with `test`.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.harness import POOL, until
from support.queries import Queries
from tramontane.api.names import API_VERSION, LABEL_JOB, SYSTEM_NAMESPACE
from tramontane.kube.client import Client
from tramontane.kube.resources import (
    BLADES,
    CRDS,
    NODEPOOLS,
    PODS,
    TRAININGJOBS,
)
from tramontane.lab.binaries import ensure
from tramontane.lab.cluster import pool_of
from tramontane.lab.controlplane import ControlPlane, NodeTiming, Options
from tramontane.lab.fleet import LABEL_GPU, Layout
from tramontane.lab.hall import boot_file, state_file
from tramontane.lab.nodes import RealNodes
from tramontane.lab.nodes.plan import BRIDGE, BRIDGE_ADDRESS
from tramontane.lab.nodes.pods import pod_spec
from tramontane.lab.nodes.sweep import sweep
from tramontane.lab.nvml import StateFile, blade, build
from tramontane.lab.paths import cache_dir
from tramontane.lab.processes import Processes

RELEASE = "tramontane"
REGISTRY = f"{BRIDGE_ADDRESS}:5000"
COMPONENTS = ("operator", "scheduler", "agent")
NODES = 2
SOON_S, LONG_S = 60.0, 150.0
_TRAIN = """
import time
for step in range(1, 100000):
    print("step", step, flush=True)
    time.sleep(0.5)
"""
_HOSTS = """server = "http://{0}"
[host."http://{0}"]
  capabilities = ["pull", "resolve"]
"""
_REGISTRY = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """A hall with nodes, and a bundle that was carried in."""

    folder: Path
    bundle: Path  # unpacked
    plane: ControlPlane
    nodes: RealNodes
    processes: Processes

    def run(self, *argv: str | Path, code: int = 0) -> str:
        """Run a command as the one who installs would; return what it said."""
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env={**os.environ, "KUBECONFIG": str(self.plane.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        sys.stdout.write(f"$ {' '.join(map(str, argv))}\n{said}")
        assert done.returncode == code, said
        return said

    def helm(self, *argv: str | Path) -> str:
        return self.run(ensure(["helm"])["helm"], *argv, "--namespace", SYSTEM_NAMESPACE)

    @property
    def chart(self) -> Path:
        [found] = (self.bundle / "chart").glob("*.tgz")
        return found

    def hall_values(self) -> Path:
        """Write what is this hall's own: few replicas, and GPUs out of a file."""
        nvml = state_file(self.folder, "any").parent
        library = build(cache_dir())
        small = {"requests": {"cpu": "20m", "memory": "64Mi"}}
        values = {
            "operator": {"replicas": 1, "resources": small},
            "scheduler": {"replicas": 1, "resources": small},
            "agent": {
                "runtimeClassName": "",
                # Helm merges maps: what the chart would select by has to be taken away.
                "nodeSelector": {"nvidia.com/gpu.present": None, LABEL_GPU: self.nodes.layout.gpu},
                "maxUnavailable": "100%",
                "nvmlLibrary": f"/lab/lib/{library.name}",
                "extraArgs": ["--boot-id-file=/lab/nvml/$(NODE_NAME).boot"],
                "extraEnv": [
                    {"name": "TRAMONTANE_NVML_STATE", "value": "/lab/nvml/$(NODE_NAME).state"}
                ],
                "extraVolumes": [
                    {"name": "nvml", "hostPath": {"path": str(nvml)}},
                    {"name": "lib", "hostPath": {"path": str(library.parent)}},
                ],
                "extraVolumeMounts": [
                    {"name": "nvml", "mountPath": "/lab/nvml", "readOnly": True},
                    {"name": "lib", "mountPath": "/lab/lib", "readOnly": True},
                ],
            },
        }
        path = self.folder / "hall.yaml"
        path.write_text(yaml.safe_dump(values))
        return path


def unpack(into: Path) -> Path:
    """Return the folder of the bundle that the environment names."""
    into.mkdir()
    with tarfile.open(os.environ["BUNDLE"]) as bundle:
        bundle.extractall(into, filter="data")
    [found] = into.iterdir()
    return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    processes = Processes(tmp_path)
    layout = Layout(blades=0)
    nodes = RealNodes(tmp_path, processes, layout, NODES)
    options = Options(nodes=NodeTiming.quick(), address=BRIDGE_ADDRESS, kube_scheduler=True)
    plane = ControlPlane(tmp_path, options, processes)
    try:
        nodes.prepare()
        await plane.start()
        for name in nodes.names:
            state = state_file(tmp_path, name)
            StateFile(state).write(blade(name, count=layout.gpus))
            state.chmod(0o644)  # the agent is nobody in particular
            boot_file(tmp_path, name).write_text(f"{name}-boot-0\n")
        await nodes.start(plane.kubeconfig_for("kubelets"), plane.server)
        assert not nodes.no_service, nodes.no_service
        async with await Client.connect(plane.kubeconfig) as client:
            await nodes.wait_ready(client)
        yield Site(tmp_path, unpack(tmp_path / "carried"), plane, nodes, processes)
    finally:
        processes.stop()
        sweep(tmp_path)


@pytest.mark.timeout(900)
async def test_a_hall_is_served_from_the_bundle_alone(site: Site) -> None:
    began = time.monotonic()

    def told(what: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:6.1f} s {what}\n")

    with Queries(BRIDGE) as queries, Queries("lo") as own:
        async with await Client.connect(site.plane.kubeconfig) as client:
            values = load_into_nodes(site)
            told("images are on the nodes")
            site.helm(
                "install", RELEASE, site.chart, "--create-namespace",
                "--values", values, "--values", site.hall_values(),
            )  # fmt: skip
            await client.create(NODEPOOLS, pool_of(site.nodes.layout, POOL))
            await healthy(client)
            told("installed; all blades are Healthy")
            await runs_from(client, "tramontane.local")
            uids = await train(client)
            told("a job runs")
            values = load_into_registry(site)
            told("images are in the registry")
            site.helm(
                "upgrade", RELEASE, site.chart, "--wait", "--timeout", "150s",
                "--values", values, "--values", site.hall_values(),
            )  # fmt: skip
            await runs_from(client, REGISTRY)
            await healthy(client)
            assert await job_pods(client) == uids
            told("upgraded; the job's pods are the same")
            site.helm("test", RELEASE, "--logs")
            told("helm test passed")
            site.helm("uninstall", RELEASE, "--wait")
            await gone(client)
            assert await job_pods(client) == uids
            kept = [one["metadata"]["name"] for one in await client.list_all(CRDS)]
            assert sum(name.endswith(".tramontane.dev") for name in kept) == 5
            told("uninstalled; job and CRDs are there")
        assert (queries.count(), own.count()) == (0, 0), queries.names() + own.names()


def load_into_registry(site: Site) -> Path:
    """Push by load.sh, with a registry such as a hall has; nodes speak plain HTTP to it."""
    config = site.folder / "registry.yml"
    config.write_text(_REGISTRY.format(folder=site.folder / "registry", address=REGISTRY))
    site.processes.start("registry", [shutil.which("docker-registry") or "", "serve", config])
    for name in site.nodes.names:
        hosts = site.folder / "nodes" / name / "certs.d" / REGISTRY / "hosts.toml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(_HOSTS.format(REGISTRY))
    values = site.folder / "values-registry.yaml"
    site.run(site.bundle / "load.sh", "--registry", REGISTRY, "--plain-http", "--values", values)
    return values


def load_into_nodes(site: Site) -> Path:
    values = site.folder / "values-nodes.yaml"
    argv = [str(site.bundle / "load.sh"), "--containerd", "--values", str(values)]
    for name in site.nodes.names:  # as on a node's own console: its /run has its containerd
        site.run("nsenter", "--target", str(site.nodes.init_of(name)), "--mount", "--", *argv)
    return values


async def healthy(client: Client) -> None:
    async def all_healthy() -> bool:
        blades = await client.list_all(BLADES)
        return [one.get("status", {}).get("state") for one in blades] == ["Healthy"] * NODES

    await explained(client, until(all_healthy, "all blades Healthy", LONG_S))


async def runs_from(client: Client, registry: str) -> None:
    """Return when all pods of the release run an image of this registry, and no other."""

    async def so() -> bool:
        pods = await release_pods(client)
        images = [one["spec"]["containers"][0]["image"] for one in pods]
        ready = all(
            any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"]["conditions"])
            for one in pods
        )
        whole = len(pods) == NODES + 2 and ready
        return whole and all(image.startswith(f"{registry}/") for image in images)

    await explained(client, until(so, f"pods from {registry}", LONG_S))


async def release_pods(client: Client) -> list[Raw]:
    pods = await client.list_all(PODS, SYSTEM_NAMESPACE)
    component = "app.kubernetes.io/component"
    return [one for one in pods if one["metadata"]["labels"].get(component) in COMPONENTS]


async def train(client: Client) -> list[str]:
    """Start a job on both blades; return the uids of its pods once all of them run."""
    spec = pod_spec("python3", "-c", _TRAIN)
    job = {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": "carried", "namespace": "default"},
        "spec": {"nodePool": POOL, "nodes": NODES, "template": {"spec": spec}},
    }
    await client.create(TRAININGJOBS, job)

    async def runs() -> bool:
        status = (await client.get(TRAININGJOBS, "carried", "default")).get("status", {})
        return bool(status.get("phase") == "Running")

    await explained(client, until(runs, "job Running", SOON_S))
    return await job_pods(client)


async def job_pods(client: Client) -> list[str]:
    pods = await client.list_all(PODS, "default")
    ours = [one for one in pods if LABEL_JOB in one["metadata"].get("labels", {})]
    assert all(one["status"]["phase"] == "Running" for one in ours)
    assert len(ours) == NODES
    return sorted(f"{one['metadata']['name']} {one['metadata']['uid']}" for one in ours)


async def gone(client: Client) -> None:
    async def none() -> bool:
        return not await release_pods(client)

    await until(none, "no pod of the release", SOON_S)


async def explained(client: Client, waiting: Any) -> None:
    """Wait; where it takes too long, show the pods and what they said last."""
    try:
        await waiting
    except AssertionError:
        for pod in await client.list_all(PODS):
            name, status = pod["metadata"]["name"], pod["status"]
            sys.stdout.write(f"{name} {json.dumps(status.get('containerStatuses'))}\n")
            with contextlib.suppress(Exception):
                space = pod["metadata"]["namespace"]
                async with client.pod_log(space, name, follow=False) as lines:
                    async for line in lines:
                        sys.stdout.write(f"  {line.decode()}\n")
        raise


def test_the_command_line_installs_from_the_bundle(tmp_path: Path) -> None:
    bundle = unpack(tmp_path / "carried")
    home = tmp_path / "cli"
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable}
    said = _answer(clean, bundle / "cli" / "install-cli.sh", home)
    assert f"in {home}/bin" in said
    assert _answer(clean, home / "bin" / "tramontane", "--version") in said


def _answer(environment: dict[str, str], *argv: str | Path) -> str:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
