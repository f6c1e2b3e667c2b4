"""The real nodes of one lab: start them, cut their power, pull their cables, look inside.

    nodes = RealNodes(folder, processes, layout, 4)
    nodes.prepare()                      # claims the machine, makes the network
    await nodes.start(kubeconfig)        # the API server must answer at BRIDGE_ADDRESS by now
    await nodes.power_off("real-0002")   # its peers notice nothing

The orders work from any process: `starting.real_nodes(folder)` finds those of a lab that runs.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tramontane.api.names import GPU_RESOURCE
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.resources import NODES
from tramontane.lab.binaries import REAL_NODES, ensure
from tramontane.lab.fleet import Layout, is_ready
from tramontane.lab.hall import agent_process, boot_file
from tramontane.lab.nodes import cgroups, config, network, sweep
from tramontane.lab.nodes.config import NodeFiles, Tools
from tramontane.lab.nodes.image import write_image
from tramontane.lab.nodes.machine import machine, which
from tramontane.lab.nodes.plan import NodePlan, plans
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes, log_tail

DNS = "coredns"
_GONE_S = 10.0
_READY_S = 90.0
_POLL_S = 0.02


class RealNodes:
    """The real nodes of the lab in `folder`."""

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        layout: Layout,
        count: int,
        *,
        start_agent: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder.resolve()  # nodes run elsewhere
        self.processes = processes
        self.layout = layout
        self.plans = {plan.name: plan for plan in plans(count)}
        self._start_agent = start_agent
        self.no_service = ""  # why pods do not reach the API server by its Service, if they do not

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names in order."""
        return tuple(self.plans)

    def prepare(self) -> None:
        """Claim the machine and make the network: what must be there before the API server.

        Raises:
            LabError: the machine lacks something, or another lab has it.
        """
        machine()
        ensure(REAL_NODES)
        if self.folder.is_relative_to("/run"):
            raise LabError(
                f"lab {self.folder}: must not lie under /run with real nodes (got it there), which"
                " is empty inside a node; choose another folder by --dir"
            )
        sweep.take(self.folder)
        network.make(self.plans.values())

    async def start(self, kubeconfig: Path, server: str) -> None:
        """Start DNS and all nodes, with the kubeconfig of their kubelets; see `wait_ready`.

        `server` is the API server's URL, to which pods with a service account are led.
        """
        found, paths = machine(), ensure(REAL_NODES)
        tools = Tools(
            found.containerd, found.ctr, paths["kubelet"], paths["deviceplugin"], found.cni
        )
        base = self.folder / "nodes"
        base.mkdir(parents=True, exist_ok=True)
        write_image(base / "image.tar", found.busybox)
        corefile = base / "Corefile"
        corefile.write_text(config.corefile(kubeconfig))
        self.processes.start(DNS, [paths["coredns"], "-conf", corefile])
        self.no_service = network.lead_to_api(self.plans.values(), server)
        for plan in self.plans.values():
            files = self._files(plan, kubeconfig)
            self._write(plan, files, tools)
            self._start(plan)

    def _files(self, plan: NodePlan, kubeconfig: Path) -> NodeFiles:
        base = self.folder / "nodes"
        return NodeFiles(
            folder=base / plan.name,
            logs=self.folder / "logs",
            kubeconfig=kubeconfig,
            image=base / "image.tar",
            boot_id=boot_file(self.folder, plan.name),
        )

    def _write(self, plan: NodePlan, files: NodeFiles, tools: Tools) -> None:
        """Write all files of a node."""
        for name in config.FOLDERS:
            (files.folder / name).mkdir(parents=True, exist_ok=True)
        init = files.folder / "init"
        labels = plan.labels(self.layout)
        for name, text in (
            ("kubelet.json", config.kubelet_config(plan, files)),
            ("containerd.toml", config.containerd_config(files, tools)),
            ("net.d/pods.conflist", config.cni_config(plan, files)),
            ("init", config.init_script(plan, files, tools, gpus=self.layout.gpus, labels=labels)),
            ("enter", config.enter_script(plan, init, cgroups.make(plan.name))),
        ):
            (files.folder / name).write_text(text)
        if not files.boot_id.exists():  # else the blade's agent has had its first boot
            files.boot_id.write_text(f"{plan.name}-boot-0\n")

    def _start(self, plan: NodePlan) -> None:
        self.processes.start(plan.process, ["bash", self.folder / "nodes" / plan.name / "enter"])

    async def wait_ready(
        self, client: Client, names: Sequence[str] = (), timeout: float = _READY_S
    ) -> None:
        """Return when the named nodes (all) are Ready with all their GPUs.

        Raises:
            LabError: a process ended, or it took too long.
        """
        deadline = time.monotonic() + timeout
        for name in names or self.names:
            plan = self._plan(name)
            while not await self._is_complete(client, name):
                self.processes.check([DNS, plan.process])
                if time.monotonic() > deadline:
                    log = self.folder / "logs" / f"{name}-kubelet.log"
                    raise LabError(
                        f"node {name}: must be Ready with {self.layout.gpus} GPUs within"
                        f" {timeout:.0f} s (got: it is not); the last lines of {log}:\n"
                        f"{log_tail(log)}"
                    )
                await asyncio.sleep(5 * _POLL_S)

    async def _is_complete(self, client: Client, name: str) -> bool:
        try:
            node = await client.get(NODES, name)
        except NotFound:
            return False
        gpus = node["status"].get("allocatable", {}).get(GPU_RESOURCE, "0")
        return is_ready(node) and int(gpus) == self.layout.gpus

    async def power_off(self, name: str) -> None:
        """Cut a node's power: all that runs on it is gone, and nobody is told.

        The cable goes first: else the kernel would close the connections of the dead, and peers
        would know at once.

        Raises:
            LabError: there is no such node, or it has no power.
        """
        plan = self._plan(name)
        init = self.init_of(name)
        network.link(plan, up=False)
        os.kill(init, signal.SIGKILL)
        agent = agent_process(name)
        known = {record.name for record in self.processes.records}
        if agent in known:
            self.processes.kill(agent)
        deadline = time.monotonic() + _GONE_S
        while cgroups.processes(name):
            if time.monotonic() > deadline:
                raise LabError(
                    f"node {name}: must be gone within {_GONE_S:.0f} s of a power cut (got"
                    f" {len(cgroups.processes(name))} processes); `tramontane lab down` ends them"
                )
            await asyncio.sleep(_POLL_S)
        if ended := {plan.process, agent} & known:  # to stop no name is to stop all
            self.processes.stop(*ended)
        # No boot finds cgroups of the last one; the kubelet would spend 3 s on each.
        cgroups.remove(name)

    async def power_on(self, name: str) -> None:
        """Give a node its power back: it boots, with its old disk; see `wait_ready`.

        Raises:
            LabError: there is no such node, or it has power.
        """
        plan = self._plan(name)
        if plan.process in {record.name for record in self.processes.running()}:
            raise LabError(f"node {name}: must be without power (got: it runs); cut it first")
        network.forget_pods(plan)
        cgroups.make(name)
        network.link(plan, up=True)
        boot_file(self.folder, name).write_text(f"{name}-boot-{time.time_ns():x}\n")
        self._start(plan)
        if self._start_agent is not None:
            self._start_agent(name)

    async def link(self, name: str, up: bool) -> None:
        """Plug a node's cable in, or pull it; what runs there runs on.

        Raises:
            LabError: there is no such node.
        """
        network.link(self._plan(name), up=up)

    async def set_sick(self, name: str, *gpus: int) -> None:
        """Let the device plugin report these GPUs of a node as sick, and all others as well."""
        sick = self.folder / "nodes" / self._plan(name).name / "sick"
        sick.write_text("".join(f"gpu-{gpu}\n" for gpu in gpus))

    def has_power(self, name: str) -> bool:
        """Tell whether a node runs."""
        return self._init(name) is not None

    def init_of(self, name: str) -> int:
        """Return the pid, on the machine, of a node's PID 1.

        Raises:
            LabError: there is no such node, or it has no power.
        """
        if (init := self._init(name)) is None:
            raise LabError(
                f"node {name}: must have power (got: it has none);"
                f" `tramontane lab power on {name}` starts it"
            )
        return init

    def _init(self, name: str) -> int | None:
        self._plan(name)
        return next((pid for pid in cgroups.processes(name) if _inner_pids(pid) == [1]), None)

    def pids(self, name: str, pattern: str, *, daemons: bool = False) -> list[int]:
        """Return the processes, as the machine counts them, whose command line matches.

        Those of pods; with `daemons` those of the node itself: kubelet, containerd, its shims.

        Raises:
            LabError: there is no such node.
        """
        self._plan(name)
        pods = cgroups.processes(name, without=cgroups.DAEMONS)
        chosen = cgroups.processes(name) - pods if daemons else pods
        return sorted(pid for pid in chosen if re.search(pattern, _command_line(pid)))

    def signal(
        self, name: str, pattern: str, number: signal.Signals, *, daemons: bool = False
    ) -> list[int]:
        """Send a signal to the processes that `pids` returns; return their pids, never none.

        Raises:
            LabError: no process matches, or there is no such node.
        """
        pids = self.pids(name, pattern, daemons=daemons)
        if not pids:
            raise LabError(f"node {name}: a process must match {pattern!r} (got none); is it up?")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    async def exec_in(self, name: str, argv: Sequence[str]) -> str:
        """Run a command on a node, beside its kubelet; return what it printed.

        Raises:
            LabError: it failed, or the node has no power.
        """
        nsenter = which("nsenter")
        assert nsenter is not None, "machine() has looked for it"
        target = str(self.init_of(name))
        process = await asyncio.create_subprocess_exec(
            nsenter, "--target", target, "--mount", "--uts", "--net", "--pid", "--", *argv,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        if process.returncode != 0:
            raise LabError(
                f"node {name}: {argv[0]} must succeed (got exit code {process.returncode}):"
                f" {out.decode(errors='replace').strip()}"
            )
        return out.decode(errors="replace")

    def _plan(self, name: str) -> NodePlan:
        try:
            return self.plans[name]
        except KeyError:
            known = f"{self.names[0]} to {self.names[-1]}" if self.names else "none"
            raise LabError(f'node "{name}": must be a real node of the lab (got {known})') from None


def _inner_pids(pid: int) -> list[int]:
    """Return a process's pids in the namespaces below ours: [1] for a node's PID 1."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[2:]]
    return []


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    return ""
