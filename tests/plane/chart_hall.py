"""A lab whose components run as the chart starts them: its command lines, its accounts, its roles.

There are no kubelets: Deployments make pods that wait for ever. What those pods would run is
started as a process each, by the command line that Helm renders, with a token of the pod's account.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chart.helm import CHART, NAMESPACE, RELEASE, Helm, Object, one
from tramontane.kube.client import Client
from tramontane.kube.resources import PODS, TRAININGJOBS, Resource
from tramontane.lab.cluster import Lab
from tramontane.lab.hall import state_file
from tramontane.lab.keys import User, write_kubeconfig
from tramontane.lab.nvml import build
from tramontane.lab.paths import cache_dir

WATCHED = "gpu-0001"  # has an agent in a process of its own
WAIT_S = 60.0
# The pods' addresses: one loopback address each, since the port is the same.
ADDRESSES = {"operator": "127.0.0.2", "scheduler": "127.0.0.3", "agent": "127.0.0.4"}
WORKLOADS = {"operator": "Deployment", "scheduler": "Deployment", "agent": "DaemonSet"}


class BareLab(Lab):
    """A lab that leaves it to us to start the agent with a process of its own."""

    def start_agent(self, name: str) -> None:
        state_file(self.folder, name)


@dataclass(slots=True)
class Hall:
    """A lab whose components run under the chart's ServiceAccounts.

    Attributes:
        chart: the version that is installed, by which `start` starts them.
        more: values besides those that the lab needs.
    """

    lab: Lab
    helm: Helm
    port: int
    chart: Path = CHART
    more: Mapping[str, Any] = field(default_factory=dict)

    async def start(self, component: str, **environment: str) -> None:
        """Start a component by the command line of its container."""
        objects = self.helm.template(self.values(), chart=self.chart)
        workload = one(objects, WORKLOADS[component], f"{RELEASE}-{component}")
        account = workload["spec"]["template"]["spec"]["serviceAccountName"]
        token = await self.token(account, await self.pod_of(component, account))
        config = self.kubeconfig(component, token)
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

    async def start_all(self) -> None:
        """Start all three."""
        await self.start("operator")
        await self.start("scheduler")
        state = str(state_file(self.lab.folder, WATCHED))
        await self.start("agent", TRAMONTANE_NVML_STATE=state)

    async def restart_all(self) -> None:
        """Start all three anew, as a Deployment does whose pods have changed."""
        self.stop_all()
        await self.start_all()

    def stop_all(self) -> None:
        """End all three, as their pods end: told first."""
        self.lab.processes.stop(*WORKLOADS)

    def kubeconfig(self, user: str, token: str) -> Path:
        """Write the file by which a process is that account."""
        plane = self.lab.plane
        path = self.lab.folder / f"{user}.kubeconfig"
        return write_kubeconfig(path, plane.server, plane.keys.ca, User(user, (), token))

    def values(self) -> Object:
        """Return the values of the release."""
        metrics = {**self.more.get("metrics", {}), "port": self.port}
        agent = {"nvmlLibrary": str(build(cache_dir()))}
        return {**self.more, "metrics": metrics, "agent": agent}

    async def release(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Run one command of Helm in our namespace; it has to succeed."""
        done = await asyncio.to_thread(
            self.helm.run, *arguments, "--namespace", NAMESPACE, values=values
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def pod_of(self, component: str, account: str) -> Object:
        """Create the pod that a token is bound to; no kubelet takes it."""
        client = self.lab.client
        for pod in await client.list_all(PODS, NAMESPACE):
            if pod["metadata"]["name"] == component:
                return pod
        return await client.create(
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": component, "namespace": NAMESPACE},
                "spec": {
                    "serviceAccountName": account,
                    "nodeName": WATCHED,
                    "containers": [{"name": component, "image": "tramontane:0.2.0"}],
                },
            },
        )

    async def token(self, account: str, pod: Object) -> str:
        """Return a token of an account that is bound to a pod, as kubelets ask for."""
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

    def refused(self) -> list[tuple[str, str, str]]:
        """Return who was refused what, by rights or by policy."""
        return [
            (event["user"]["username"], event["verb"], event["requestURI"])
            for event in self.requests()
            if event.get("responseStatus", {}).get("code") in {401, 403, 422}
        ]


async def until(lab: Lab, what: str, holds: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `holds` returns, once that is true."""
    async with asyncio.timeout(WAIT_S):
        while not (found := await holds()):
            lab.processes.check()
            await asyncio.sleep(0.1)
    assert found, what
    return found


async def job_status(client: Client, name: str = "llama") -> Object:
    """Return the status of a job; empty where it has none yet."""
    status: Object = (await client.get(TRAININGJOBS, name, "default")).get("status", {})
    return status
