"""What a machine must have for real nodes, and where it has it.

The lab installs nothing by itself: it says what is missing and how to get it.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.nodes import cgroups
from tramontane.lab.paths import LabError

PACKAGES = "containerd runc containernetworking-plugins busybox-static iproute2 iptables"
INSTALL = f"apt-get update && apt-get install -y {PACKAGES}"  # on Debian
_CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
_CNI_PLUGINS = ("bridge", "host-local", "loopback")
_COMMANDS = ("containerd", "ctr", "runc", "ip", "iptables", "nsenter", "unshare", "bash", "mount")
# An ordinary user's PATH may lack them, and so may that of a service.
_MORE = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the machine has what nodes need."""

    containerd: Path
    ctr: Path
    busybox: Path
    cni: Path


def which(name: str) -> Path | None:
    """Return where a command is, the folders of the administrator's commands included."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_MORE}")
    return Path(found) if found else None


def lacking() -> tuple[str, ...]:
    """Return what this machine lacks for real nodes, each in a few words; empty: nothing."""
    return (*lacking_rights(), *lacking_packages())


def lacking_packages() -> tuple[str, ...]:
    """Return which programs are missing: what installing can mend."""
    lacks = [name for name in _COMMANDS if which(name) is None]
    if _cni() is None:
        lacks.append("CNI plugins (bridge, host-local, loopback)")
    if _busybox() is None:
        lacks.append("a statically linked busybox")
    return tuple(lacks)


def lacking_rights() -> tuple[str, ...]:
    """Return what this process may not do here; root in a container may lack some of it."""
    if not sys.platform.startswith("linux"):
        return ("Linux",)
    if os.geteuid() != 0:
        return ("root",)
    lacks = []
    unshare = which("unshare")
    if unshare is not None:
        argv: list[str | Path] = [unshare, "--mount", "--net", "--uts", "--pid", "--fork", "true"]
        if subprocess.run(argv, capture_output=True, check=False).returncode != 0:  # noqa: S603
            lacks.append("the right to make namespaces")
    if not all(os.access(root, os.W_OK) for root in cgroups.hierarchies()):
        lacks.append("writable cgroups")
    return tuple(lacks)


def machine() -> Machine:
    """Return where everything is.

    Raises:
        LabError: something is missing.
    """
    if lacks := lacking():
        raise LabError(
            f"real nodes: the machine must have containers and root (got none of"
            f" these: {', '.join(lacks)}); run as root after `{INSTALL}`, or use simulated"
            " blades only"
        )
    containerd, ctr, busybox, cni = which("containerd"), which("ctr"), _busybox(), _cni()
    assert containerd is not None
    assert ctr is not None
    assert busybox is not None
    assert cni is not None
    return Machine(containerd, ctr, busybox, cni)


def _cni() -> Path | None:
    for folder in _CNI_FOLDERS:
        if all((folder / plugin).is_file() for plugin in _CNI_PLUGINS):
            return folder
    return None


def _busybox() -> Path | None:
    """Return a busybox that needs no libraries."""
    path = which("busybox")
    if path is None or not _is_static(path):
        return None
    return path


def _is_static(path: Path) -> bool:
    """Tell whether a program runs without a loader: in an image that has nothing but itself."""
    ldd = which("ldd")
    if ldd is None:
        return True  # the first pod will tell
    listed = subprocess.run(  # noqa: S603 - the machine's own command
        [ldd, path], capture_output=True, text=True, timeout=10, check=False
    )
    return "=>" not in listed.stdout
