"""A whole Tramontane on one machine: control plane, blades, components, simulator.

    async with Lab(folder, Setup(Layout(blades=136))) as lab:
        await lab.client.create(TRAININGJOBS, job, "default")
        async with lab.remote() as hall:
            await hall.inject("gpu-0017", parse_fault("gpu-lost", gpu=3))

Each component is an operating-system process of its own, as in a real cluster: kill any of them
by `lab.processes.kill("operator")` and start it again by `lab.start_component("operator")`.
"""

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import yaml

from tramontane.api.names import API_VERSION, SYSTEM_NAMESPACE
from tramontane.kube.client import AlreadyExists, Client
from tramontane.kube.resources import CRDS, NAMESPACES, NODEPOOLS
from tramontane.lab.controlplane import ControlPlane, NodeTiming, Options, free_ports
from tramontane.lab.description import Description
from tramontane.lab.fleet import LABEL_BLOCK, LABEL_GPU, LABEL_RACK, Fleet, Layout
from tramontane.lab.hall import agent_process
from tramontane.lab.nodes import RealNodes
from tramontane.lab.nodes.plan import BRIDGE_ADDRESS, plans
from tramontane.lab.nodes.sweep import sweep
from tramontane.lab.paths import LabError, crd_dir
from tramontane.lab.processes import Processes
from tramontane.lab.remote import Remote
from tramontane.lab.starting import start_agent, start_python

MANAGER = "tramontane-lab"
COMPONENTS = {"operator": "tramontane.controllers", "scheduler": "tramontane.scheduler"}
_READY_S = 60.0
_BLADES_PER_S = 8  # that become ready, then healthy, on a busy machine
_POLL_S = 0.1
_QUICK_BLADES = 32  # simulated ones, whose heartbeats may come each second


def pool_of(layout: Layout, name: str = "paris-a") -> dict[str, Any]:
    """Return a NodePool that takes all blades of a layout, and nothing that it need not say."""
    return {
        "apiVersion": API_VERSION,
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"matchLabels": {LABEL_GPU: layout.gpu}},
            "gpu": {"product": layout.product, "count": layout.gpus, "memory": "141Gi"},
            "topology": {
                "levels": [
                    {"name": "block", "label": LABEL_BLOCK},
                    {"name": "rack", "label": LABEL_RACK},
                ]
            },
        },
    }


@dataclass(frozen=True, slots=True)
class Setup:
    """What a lab is to have."""

    layout: Layout
    pool: Mapping[str, Any] | None = None  # None: none; `pool_of(layout)` makes a plain one
    components: tuple[str, ...] = tuple(COMPONENTS)
    simulated_agents: bool = True
    real_agents: tuple[str, ...] = ()
    agent_metrics: bool = False  # real agents serve theirs, each on a port of its own
    agent_arguments: tuple[str, ...] = ()  # of real agents, besides the lab's own
    real_nodes: int = 0  # kubelets with containers, beside the layout's simulated blades
    namespace: str = SYSTEM_NAMESPACE
    options: Options | None = None
    log_level: str = "info"
    environment: Mapping[str, str] = field(default_factory=dict)  # of the components

    def plane_options(self) -> Options:
        """Return how the control plane is started."""
        blades = self.layout.blades
        if self.options is not None:
            chosen = self.options
        elif self.real_nodes and blades <= _QUICK_BLADES:
            chosen = Options(nodes=NodeTiming.quick())
        else:
            chosen = Options(nodes=NodeTiming.for_blades(blades))
        return replace(chosen, address=BRIDGE_ADDRESS) if self.real_nodes else chosen

    def component_environment(self, name: str) -> Mapping[str, str]:
        """Return the environment of a component.

        Where there are pods that could answer it, the operator takes in requests for models
        without a replica, at the machine's address on their bridge.
        """
        if name != "operator" or not self.real_nodes:
            return self.environment
        own = {"POD_IP": BRIDGE_ADDRESS, "TRAMONTANE_ACTIVATOR_PORT": "0"}
        return {**own, **self.environment}

    def agents(self) -> tuple[str, ...]:
        """Return the blades whose agent is a process of its own: all real nodes are among them."""
        real = (plan.name for plan in plans(self.real_nodes))
        return (*self.real_agents, *(real if self.simulated_agents else ()))

    def exporting(self) -> tuple[str, ...]:
        """Return the processes that serve metrics."""
        agents = map(agent_process, self.agents()) if self.agent_metrics else ()
        return (*self.components, *agents)


async def apply_crds(client: Client, folder: Path | None = None) -> None:
    """Apply our CRDs and return when the API server serves them."""
    bodies = [yaml.safe_load(path.read_text()) for path in (folder or crd_dir()).glob("*.yaml")]
    async with asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(client.apply(CRDS, body, manager=MANAGER))
    waiting = {body["metadata"]["name"] for body in bodies}
    deadline = time.monotonic() + _READY_S
    while waiting:
        for name in tuple(waiting):
            found = await client.get(CRDS, name)
            conditions = found.get("status", {}).get("conditions") or ()
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                waiting.discard(name)
        if time.monotonic() > deadline:
            raise LabError(f"crds: must be established within {_READY_S:.0f} s (got {waiting})")
        await asyncio.sleep(_POLL_S)


async def ensure_namespace(client: Client, name: str) -> None:
    """Create a namespace unless it is there."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    with contextlib.suppress(AlreadyExists):
        await client.create(NAMESPACES, body)


class Lab:
    """One lab in one folder; attached ones end with the block that they are used in."""

    def __init__(
        self,
        folder: Path,
        setup: Setup,
        *,
        attached: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.setup = setup
        self.processes = Processes(folder, attached=attached)
        self.plane = ControlPlane(folder, setup.plane_options(), self.processes)
        self.nodes = RealNodes(
            folder, self.processes, setup.layout, setup.real_nodes,
            start_agent=self.start_agent if setup.simulated_agents else None,
        )  # fmt: skip
        self.client: Client
        self.fleet: Fleet
        self.description: Description
        self._say = say
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        self.stop()

    def stop(self) -> None:
        """Stop every process, and leave nothing of real nodes on the machine."""
        self.processes.stop()
        sweep(self.folder)

    async def start(self) -> None:
        """Start everything, in order; returns when the pool is healthy if there is one.

        Raises:
            LabError: something did not come up; nothing is left running.
        """
        old = Processes.load(self.folder)
        if running := old.running():
            raise LabError(
                f"lab {self.folder}: must not run already (got {len(running)} processes,"
                f" {running[0].name} first); `tramontane lab down` stops it"
            )
        try:
            await self._start()
        except BaseException:
            await self.close()
            self.stop()
            _forget(self.folder)
            raise

    async def _start(self) -> None:
        setup = self.setup
        if setup.real_nodes:
            self.nodes.prepare()
        await self.plane.start()
        self._say(f"control plane ready in {self.plane.started_in_s:.1f} s: {self.plane.server}")
        self.client = await self._stack.enter_async_context(
            await Client.connect(self.plane.kubeconfig, user_agent=MANAGER)
        )
        self.fleet = Fleet(self.client, setup.layout)
        exporting = setup.exporting()
        self.description = Description(
            layout=setup.layout,
            namespace=setup.namespace,
            real_agents=setup.agents(),
            real_nodes=setup.real_nodes,
            simulated_agents=setup.simulated_agents,
            kubelet_port=self.plane.kubelet_port,
            metrics_ports=dict(zip(exporting, free_ports(len(exporting)), strict=True)),
            token=secrets.token_urlsafe(24),
        )
        self.description.save(self.folder)
        await self.install()

        # Components first: they start while the blades are created.
        began = time.monotonic()
        self._python("simulator", "tramontane.lab.simulator", "--folder", str(self.folder))
        for name in setup.components:
            self.start_component(name)
        patience_s = _READY_S + setup.layout.blades / _BLADES_PER_S
        await self.fleet.create()
        if setup.layout.blades:
            await self.fleet.wait_ready(patience_s)
        await self._wait("simulator", self._simulator_answers)
        await self._start_nodes()
        if setup.pool is not None:  # before, each blade would be taken for a lost one first
            await self.client.apply(NODEPOOLS, setup.pool, manager=MANAGER)
        if setup.layout.blades:
            self._say(f"{setup.layout.blades} blades ready in {time.monotonic() - began:.1f} s")
        for name in setup.agents():
            self.start_agent(name)
        self.processes.check()
        if setup.pool is not None:
            await self.wait_healthy(str(setup.pool["metadata"]["name"]), patience_s)
            self._say(f"pool healthy {time.monotonic() - began:.1f} s after the first blade")

    async def install(self) -> None:
        """Bring our kinds and the namespace, which all else needs; a chart may do it instead."""
        await apply_crds(self.client)
        await ensure_namespace(self.client, self.setup.namespace)

    async def _start_nodes(self) -> None:
        """Start the real nodes; the simulator has written their first boot IDs by now."""
        if not self.setup.real_nodes:
            return
        began = time.monotonic()
        await self.nodes.start(self.plane.kubeconfig_for("kubelets"), self.plane.server)
        await self.nodes.wait_ready(self.client)
        took_s = time.monotonic() - began
        self._say(f"{self.setup.real_nodes} real nodes ready in {took_s:.1f} s")

    async def close(self) -> None:
        """Close our own connections; the processes live on."""
        await self._stack.aclose()

    def remote(self) -> Remote:
        """Return the way to the simulator, for faults; use it by `async with`."""
        return Remote(self.folder, self.description)

    def start_component(self, name: str, identity: str = "") -> None:
        """Start the operator or the scheduler; with an identity as a further copy of it."""
        process = f"{name}-{identity}" if identity else name
        port = 0 if identity else self.description.metrics_ports.get(name, 0)
        self._python(
            process, COMPONENTS[name], "--namespace", self.setup.namespace,
            "--metrics-port", str(port), "--identity", process,
            "--log-level", self.setup.log_level, env=self.setup.component_environment(name),
        )  # fmt: skip

    def start_agent(self, name: str) -> None:
        """Start a real agent process for a blade, over the simulated NVML library."""
        start_agent(
            self.processes, name, self.setup.namespace, log_level=self.setup.log_level,
            metrics_port=self.description.metrics_ports.get(agent_process(name), 0),
            arguments=self.setup.agent_arguments, env=self.setup.environment,
        )  # fmt: skip

    def _python(
        self, process: str, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        environment = self.setup.environment if env is None else env
        start_python(self.processes, process, module, *arguments, env=environment)

    async def wait_healthy(self, pool: str, timeout: float = 180.0) -> None:
        """Return when as many blades of the pool are Healthy as the lab has.

        Raises:
            LabError: a process ended, or it took too long.
        """
        wanted = self.setup.layout.blades + self.setup.real_nodes

        async def healthy() -> bool:
            status = (await self.client.get(NODEPOOLS, pool)).get("status", {})
            return bool(status.get("blades", {}).get("healthy", 0) >= wanted)

        await self._wait(f"pool {pool}", healthy, timeout)

    async def _simulator_answers(self) -> bool:
        async with self.remote() as remote:
            with contextlib.suppress(LabError):
                await remote.faults()
                return True
        return False

    async def _wait(self, what: str, ready: Callable[[], Any], timeout: float = _READY_S) -> None:
        deadline = time.monotonic() + timeout
        while not await ready():
            self.processes.check()
            if time.monotonic() > deadline:
                raise LabError(
                    f"{what}: must be ready within {timeout:.0f} s (got: it is not);"
                    f" the logs are in {self.folder / 'logs'}"
                )
            await asyncio.sleep(_POLL_S)


def down(folder: Path) -> int:
    """Stop the lab in `folder` and throw its data away (its logs stay); return how many stopped."""
    processes = Processes.load(folder)
    count = len(processes.running())
    processes.stop()
    sweep(folder)
    _forget(folder)
    return count


def _forget(folder: Path) -> None:
    """Remove a stopped lab's data and keys; its logs stay."""
    for name in ("etcd", "keys", "nvml", "nodes"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("kubeconfig", "lab.json", "processes.json", "kwok.yaml"):
        (folder / name).unlink(missing_ok=True)
