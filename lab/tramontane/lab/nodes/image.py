"""The one image of real nodes, made here: no registry, no download.

A docker-archive with busybox as its only layer, under two names: the pause container of each pod,
and the base in which pods run that mount the machine's own Python.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from tramontane.lab.nodes.plan import IMAGE, PAUSE_IMAGE

_FOLDERS = ("bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sys", "usr", "var")
_PATH = "/usr/local/bin:/usr/bin:/bin"
# A PID 1 that heeds SIGTERM at once: a shell would wait for its child first.
_PAUSE = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"]


def write_image(path: Path, busybox: Path) -> None:
    """Write the archive of both images.

    Raises:
        OSError, subprocess.CalledProcessError: busybox cannot be read, or cannot list its applets.
    """
    applets = subprocess.run(  # noqa: S603 - the machine's own busybox
        [busybox, "--list"], capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()
    layer = _layer(busybox.read_bytes(), applets)
    digest = hashlib.sha256(layer).hexdigest()
    manifest = []
    with tarfile.open(path, "w") as archive:
        _add(archive, f"{digest}.tar", layer)
        for name, command in ((IMAGE, ["/bin/sh"]), (PAUSE_IMAGE, _PAUSE)):
            config = json.dumps(_config(digest, command)).encode()
            file = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(archive, file, config)
            manifest.append({"Config": file, "RepoTags": [name], "Layers": [f"{digest}.tar"]})
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(digest: str, command: list[str]) -> dict[str, object]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": [f"PATH={_PATH}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tramontane lab"}],
    }


def _layer(busybox: bytes, applets: list[str]) -> bytes:
    """Return the file system: busybox, a link for each of its commands, and empty folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        for folder in _FOLDERS:
            _folder(layer, folder, 0o755)
        _folder(layer, "tmp", 0o1777)
        _add(layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        _add(layer, "etc/group", b"root:x:0:\n")
        _add(layer, "bin/busybox", busybox, 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                layer.addfile(link)
    return out.getvalue()


def _folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    folder = tarfile.TarInfo(name)
    folder.type, folder.mode = tarfile.DIRTYPE, mode
    archive.addfile(folder)


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(data), mode
    archive.addfile(file, io.BytesIO(data))
