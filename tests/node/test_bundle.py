"""The air-gap bundle: made twice it is the same, and a hall without a network is served from it.

What happens in the hall stands in `bundled.py`, which runs in a network namespace that has nothing
but `lo`. `BUNDLE=build/tramontane-0.2.0-airgap.tar` takes a bundle that is there already.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node import airgap
from tramontane.lab.binaries import CONTROL_PLANE, REAL_NODES, ensure
from tramontane.lab.bundle.pack import pack
from tramontane.lab.image import debian
from tramontane.lab.image.build import Built, build
from tramontane.lab.image.layer import sha256_of

ROOT = Path(__file__).parents[2]
HALL = Path(__file__).with_name("bundled.py")
TOOLS = {"skopeo": "skopeo", "docker-registry": "docker-registry"}
ENV = "BUNDLE"

# A first helm, and the images, are built in fixtures.
pytestmark = [pytest.mark.node, pytest.mark.timeout(600, func_only=True)]


@dataclass(frozen=True, slots=True)
class Made:
    bundle: Path
    images: tuple[Built, ...] = ()  # none where the bundle was there


@pytest.fixture(scope="module")
def _tools() -> None:
    lacks = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not os.environ.get(ENV):
        lacks += debian.lacking()
    if lacks:
        reason = f"the bundle needs {', '.join(lacks)}; apt-get install {' '.join(TOOLS.values())}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} {debian.APT_PACKAGES}", pytrace=False)
        pytest.skip(f"{reason} {debian.APT_PACKAGES}")
    ensure((*CONTROL_PLANE, *REAL_NODES, "kube-scheduler", "helm"))


@pytest.fixture(scope="module")
def made(_able: None, _tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The bundle of this checkout; Debian may have mended something since the lock was written."""
    if there := os.environ.get(ENV):
        yield Made(Path(there).resolve())
        return
    out = tmp_path_factory.mktemp("bundle")
    images = build(out / "images", accept_newer=True, say=print)
    yield Made(pack(out, images=images, say=print), images)


def test_a_hall_without_a_network_is_served_from_the_bundle(made: Made) -> None:
    if reason := airgap.lacking():
        pytest.skip(f"a network namespace {reason}")
    argv = [sys.executable, airgap.__file__, "-q", "-rP", "-n", "0", str(HALL)]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, ENV: str(made.bundle)},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    assert last == "airgap: interfaces: lo; routes: 0; packets to port 53: 0 []"


def test_what_is_built_twice_is_the_same(made: Made, tmp_path: Path) -> None:
    if not made.images:
        pytest.skip(f"{ENV} names a bundle that another run has made")
    again = build(tmp_path / "images", accept_newer=True)
    assert [one.reference for one in again] == [one.reference for one in made.images]
    assert [sha256_of(one.sbom) for one in again] == [sha256_of(one.sbom) for one in made.images]
    assert sha256_of(pack(tmp_path, images=again)) == sha256_of(made.bundle)
