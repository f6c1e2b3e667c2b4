"""Start the agent of the blade that this process runs on: `python -m tramontane.health`.

In the DaemonSet the node's name comes from the downward API (`NODE_NAME`). Ready means that the
blade's state is known and written.
"""

import os
from pathlib import Path

import click

from tramontane.health import checks
from tramontane.health.agent import Agent
from tramontane.health.host import PROC, SYS
from tramontane.health.host_probe import HostProbe
from tramontane.health.kmsg import KERNEL_LOG
from tramontane.health.metrics import Metrics
from tramontane.health.probe import BOOT_ID_FILE, ChildProbe
from tramontane.kube.client import Client
from tramontane.kube.metrics import Detail
from tramontane.kube.process import Checks, ProcessOptions, StopEvent, process_options, run


@click.command()
@click.option(
    "--node-name",
    default=lambda: os.environ.get("NODE_NAME", ""),
    help="Name of the Node, and so of the Blade [default: NODE_NAME].",
)
@click.option("--nvml-library", help="Path of libnvidia-ml.so.1 [default: the linker's].")
@click.option(
    "--interval",
    "interval_s",
    default=0.5,
    show_default=True,
    type=click.FloatRange(min=0.05),
    help="Seconds between two looks at the state; events do not wait for it.",
)
@click.option(
    "--deadline",
    "deadline_s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds after which a silent NVML is a fault.",
)
@click.option(
    "--start-deadline",
    "start_deadline_s",
    default=20.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="The same while NVML starts.",
)
@click.option(
    "--disable-check",
    "disabled",
    multiple=True,
    type=click.Choice(sorted(checks.NAMES)),
    help="Switch a check off; may be repeated.",
)
@click.option(
    "--boot-id-file",
    default=BOOT_ID_FILE,
    type=click.Path(path_type=Path),
    help="Where the boot ID is read [default: the kernel's].",
)
@click.option(
    "--kernel-log",
    default=KERNEL_LOG,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the kernel's lines are read: a device, or a plain file.",
)
@click.option(
    "--sysfs-root",
    default=SYS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Root of sysfs.",
)
@click.option(
    "--proc-root",
    default=PROC,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Root of procfs.",
)
@click.option(
    "--host-interval",
    "host_interval_s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Seconds between two looks at the host: links, drives, memory, the PCI bus.",
)
@process_options
def main(
    *,
    options: ProcessOptions,
    node_name: str,
    nvml_library: str | None,
    interval_s: float,
    deadline_s: float,
    start_deadline_s: float,
    disabled: tuple[str, ...],
    boot_id_file: Path,
    kernel_log: Path,
    sysfs_root: Path,
    proc_root: Path,
    host_interval_s: float,
) -> None:
    """Watch the GPUs of one blade and report what is wrong with them."""
    if not node_name:
        raise click.UsageError("--node-name: must be the Node's name (got none); or set NODE_NAME")
    readiness = Checks()

    async def serve(stop: StopEvent) -> None:
        async with await Client.connect(user_agent="tramontane-agent", max_in_flight=4) as client:
            metrics = Metrics(low=options.metrics_detail is Detail.LOW)
            agent = Agent(
                node_name,
                ChildProbe(
                    interval_s=interval_s,
                    deadline_s=deadline_s,
                    start_deadline_s=start_deadline_s,
                    library=nvml_library,
                    boot_id_file=boot_id_file,
                    polled=metrics.polled,
                ),
                client,
                host_probe=HostProbe(
                    kernel_log=kernel_log,
                    sys=sysfs_root,
                    proc=proc_root,
                    boot_id_file=boot_id_file,
                    interval_s=host_interval_s,
                    looked=metrics.looked,
                ),
                namespace=options.namespace,
                disabled=frozenset(disabled),
                metrics=metrics,
            )
            readiness.add("report", lambda: agent.reported)
            await agent.run(stop)

    run(serve, options, readiness)


if __name__ == "__main__":
    main()
