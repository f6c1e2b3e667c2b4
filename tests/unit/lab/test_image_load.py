"""load.sh and install-cli.sh of the bundle, with stand-ins for the programs that they call."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tramontane.lab.image.recipe import RECIPES, ROOT

ONE, TWO = f"sha256:{'11' * 32}", f"sha256:{'22' * 32}"
# Writes down how it was called.
STAND_IN = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'
NEEDED = ("sh", "sha256sum", "dirname", "basename", "grep", "tr", "wc", "head", "sed", "cat")


@dataclass(frozen=True, slots=True)
class Bundle:
    folder: Path
    calls: Path
    path: Path

    def run(self, *argv: str, script: str = "load.sh", code: int = 0, **env: str) -> str:
        """Run a script somewhere else, with nothing on PATH but what it may need."""
        work = self.folder.parent / "work"
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            ["/bin/sh", self.folder / script, *argv],
            cwd=work,
            env={"PATH": str(self.path), "CALLS": str(self.calls), "HOME": str(work), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def values(self, name: str = "values-airgap.yaml") -> Any:
        return yaml.safe_load((self.folder.parent / "work" / name).read_text())

    def without(self, tool: str) -> None:
        (self.path / tool).unlink()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder, path = tmp_path / "bundle with blanks", tmp_path / "bin"
    for one in (folder / "images", folder / "chart", path):
        one.mkdir(parents=True)
    for tool in NEEDED:
        found = shutil.which(tool)
        assert found is not None
        (path / tool).symlink_to(found)
    for tool in ("skopeo", "ctr"):
        (path / tool).write_text(STAND_IN)
        (path / tool).chmod(0o755)
    shutil.copy(RECIPES / "load.sh", folder)
    (folder / "chart" / "tramontane-1.2.3.tgz").write_text("chart")
    for name in ("tramontane", "tramontane-agent"):
        (folder / "images" / f"{name}-1.2.3.oci.tar").write_text(name)
    (folder / "images.txt").write_text(
        f"# our two\ntramontane:1.2.3@{ONE}\ntramontane-agent:1.2.3@{TWO}\n"
    )
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    sums = [
        f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.relative_to(folder)}\n"
        for one in files
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return Bundle(folder, tmp_path / "calls", path)


def test_a_registry_gets_both_images_with_their_digests(bundle: Bundle) -> None:
    said = bundle.run("--registry", "hall:5000/gpu/")
    assert bundle.called() == [
        "skopeo copy --quiet --preserve-digests --dest-tls-verify=true"
        f" oci-archive:images/{name}-1.2.3.oci.tar:1.2.3 docker://hall:5000/gpu/{name}:1.2.3"
        for name in ("tramontane", "tramontane-agent")
    ]
    assert bundle.values() == {
        "image": {
            "registry": "hall:5000/gpu",
            "pullPolicy": "IfNotPresent",
            "repository": "tramontane",
            "tag": "1.2.3",
            "digest": ONE,
        },
        "agent": {"image": {"repository": "tramontane-agent", "tag": "1.2.3", "digest": TWO}},
    }
    assert "load.sh: 5 files are whole" in said
    assert "helm upgrade --install tramontane" in said
    assert f"{bundle.folder}/chart/tramontane-1.2.3.tgz" in said


def test_credentials_and_plain_http_reach_skopeo(bundle: Bundle) -> None:
    bundle.run("--registry", "hall", "--plain-http", "--authfile", "/a", "--values", "mine.yaml")
    assert "--dest-tls-verify=false --dest-authfile /a " in bundle.called()[0]
    assert bundle.values("mine.yaml")


def test_credentials_are_looked_for_where_one_stands(bundle: Bundle) -> None:
    bundle.run("--registry", "hall", "--authfile", "auth.json")
    auth = bundle.folder.parent / "work" / "auth.json"
    assert f" --dest-authfile {auth} " in bundle.called()[0]


def test_a_node_gets_both_images_under_tag_and_digest(bundle: Bundle) -> None:
    bundle.run("--containerd")
    ctr = "ctr --address /run/containerd/containerd.sock --namespace k8s.io images"
    name = "tramontane.local/tramontane"
    assert bundle.called()[:2] == [
        f"{ctr} import --base-name {name} images/tramontane-1.2.3.oci.tar",
        f"{ctr} tag --force {name}:1.2.3 {name}@{ONE}",
    ]
    assert len(bundle.called()) == 4
    image = bundle.values()["image"]
    assert (image["registry"], image["pullPolicy"]) == ("tramontane.local", "Never")


def test_containerd_may_be_elsewhere(bundle: Bundle) -> None:
    bundle.run("--containerd", "/run/k3s/containerd/containerd.sock", "--values", "v.yaml")
    assert bundle.called()[0].startswith("ctr --address /run/k3s/containerd/containerd.sock ")


def test_nothing_is_loaded_from_a_bundle_that_has_changed(bundle: Bundle) -> None:
    (bundle.folder / "images" / "tramontane-1.2.3.oci.tar").write_text("other")
    said = bundle.run("--registry", "hall", code=1)
    assert "must be what SHA256SUMS says" in said
    assert "tramontane-1.2.3.oci.tar: FAILED" in said
    assert bundle.called() == []


@pytest.mark.parametrize(
    "file", ["images.txt", "images/tramontane-1.2.3.oci.tar", "chart/tramontane-1.2.3.tgz"]
)
def test_nothing_is_loaded_that_no_checksum_speaks_for(bundle: Bundle, file: str) -> None:
    sums = bundle.folder / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if not line.endswith(f"  {file}\n")))
    (bundle.folder / file).write_text("other")
    assert f"(got no line for {file})" in bundle.run("--registry", "hall", code=1)
    assert bundle.called() == []


def test_a_missing_file_is_found_too(bundle: Bundle) -> None:
    (bundle.folder / "chart" / "tramontane-1.2.3.tgz").unlink()
    assert "tramontane-1.2.3.tgz" in bundle.run("--containerd", code=1)
    assert bundle.called() == []


def test_checking_alone_needs_no_tool_and_writes_nothing(bundle: Bundle) -> None:
    bundle.without("skopeo")
    assert "5 files are whole" in bundle.run("--check")
    assert list((bundle.folder.parent / "work").iterdir()) == []


@pytest.mark.parametrize(("mode", "tool"), [("--registry hall", "skopeo"), ("--containerd", "ctr")])
def test_a_missing_tool_is_named_with_its_package(bundle: Bundle, mode: str, tool: str) -> None:
    bundle.without(tool)
    assert f"{tool} must be on PATH (got none); install" in bundle.run(*mode.split(), code=1)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "must have --registry, --containerd or --check (got none of them)"),
        (["--registry"], "--registry: must have HOST/PATH (got none)"),
        (["--registry", ""], "--registry: must have HOST/PATH (got none)"),
        (["--registry", "--plain-http"], "--registry: must have HOST/PATH (got --plain-http)"),
        (["--registry", "https://hall"], "must be HOST/PATH without a scheme (got https://hall)"),
        (["--registry", "/"], "must be HOST/PATH without a scheme (got /)"),
        (["--registry", "hall", "--authfile", "--check"], "must have a file (got --check)"),
        (["--check", "--values"], "--values: must have a file (got none)"),
        (["--tls"], "must be one of the options (got --tls)"),
    ],
)
def test_wrong_use_is_told(bundle: Bundle, argv: list[str], said: str) -> None:
    assert said in bundle.run(*argv, code=2)
    assert bundle.called() == []


def test_a_registry_that_refuses_ends_it(bundle: Bundle) -> None:
    (bundle.path / "skopeo").write_text("#!/bin/sh\nexit 1\n")
    assert "hall must take tramontane" in bundle.run("--registry", "hall", code=1)
    assert not (bundle.folder.parent / "work" / "values-airgap.yaml").exists()


def test_help_names_every_option(bundle: Bundle) -> None:
    said = bundle.run("--help")
    options = ("--registry", "--plain-http", "--authfile", "--containerd", "--check", "--values")
    assert [one for one in options if one not in said] == []


def test_the_command_line_says_which_pythons_it_has_wheels_for(bundle: Bundle) -> None:
    shutil.copy(RECIPES / "install-cli.sh", bundle.folder)
    (bundle.folder / "pythons.txt").write_text("2.7\n2.8\n")
    said = bundle.run(script="install-cli.sh", code=1, PYTHON=os.path.realpath("/usr/bin/python3"))
    assert "Python must be one of 2.7 2.8 on x86-64 Linux (got /usr/bin/python3" in said
    told = bundle.run(script="install-cli.sh", code=1)
    page, _, heading = told.split()[-1].partition(".html#")
    assert f"\n## {heading.replace('-', ' ').capitalize()}\n" in (ROOT / f"{page}.md").read_text()
    assert "exec" not in told, "the operator's account may not do what a person does"
