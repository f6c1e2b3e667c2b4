"""The components run as the chart starts them: its command lines, its accounts, its roles.

A role that lacks a verb shows in the API server's audit log, which knows every refused request.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chart.helm import CHART, NAMESPACE, RELEASE, Helm, Object, one
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS, PODS, TRAININGJOBS, Resource
from tramontane.lab import binaries
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.controlplane import NodeTiming, Options, free_ports
from tramontane.lab.demo import training_job
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout
from tramontane.lab.hall import state_file
from tramontane.lab.keys import User, write_kubeconfig
from tramontane.lab.nvml import build
from tramontane.lab.paths import cache_dir

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]

WATCHED = "gpu-0001"  # has an agent in a process of its own
WAIT_S = 60.0
# The pods' addresses: one loopback address each, since the port is the same.
ADDRESSES = {"operator": "127.0.0.2", "scheduler": "127.0.0.3", "agent": "127.0.0.4"}


class BareLab(Lab):
    """A lab that leaves it to us to start the agent with a process of its own."""

    def start_agent(self, name: str) -> None:
        state_file(self.folder, name)


@dataclass(frozen=True, slots=True)
class Hall:
    """A lab whose components run under the chart's ServiceAccounts."""

    lab: Lab
    helm: Helm
    port: int

    async def start(self, component: str, kind: str, **environment: str) -> None:
        """Start a component by the command line of its container."""
        workload = one(self.helm.template(self.values()), kind, f"{RELEASE}-{component}")
        pod = await self.pod_of(component, workload)
        account = workload["spec"]["template"]["spec"]["serviceAccountName"]
        user = User(component, (), await self.token(account, pod))
        config = write_kubeconfig(
            self.lab.folder / f"{component}.kubeconfig", self.lab.plane.server, self.ca, user
        )
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        command: list[str] = [*container["command"], *container["args"]]
        assert command.pop(0) == "python"
        variables = {
            "$(POD_NAME)": component,
            "$(POD_IP)": ADDRESSES[component],
            "$(NODE_NAME)": WATCHED,
        }
        for variable, value in variables.items():
            command = [word.replace(variable, value) for word in command]
        self.lab.processes.start(
            component,
            [sys.executable, "-P", *command],
            env={"KUBECONFIG": str(config), **environment},
            gentle=True,
        )

    @property
    def ca(self) -> Path:
        return self.lab.plane.keys.ca

    def values(self) -> Object:
        return {
            "crds": {"enabled": False},
            "metrics": {"port": self.port},
            "agent": {"nvmlLibrary": str(build(cache_dir()))},
        }

    async def pod_of(self, component: str, workload: Object) -> Object:
        """Create the pod that a token is bound to; no kubelet takes it."""
        return await self.lab.client.create(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": component, "namespace": NAMESPACE},
                "spec": {
                    "serviceAccountName": workload["spec"]["template"]["spec"][
                        "serviceAccountName"
                    ],
                    "nodeName": WATCHED,
                    "containers": [{"name": component, "image": "tramontane:0.1.0"}],
                },
            },
        )

    async def token(self, account: str, pod: Object) -> str:
        accounts = Resource("", "v1", f"serviceaccounts/{account}/token", "TokenRequest", True)
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"]}
        made = await self.lab.client.create(
            accounts,
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "metadata": {"namespace": NAMESPACE},
                "spec": {
                    "audiences": ["https://kubernetes.default.svc"],
                    "boundObjectRef": {**bound, "uid": pod["metadata"]["uid"]},
                },
            },
        )
        return str(made["status"]["token"])

    def requests(self) -> list[Object]:
        """Return what the audit log says of our accounts' requests."""
        account = f"system:serviceaccount:{NAMESPACE}:"
        lines = (self.lab.folder / "logs" / "audit.log").read_text().splitlines()
        events = (json.loads(line) for line in lines if account in line and line.endswith("}"))
        return [event for event in events if event["user"]["username"].startswith(account)]


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    programs = binaries.ensure(["helm", *binaries.CONTROL_PLANE])
    layout = Layout(blades=5)
    setup = Setup(
        layout,
        components=(),
        real_agents=(WATCHED,),
        options=Options(nodes=NodeTiming.quick(), audit_log=True),
    )
    async with BareLab(tmp_path / "lab", setup) as lab:
        helm = Helm(programs["helm"], tmp_path, {"KUBECONFIG": str(lab.plane.kubeconfig)})
        (port,) = free_ports(1)
        made = Hall(lab, helm, port)
        done = await asyncio.to_thread(
            helm.run, "install", RELEASE, str(CHART), "-n", NAMESPACE, values=made.values()
        )
        assert done.returncode == 0, done.stderr
        await made.start("operator", "Deployment")
        await made.start("scheduler", "Deployment")
        await made.start(
            "agent",
            "DaemonSet",
            TRAMONTANE_NVML_STATE=str(state_file(lab.folder, WATCHED)),
        )
        pool = pool_of(layout)
        # Two of five at once would open the breaker, and then no repair begins.
        pool["spec"]["remediation"] = {"maxUnavailable": 3, "breaker": {"threshold": "90%"}}
        await lab.client.create(NODEPOOLS, pool)
        yield made


async def until(lab: Lab, what: str, holds: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WAIT_S):
        while not (found := await holds()):
            lab.processes.check()
            await asyncio.sleep(0.1)
    assert found, what
    return found


async def job_status(client: Client) -> Object:
    status: Object = (await client.get(TRAININGJOBS, "llama", "default")).get("status", {})
    return status


async def test_a_job_survives_a_fault_and_nobody_is_refused_anything(hall: Hall) -> None:
    lab, client = hall.lab, hall.lab.client
    await lab.wait_healthy("paris-a")

    async with aiohttp.ClientSession() as session:
        for component, address in ADDRESSES.items():
            for path in ("healthz", "readyz", "metrics"):
                async with session.get(f"http://{address}:{hall.port}/{path}") as answer:
                    assert answer.status == 200, f"{component} {path}: {await answer.text()}"

    await client.create(TRAININGJOBS, training_job("llama", 3, "paris-a", spares=1))

    async def runs() -> bool:
        status = await job_status(client)
        return status.get("phase") == "Running" and bool(status.get("step"))

    await until(lab, "the job trains", runs)
    seats = {pod["spec"]["nodeName"] for pod in await client.list_all(PODS, "default")}
    victims = {WATCHED, max(seats - {WATCHED})}
    async with lab.remote() as remote:
        for victim in victims:
            await remote.inject(victim, parse_fault("gpu-lost", 3))

    emptied: set[str] = set()

    async def repairing() -> bool:
        """Return whether each has been in repair: one may be through before the other begins."""
        for victim in victims:
            blade = await client.get(BLADES, victim)
            if blade["status"]["state"] in {"Repairing", "Requalifying", "RMA"}:
                emptied.add(victim)
        return emptied == victims

    try:
        await until(lab, "the blades are out, and empty", repairing)
    except TimeoutError:
        blades = {v: (await client.get(BLADES, v))["status"] for v in victims}
        said = {k: (b["state"], b.get("reason"), b.get("message")) for k, b in blades.items()}
        gangs = [g["status"] for g in await client.list_all(GANGS, "default")]
        pytest.fail(f"the blades must be out, and empty (got {said}; gangs {gangs})")

    async def whole_again() -> bool:
        status = await job_status(client)
        pods = await client.list_all(PODS, "default")
        on = {pod["spec"]["nodeName"] for pod in pods}
        again = status.get("phase") == "Running" and status.get("attempt", 1) > 1
        return again and len(on) == 3 and not on & victims

    await until(lab, "the job is whole again", whole_again)

    requests = hall.requests()
    assert {event["user"]["username"].rpartition("-")[2] for event in requests} == set(ADDRESSES)
    refused = [
        (event["user"]["username"], event["verb"], event["requestURI"])
        for event in requests
        if event.get("responseStatus", {}).get("code") in {401, 403, 422}
    ]
    assert not refused
