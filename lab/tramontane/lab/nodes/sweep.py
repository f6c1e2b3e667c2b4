"""Remove all that real nodes are on a machine, whatever state they are in.

It needs no memory of what was started: processes are known by their cgroups, links and namespaces
by their names, and folders that were made on the machine stand in the claim. So it works as well
after a crash, and a second time.
"""

import contextlib
import time
from pathlib import Path

from tramontane.lab.nodes import cgroups, claim, network
from tramontane.lab.nodes.claim import CLAIM, Claim
from tramontane.lab.nodes.config import MOUNTS
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes

_DYING_S = 5.0
_POLL_S = 0.05


def take(folder: Path, path: Path = CLAIM) -> None:
    """Claim the machine for the lab in `folder`; what a lab that has died left is swept up first.

    Raises:
        LabError: another lab has real nodes here, or somebody else has what they need.
    """
    with claim.locked(path):
        if (old := claim.read(path)) is not None:
            if _lives(old):
                raise LabError(
                    f"real nodes: only one lab on a machine may have them (got the one in"
                    f" {old.folder}, which runs); `tramontane lab down --dir {old.folder}` stops it"
                )
            _remove(old, path)
        network.check_free()
        points = (*(Path(point) for point, _ in MOUNTS), network.NAMESPACES)
        missing = tuple(str(point) for point in points if not point.exists())
        claim.write(Claim.mine(folder.resolve(), missing), path)
        for point in missing:
            Path(point).mkdir(parents=True)


def sweep(folder: Path, path: Path = CLAIM) -> bool:
    """Remove the real nodes of the lab in `folder`; tell whether there was anything of it.

    Raises:
        LabError: something cannot be removed.
    """
    if claim.read(path) is None:  # without even a look at /run's lock, for those who are not root
        return False
    with claim.locked(path):
        old = claim.read(path)
        if old is None or old.folder != folder.resolve():
            return False
        _remove(old, path)
        return True


def _lives(old: Claim) -> bool:
    """Tell whether anything of a lab runs; one whose process was killed is given time to die."""
    deadline = time.monotonic() + _DYING_S
    while not old.claimer_lives() and time.monotonic() < deadline:
        if not (cgroups.processes() or Processes.load(old.folder).running()):
            return False
        time.sleep(_POLL_S)
    return True


def _remove(old: Claim, path: Path) -> None:
    cgroups.kill_all()
    network.remove()
    cgroups.remove()
    for point in old.made:
        folder = Path(point)
        with contextlib.suppress(OSError):  # somebody else uses it by now
            if folder == network.NAMESPACES and not any(folder.iterdir()):
                network.unmount_namespaces()
            folder.rmdir()
    claim.drop(path)
