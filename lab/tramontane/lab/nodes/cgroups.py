"""The cgroups of real nodes: made in every hierarchy, searched for processes, removed.

On a machine with cgroup v1 there is a hierarchy per controller, and often the unified one beside
them, in which runc puts containers too; with cgroup v2 there is only that.

    <hierarchy>/tramontane-lab/real-0001/daemons    containerd, kubelet, device plugin
    <hierarchy>/tramontane-lab/real-0001/kubepods   made by the kubelet
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tramontane.lab.nodes.plan import CGROUP
from tramontane.lab.paths import LabError

DAEMONS = "daemons"
_INHERITED = ("cpuset.cpus", "cpuset.mems")  # empty in a new v1 cpuset, which then takes nobody
_PATIENCE_S = 15.0
_POLL_S = 0.02


def hierarchies(mounts: Path = Path("/proc/self/mounts")) -> tuple[Path, ...]:
    """Return where the machine's cgroup hierarchies are mounted."""
    fields = (line.split() for line in mounts.read_text().splitlines())
    return tuple(Path(one[1]) for one in fields if one[2] in {"cgroup", "cgroup2"})


def make(node: str) -> tuple[Path, ...]:
    """Make a node's cgroups; return those that its daemons must join.

    Raises:
        LabError: the machine does not let us.
    """
    joined = []
    for root in hierarchies():
        folder = root
        for part in (CGROUP, node, DAEMONS):
            _delegate(folder)
            folder /= part
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise LabError(
                    f"real nodes: cgroups must be writable (got {error}); start the lab on the"
                    " machine itself or in a privileged container"
                ) from error
            _inherit(folder)
        joined.append(folder)
    return tuple(joined)


def _inherit(folder: Path) -> None:
    """Copy what a new v1 cpuset does not have by itself."""
    for name in _INHERITED:
        with contextlib.suppress(OSError):
            file = folder / name
            if not file.read_text().strip():
                file.write_text((folder.parent / name).read_text())


def _delegate(folder: Path) -> None:
    """Let the children of a v2 cgroup have the controllers that it has."""
    with contextlib.suppress(OSError):
        for controller in (folder / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def processes(node: str = "", *, without: str = "") -> set[int]:
    """Return the processes of one node, or of all; those in the cgroup `without` are left out."""
    found: set[int] = set()
    skipped: set[int] = set()
    for folder in _tree(node):
        with contextlib.suppress(OSError):
            pids = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
            found |= pids
            if without and without in folder.parts:
                skipped |= pids
    return found - skipped - {0}


def _tree(node: str) -> Iterator[Path]:
    """Yield the cgroups of a node or of all, each after those that are in it."""
    for root in hierarchies():
        for folder, _, _ in os.walk(root / CGROUP / node, topdown=False):
            yield Path(folder)


def kill_all() -> None:
    """Kill every process of every node and return when they are gone.

    Raises:
        LabError: one does not go.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while left := processes():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LabError(
                f"real nodes: all their processes must end within {_PATIENCE_S:.0f} s of SIGKILL"
                f" (got {len(left)} that do not, {min(left)} first); look at its state in"
                f" /proc/{min(left)}/stack, then run `tramontane lab down` again"
            )
        time.sleep(_POLL_S)


def remove(node: str = "") -> None:
    """Remove the cgroups of one node, or of all; nothing may run in them.

    Raises:
        LabError: one cannot be removed.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while failed := _rmdirs(_tree(node)):
        if time.monotonic() > deadline:
            raise LabError(
                f"real nodes: their cgroups must be removable (got {failed[0]});"
                " run `tramontane lab down` again"
            )
        time.sleep(_POLL_S)


def _rmdirs(folders: Iterable[Path]) -> list[str]:
    failed = []
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:  # a process that has just ended may still be counted
            failed.append(f"{folder}: {error.strerror}")
    return failed
