"""What runs on real nodes: pods and TrainingJob templates over the machine's own Python.

The image of the nodes has nothing but busybox. Everything else is mounted from the machine, read
only: its libraries, the Python that runs the tests, and the virtual environment's packages. Only
the shared folder, which stands for the file system with the checkpoints, can be written.
"""

import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tramontane.lab.nodes.plan import IMAGE

PYTHON = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
CPU, MEMORY = "50m", "64Mi"  # small: all nodes share one machine


def _mounts(*read_only: Path, shared: Path | None) -> list[tuple[str, Path, str, bool]]:
    """Return (name, path on the machine, path in the pod, read only)."""
    machine = [
        ("usr", Path("/usr"), "/usr"),
        ("lib", Path("/usr/lib"), "/lib"),
        ("lib64", Path("/usr/lib64"), "/lib64"),
        ("python", Path(sys.base_prefix), sys.base_prefix),
        ("packages", Path(sysconfig.get_path("purelib")), sysconfig.get_path("purelib")),
        *((f"folder-{index}", folder, str(folder)) for index, folder in enumerate(read_only)),
    ]
    seen: dict[str, tuple[str, Path, str, bool]] = {}
    for name, path, inside in machine:
        if path.is_dir() and (inside == "/usr" or not Path(inside).is_relative_to("/usr")):
            seen.setdefault(inside, (name, path, inside, True))
    if shared is not None:  # last, for it may lie in a folder that is mounted read only
        seen[str(shared)] = ("shared", shared, str(shared), False)
    return list(seen.values())


def pod_spec(
    *command: str,
    env: Mapping[str, str] | None = None,
    read_only: tuple[Path, ...] = (),
    shared: Path | None = None,
    container: str = "trainer",
) -> dict[str, Any]:
    """Return a PodSpec in which `command` runs over the machine's Python (`python3` on PATH).

    Folders are at the same paths in the pod as on the machine.
    """
    mounts = _mounts(*read_only, shared=shared)
    environment = {
        "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(env or {}),
    }
    return {
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [
            {
                "name": container,
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": list(command),
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "resources": {"requests": {"cpu": CPU, "memory": MEMORY}},
                "volumeMounts": [
                    {"name": name, "mountPath": inside, "readOnly": read_only}
                    for name, _, inside, read_only in mounts
                ],
            }
        ],
        "volumes": [
            {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
            for name, path, _, _ in mounts
        ],
    }


def trainer_template(script: Path, *, env: dict[str, str], shared: Path) -> dict[str, Any]:
    """Return a TrainingJob's pod template: `python3 script`, with the folder for checkpoints.

    The script's own folder is mounted read only, so modules beside it can be imported.
    """
    spec = pod_spec("python3", str(script), env=env, read_only=(script.parent,), shared=shared)
    return {"spec": spec}
