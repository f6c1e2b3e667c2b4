"""Start what a lab runs in processes of its own: our modules, agents, and its real nodes again.

Nothing here needs the `Lab` that started the rest: commands that give orders to a lab that is up
come with no more than its folder.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from tramontane.lab.description import Description
from tramontane.lab.hall import agent_process, boot_file, state_file
from tramontane.lab.nodes import RealNodes
from tramontane.lab.paths import cache_dir
from tramontane.lab.processes import Processes


def start_python(
    processes: Processes, process: str, module: str, *arguments: str, env: Mapping[str, str]
) -> None:
    """Start a module of ours as a process of a lab, with the lab's kubeconfig."""
    environment = {"KUBECONFIG": str(processes.folder / "kubeconfig"), "PYTHONUNBUFFERED": "1"}
    processes.start(
        process,
        [sys.executable, "-P", "-m", module, *arguments],
        env=environment | dict(env),
        gentle=True,
    )


def start_agent(
    processes: Processes,
    name: str,
    namespace: str,
    *,
    log_level: str = "info",
    metrics_port: int = 0,
    arguments: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """Start the health agent of a blade of a lab, over the simulated NVML library."""
    from tramontane.lab.nvml import build  # noqa: PLC0415 - needs a C compiler

    folder = processes.folder
    start_python(
        processes, agent_process(name), "tramontane.health", "--node-name", name,
        "--nvml-library", str(build(cache_dir())), "--namespace", namespace,
        "--boot-id-file", str(boot_file(folder, name)),
        "--metrics-port", str(metrics_port), "--log-level", log_level, *arguments,
        env={**(env or {}), "TRAMONTANE_NVML_STATE": str(state_file(folder, name))},
    )  # fmt: skip


def real_nodes(folder: Path) -> RealNodes:
    """Return the real nodes of the lab that `tramontane lab up` has started in `folder`.

    Raises:
        LabError: no lab was started there.
    """
    description, processes = Description.load(folder), Processes.load(folder)
    agents = set(description.real_agents)

    def restart_agent(name: str) -> None:
        if name in agents:
            start_agent(processes, name, description.namespace)

    return RealNodes(
        folder, processes, description.layout, description.real_nodes, start_agent=restart_agent
    )
