"""Start what must start in a built image: its root in a folder, without a network.

Not a container: namespaces and chroot, so that it runs wherever an image can be built. As root the
image's own user runs it; else a user namespace, whose only user is root in there.
"""

import gzip
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tramontane.lab.image.build import Built
from tramontane.lab.image.recipe import read_recipe
from tramontane.lab.image.tree import USER
from tramontane.lab.paths import LabError

_TIMEOUT_S = 120
# Every module, so that all they ask for is in the image. Those below podfiles are for other pods,
# and of the lab there is only what commands play halls with: the recipe tries that.
_EVERY_MODULE = """
import importlib, pkgutil, tramontane
found = [one.name for one in pkgutil.walk_packages(tramontane.__path__, "tramontane.")]
names = [name for name in found if ".podfiles." not in name and ".lab." not in name]
for name in names:
    importlib.import_module(name)
print(len(names), "modules")
"""


def lacking() -> str:
    """Return why nothing can be started here; empty where it can."""
    if not (shutil.which("unshare") and shutil.which("chroot")):
        return "needs `unshare` and `chroot`; install util-linux and coreutils"
    done = subprocess.run([*_outside(), "true"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stderr.strip() and f"needs namespaces: {done.stderr.strip()}"


def smoke(image: Built) -> Iterator[str]:
    """Import every module in the image, and run the recipe's commands; yield a line on each.

    Raises:
        LabError: one failed.
    """
    recipe = read_recipe(image.name)
    with tempfile.TemporaryDirectory(prefix="tramontane-smoke-") as scratch:
        root = Path(scratch) / "root"
        environment = unpack(image.archive, root)
        root.chmod(0o755)
        Path(scratch).chmod(0o755)
        _, said = _run(root, environment, ("python", "-c", _EVERY_MODULE))
        yield f"imports {said}"
        for command in recipe.smoke:
            took_s, said = _run(root, environment, command)
            yield f"`{' '.join(command)}` in {took_s:.2f} s: {said}"


def unpack(archive: Path, root: Path) -> dict[str, str]:
    """Unpack an image's layers into a folder; return its environment."""
    root.mkdir(parents=True)
    with tarfile.open(archive) as blobs:

        def blob(digest: str) -> bytes:
            file = blobs.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            return file.read()

        [entry] = json.loads(_member(blobs, "index.json"))["manifests"]
        manifest = json.loads(blob(entry["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        for layer in manifest["layers"]:
            file = blobs.extractfile(f"blobs/{layer['digest'].replace(':', '/')}")
            assert file is not None
            with (
                gzip.GzipFile(fileobj=file) as plain,
                tarfile.open(fileobj=plain, mode="r|") as one,
            ):
                one.extractall(root, filter="fully_trusted", numeric_owner=True)  # noqa: S202 - we wrote it
    return dict(one.split("=", 1) for one in config["config"]["Env"])


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _run(root: Path, environment: dict[str, str], command: tuple[str, ...]) -> tuple[float, str]:
    user = [f"--userspec={USER}:{USER}"] if os.geteuid() == 0 else []
    began = time.monotonic()
    done = subprocess.run(  # noqa: S603 - what we have just built
        [*_outside(), "chroot", *user, root, *command],
        env=environment | {"PATH": f"{environment['PATH']}:{os.environ.get('PATH', os.defpath)}"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"image: `{' '.join(command).strip()}` must end well in it (got exit code"
            f" {done.returncode}): {done.stderr.strip()[-1000:]}"
        )
    return time.monotonic() - began, (done.stdout or done.stderr).strip().splitlines()[0]


def _outside() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *as_root, "--net", "--mount"]
