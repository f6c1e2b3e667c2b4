"""Commands are taken where they are usable and built where they are not, once."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tramontane.lab import binaries, gobuild
from tramontane.lab.binaries import _WHO_HOLDS, BINARIES, minor_of, version_in
from tramontane.lab.paths import GO_MODULES

EDITED = _WHO_HOLDS.file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it: folders assets, cache and path."""
    for name in ("assets", "cache", "path"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("TRAMONTANE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: _which(tmp_path, name))
    return tmp_path


def _which(machine: Path, name: str) -> str | None:
    path = machine / "path" / name
    return str(path) if path.exists() else None


def command(folder: Path, name: str, says: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


FAKE_GO = """#!{python}
import pathlib, sys
arguments = sys.argv[1:]
if arguments[0] != "build":
    print("{source}" if arguments[0] == "list" else "")
    sys.exit(0)
target = arguments[arguments.index("-o") + 1]
given = [target, *(word for flag, word in zip(arguments, arguments[1:]) if flag == "-modfile")]
packages = [word for word in arguments if "/" in word and word not in given and "=" not in word]
print("go: downloading something", file=sys.stderr)
print("internal/abi", file=sys.stderr)
if "{fail}":
    print("boom.go:1: no space left", file=sys.stderr)
    sys.exit(2)
for package in packages:
    name = package.rsplit("/", 1)[1]
    path = pathlib.Path(target) / name if target.endswith("/") else pathlib.Path(target)
    path.write_text("#!/bin/sh\\n")
    path.chmod(0o755)
with open("{log}", "a") as log:
    print(*packages, file=log)
"""


def fake_go(machine: Path, fail: str = "") -> Path:
    log = machine / "go.log"
    path = machine / "path" / "go"
    source = machine / "source"
    if not source.exists():
        (source / "pkg/utils/heap").mkdir(parents=True)
        (source / "pkg/utils/heap/heap.go").write_text("package heap")
        (source / EDITED).parent.mkdir(parents=True)
        (source / EDITED).write_text(f"1 {_WHO_HOLDS.old} 2")
    path.write_text(FAKE_GO.format(python=sys.executable, log=log, fail=fail, source=source))
    path.chmod(0o755)
    return log


@pytest.mark.parametrize(
    ("text", "version"),
    [
        pytest.param("Kubernetes v1.35.4", (1, 35), id="kubernetes"),
        pytest.param("etcd Version: 3.6.16\nGit SHA: abc", (3, 6), id="etcd"),
        pytest.param("kwok version v0.8.0 go1.26.8 (linux/amd64)", (0, 8), id="kwok"),
        pytest.param("Client Version: v1.32.3\nKustomize Version: v5.5.0", (1, 32), id="kubectl"),
        pytest.param("v4.3.1+g123", (4, 3), id="helm"),
        pytest.param("command not found", None, id="none"),
    ],
)
def test_versions_are_read_from_what_commands_print(
    text: str, version: tuple[int, int] | None
) -> None:
    found = version_in(text)
    assert (found and minor_of(found)) == version


@pytest.mark.parametrize(
    ("name", "says", "usable"),
    [
        pytest.param("kube-apiserver", "Kubernetes v1.35.1", True, id="same-minor"),
        pytest.param("kube-apiserver", "Kubernetes v1.34.9", False, id="other-minor"),
        pytest.param("kubectl", "Client Version: v1.34.0", True, id="kubectl-one-off"),
        pytest.param("kubectl", "Client Version: v1.32.0", False, id="kubectl-three-off"),
        pytest.param("etcd", "etcd Version: 3.5.21", True, id="older-etcd"),
        pytest.param("etcd", "etcd Version: 3.4.3", False, id="too-old-etcd"),
        pytest.param("kwok", "kwok version v0.8.0", False, id="kwok-whose-heartbeats-stop"),
        pytest.param("helm", "v3.19.0", False, id="helm-3"),
    ],
)
def test_a_command_on_the_machine_must_be_of_a_usable_version(
    machine: Path, name: str, says: str, *, usable: bool
) -> None:
    there = command(machine / "path", name, says)
    assert binaries.find(name) == (there if usable else None)


@pytest.mark.parametrize(
    ("name", "says", "why"),
    [
        pytest.param("kubectl", "Client Version: v1.32.4", "is 1.32.4, must be 1.34 to 1.36"),
        pytest.param("kubelet", "Kubernetes v1.34.9", "is 1.34.9, must be 1.35"),
        pytest.param("etcd", "etcd Version: 3.4.3", "is 3.4.3, must be 3.5 or newer"),
        pytest.param("coredns", "CoreDNS-1.10.1", "is 1.10.1, must be 1.11 or newer"),
        pytest.param("helm", "v3.19.0", "is 3.19.0, must be 4"),
        pytest.param("helm3", "v4.1.0", "is 4.1.0, must be 3"),
        pytest.param("promtool", "promtool, version 2.53.0", "is 2.53.0, must be 3"),
        pytest.param("kwok", "kwok version v0.8.0", "is 0.8.0, must be this checkout's own build"),
        pytest.param("etcd", "", "is of an unknown version, must be 3.5 or newer"),
    ],
)
def test_what_is_there_and_will_not_do_is_named_with_the_reason(
    machine: Path, name: str, says: str, why: str
) -> None:
    there = command(machine / "path", name, says)
    assert list(binaries.unfit(BINARIES[name])) == [f"{there} {why}"]


def test_a_build_of_what_is_there_says_why(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = command(machine / "path", "kubectl", "Client Version: v1.32.4")
    why = f"{there} is 1.32.4, must be 1.34 to 1.36"
    with pytest.raises(gobuild.BuildFailed, match=re.escape(f"(got {why}; no `go` on PATH)")):
        binaries.ensure(["kubectl"])
    fake_go(machine)
    binaries.ensure(["kubectl"])
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first == f"build: kubectl: {why}; building"
    assert second.startswith("build: kubectl: once, about ")


def test_what_is_nowhere_needs_no_reason(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_go(machine)
    binaries.ensure(["etcd"])
    assert capsys.readouterr().err.startswith("build: etcd: once, about ")


def test_assets_and_path_each_have_their_reason(machine: Path) -> None:
    old = [command(machine / where, "etcd", "etcd Version: 3.4.3") for where in ("assets", "path")]
    assert [line.split(" is ")[0] for line in binaries.unfit(BINARIES["etcd"])] == [
        str(path) for path in old
    ]


def test_assets_come_before_the_path(machine: Path) -> None:
    command(machine / "path", "etcd", "etcd Version: 3.6.16")
    asset = command(machine / "assets", "etcd", "etcd Version: 3.6.16")
    assert binaries.find("etcd") == asset


def test_what_is_built_once_is_not_built_again(machine: Path) -> None:
    log = fake_go(machine)
    wanted = ("etcd", "kube-apiserver", "kwok", "kube-controller-manager")
    paths = binaries.ensure(wanted)
    assert paths == {name: machine / "cache" / "bin" / name for name in wanted}
    assert log.read_text().splitlines() == [
        "go.etcd.io/etcd/server/v3",
        "k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager",
        "sigs.k8s.io/kwok/cmd/kwok",
    ], "one build per module"
    assert binaries.ensure(wanted) == paths
    assert len(log.read_text().splitlines()) == 3


def test_what_is_mended_is_built_from_a_copy_with_our_files(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(machine)
    seen: dict[str, str] = {}
    real = gobuild._mended

    def spy(go: str, module: binaries.Module, folder: Path) -> list[str]:
        flags = real(go, module, folder)
        for file in folder.rglob("*"):
            if file.is_file():
                seen[str(file.relative_to(folder))] = file.read_text()
        return flags

    monkeypatch.setattr(gobuild, "_mended", spy)
    binaries.ensure(["kwok"])
    [ours] = BINARIES["kwok"].module.mending
    assert seen["mended/pkg/utils/heap/heap.go"] == ours.read_text()
    assert "replace sigs.k8s.io/kwok => " in seen["go.mod"]
    assert (machine / "source/pkg/utils/heap/heap.go").read_text() == "package heap"
    assert seen[f"mended/{EDITED}"] == f"1 {_WHO_HOLDS.new} 2"


def test_what_is_not_what_we_mend_is_not_built(machine: Path) -> None:
    fake_go(machine)
    (machine / "source" / EDITED).write_text("another version")
    with pytest.raises(gobuild.BuildFailed, match=r"controller\.go must have 'ReadOnlyFunc"):
        binaries.ensure(["kwok"])


def test_another_version_is_built_anew(machine: Path) -> None:
    fake_go(machine)
    binaries.ensure(["etcd"])
    BINARIES["etcd"].stamp_file.write_text("etcd-3.5.0-0123456789ab")
    assert binaries.find("etcd") is None


def test_a_failed_build_shows_the_end_of_its_output_and_keeps_nothing(machine: Path) -> None:
    fake_go(machine, fail="yes")
    with pytest.raises(gobuild.BuildFailed, match="no space left") as failed:
        binaries.ensure(["etcd"])
    assert "run it again" in str(failed.value)
    assert list((machine / "cache" / "bin").iterdir()) == []


@pytest.mark.usefixtures("machine")
def test_without_go_it_says_what_to_do() -> None:
    with pytest.raises(gobuild.BuildFailed, match=r"install Go, or point KUBEBUILDER_ASSETS"):
        binaries.ensure(["etcd", "kwok"])


SLOW_GO = """#!/bin/sh
for word; do [ "$last" = -o ] && target=$word; last=$word; done
while [ ! -e "{go_on}" ]; do echo a/package >&2; sleep 0.02; done
echo "#!/bin/sh" > "$target"
chmod +x "$target"
"""
OTHER = "from tramontane.lab import binaries as b, gobuild as g; g._LOCK_EVERY_S = 0; b.ensure"


def test_who_waits_for_another_s_build_says_how_far_that_is(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, go_on, go = (machine / name for name in ("cache/build.lock", "go-on", "path/go"))
    go.write_text(SLOW_GO.format(go_on=go_on))
    go.chmod(0o755)
    monkeypatch.setattr(gobuild, "_PLAIN_EVERY_S", 0.02)
    monkeypatch.setattr(gobuild, "_LOCK_EVERY_S", 0.01)
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        if "%" in line or len(heard) > 500:
            go_on.touch()

    monkeypatch.setattr(gobuild, "_say", hear)
    other = subprocess.Popen([sys.executable, "-c", f"{OTHER}(['etcd'])"])
    try:
        while not (lock.exists() and lock.read_text()) and other.poll() is None:
            time.sleep(0.01)
        binaries.ensure(["etcd"])
    finally:
        go_on.touch()
        assert other.wait(10) == 0
    who = f"waiting: process {other.pid} builds etcd"
    assert heard[0].startswith(who)
    assert re.fullmatch(rf"{who}: \d+ % after 0:\d\d, etcd: a/package", heard[-1])
    assert lock.read_text() == ""


def test_what_a_killed_build_left_in_the_lock_is_told_to_nobody(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "cache" / "build.lock").write_text("process 1 builds etcd: 99 %")
    heard: list[str] = []
    monkeypatch.setattr(gobuild, "_say", heard.append)
    with gobuild._lock():
        assert (machine / "cache" / "build.lock").read_text() == ""
    assert heard == []


def test_every_go_module_names_its_commands() -> None:
    for binary in BINARIES.values():
        assert binary.module.version in (binary.module.folder / "go.mod").read_text()
        if binary.package.startswith("."):
            assert "package main" in (binary.module.folder / binary.package / "main.go").read_text()
        else:
            assert f'"{binary.package}"' in (binary.module.folder / "tools.go").read_text()


def test_a_change_of_our_own_source_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = BINARIES["deviceplugin"]
    before, module = ours.key(), ours.module.key()
    shutil.copytree(ours.module.folder, tmp_path / ours.module.name)
    monkeypatch.setattr(binaries, "GO_MODULES", tmp_path)
    assert ours.key() == before
    (ours.module.folder / "deviceplugin" / "main.go").write_text("package main // another")
    assert ours.key() != before
    assert ours.module.key() == module, "the rest of the module is not built again for that"


def test_what_is_not_ours_is_named_by_its_module() -> None:
    assert BINARIES["kubelet"].key() == BINARIES["kube-apiserver"].key()
    assert BINARIES["deviceplugin"].key().startswith(BINARIES["kubelet"].key())


def test_go_formats_its_files() -> None:
    gofmt = shutil.which("gofmt")
    if gofmt is None:
        return
    files = [str(path) for path in GO_MODULES.rglob("*.go")]
    done = subprocess.run([gofmt, "-l", *files], capture_output=True, text=True, check=True)
    assert done.stdout == ""
