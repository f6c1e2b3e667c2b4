"""What real nodes make on a machine, and what they ask of it."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tramontane.cli.main import main
from tramontane.lab import demo_serve
from tramontane.lab.description import Description
from tramontane.lab.fleet import Layout
from tramontane.lab.nodes import RealNodes, cgroups, claim, machine, network, sweep
from tramontane.lab.nodes.claim import Claim
from tramontane.lab.nodes.image import write_image
from tramontane.lab.nodes.plan import IMAGE, PAUSE_IMAGE
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes


def test_the_image_is_busybox_under_two_names(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_text("#!/bin/sh\necho busybox\necho ls\necho sh\n")
    busybox.chmod(0o755)
    write_image(tmp_path / "image.tar", busybox)
    with tarfile.open(tmp_path / "image.tar") as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        images = json.loads(read("manifest.json"))
        assert [image["RepoTags"] for image in images] == [[IMAGE], [PAUSE_IMAGE]]
        (layer,) = {image["Layers"][0] for image in images}
        digest = hashlib.sha256(read(layer)).hexdigest()
        for image in images:
            config = json.loads(read(image["Config"]))
            assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
            assert config["config"]["Cmd"][0] == "/bin/sh"
        (tmp_path / "layer.tar").write_bytes(read(layer))
    with tarfile.open(tmp_path / "layer.tar") as files:
        assert files.getmember("bin/busybox").mode & 0o111
        assert {files.getmember(f"bin/{name}").linkname for name in ("ls", "sh")} == {"busybox"}
        assert files.getmember("tmp").mode == 0o1777
        # Folders that pods mount the machine's own over.
        assert {"lib", "lib64", "usr"} <= set(files.getnames())


def test_a_claim_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    assert claim.read(path) is None
    mine = Claim.mine(Path("/lab"), made=("/var/lib/cni",))
    with claim.locked(path):
        claim.write(mine, path)
    assert claim.read(path) == mine
    assert mine.claimer_lives()
    assert not Claim(Path("/lab"), os.getpid(), mine.started + 1).claimer_lives(), "another process"
    claim.drop(path)
    claim.drop(path)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_is_claimed_is_refused_to_another_lab(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    claim.write(Claim.mine(Path("/somebody/else")), path)
    with pytest.raises(
        LabError, match=r"/somebody/else, which runs.*lab down --dir /somebody/else"
    ):
        sweep.take(tmp_path / "lab", path)
    assert not sweep.sweep(tmp_path / "lab", path), "it is not ours to sweep"
    assert claim.read(path) is not None


def test_hierarchies_are_those_that_are_mounted(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "proc /proc proc rw 0 0\n"
        "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    )
    found = cgroups.hierarchies(mounts)
    assert found == (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified"))


@pytest.mark.parametrize(
    ("routes", "refused"),
    [
        pytest.param("default 192.168.1.0/24", "", id="free"),
        pytest.param("10.88.0.0/16", "10.88.0.0/16 on podman0", id="podman"),
        pytest.param("10.244.2.0/24", "10.244.2.0/24 on podman0", id="another-pod-network"),
        pytest.param("10.88.0.7", "10.88.0.7/32 on podman0", id="one-address"),
    ],
)
def test_addresses_must_be_free(routes: str, refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [{"dst": one, "dev": "podman0"} for one in routes.split()]
    monkeypatch.setattr(network, "_json", lambda what, _: table if what == "route" else [])
    if refused:
        with pytest.raises(LabError, match=f"must be free .got a route to {refused}"):
            network.check_free()
    else:
        network.check_free()


def test_a_bridge_that_nobody_claims_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_json", lambda *_: [{"ifname": "tramontane0"}])
    with pytest.raises(LabError, match=r"no lab has claimed.*ip link delete tramontane0"):
        network.check_free()


def test_what_a_machine_lacks_is_said_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "which", lambda _: None)
    monkeypatch.setattr(machine, "_CNI_FOLDERS", ())
    lacks = machine.lacking_packages()
    assert {"containerd", "runc", "a statically linked busybox"} < set(lacks)
    install = r"containerd.*`apt-get update && apt-get install -y containerd runc [^`]*iptables`"
    with pytest.raises(LabError, match=install):
        machine.machine()
    with pytest.raises(LabError, match=install):
        demo_serve.check_machine()


def test_only_root_can_have_real_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.lacking_rights() == ("root",)


def test_an_unknown_node_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    nodes = RealNodes(tmp_path, Processes(tmp_path), Layout(blades=0), 2)
    with pytest.raises(LabError, match=r"got real-0001 to real-0002"):
        nodes.has_power("gpu-0001")
    without = RealNodes(tmp_path, Processes(tmp_path), Layout(blades=8), 0)
    with pytest.raises(LabError, match=r"must be a real node of the lab \(got none\)"):
        without.has_power("real-0001")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["power", "off", "real-0001"], "`tramontane lab up` starts one", id="power"),
        pytest.param(["link", "down", "real-0001"], "`tramontane lab up` starts one", id="link"),
        pytest.param(["up", "--blades", "0"], "or use --real-nodes", id="nothing-at-all"),
        pytest.param(["up", "--real-nodes", "17"], "0<=x<=16", id="too-many"),
    ],
)
def test_orders_that_cannot_be_carried_out(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(main, ["lab", *arguments, "--dir", str(tmp_path)])
    assert done.exit_code != 0
    assert says in done.output + str(done.exception)


def test_a_lab_without_real_nodes_has_no_power_to_cut(tmp_path: Path) -> None:
    Description(Layout(blades=8)).save(tmp_path)
    done = CliRunner().invoke(main, ["lab", "power", "off", "gpu-0001", "--dir", str(tmp_path)])
    assert "must be a real node of the lab (got none)" in done.output + str(done.exception)
