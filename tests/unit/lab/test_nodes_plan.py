"""Names and addresses of real nodes fit together, and so do the files that carry them."""

import ipaddress
import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from tramontane.lab.cluster import Setup, pool_of
from tramontane.lab.controlplane import NodeTiming, Options
from tramontane.lab.fleet import Layout
from tramontane.lab.keys import make_keys
from tramontane.lab.nodes import config
from tramontane.lab.nodes.config import NodeFiles, Tools
from tramontane.lab.nodes.plan import (
    API_SERVICE,
    BRIDGE_ADDRESS,
    MOST_NODES,
    NETWORK,
    PAUSE_IMAGE,
    PODS_NETWORK,
    NodePlan,
    plans,
)

LAYOUT = Layout(blades=0)
LONGEST_LINK = 15  # IFNAMSIZ - 1


def test_no_two_nodes_share_a_name_or_an_address() -> None:
    every = plans(MOST_NODES)
    for what in ("name", "address", "pods", "namespace", "link", "process", "cgroup"):
        assert len({getattr(plan, what) for plan in every}) == MOST_NODES, what
    assert [plan.name for plan in every[:2]] == ["real-0001", "real-0002"]
    assert all(len(plan.link) <= LONGEST_LINK for plan in every)


def test_addresses_lie_in_the_networks_that_are_checked_to_be_free() -> None:
    bridge, pods = ipaddress.ip_network(NETWORK), ipaddress.ip_network(PODS_NETWORK)
    for plan in plans(MOST_NODES):
        assert ipaddress.ip_address(plan.address) in bridge
        assert plan.address != BRIDGE_ADDRESS
        assert ipaddress.ip_network(plan.pods).subnet_of(pods)  # type: ignore[arg-type]


def test_the_plain_pool_takes_real_nodes_too() -> None:
    labels = NodePlan(3).labels(LAYOUT)
    spec = pool_of(LAYOUT)["spec"]
    assert labels.items() >= spec["nodeSelector"]["matchLabels"].items()
    assert {level["label"] for level in spec["topology"]["levels"]} <= labels.keys()


def test_racks_of_real_nodes_are_as_big_as_the_others() -> None:
    small = Layout(blades=0, rack=8)
    racks = [plan.labels(small)["topology.tramontane.dev/rack"] for plan in plans(MOST_NODES)]
    assert racks == ["rack-real-1"] * 8 + ["rack-real-2"] * 8


@pytest.mark.parametrize(
    ("setup", "nodes", "address"),
    [
        pytest.param(
            Setup(Layout(blades=136)), NodeTiming.for_blades(136), "127.0.0.1", id="simulated"
        ),
        pytest.param(
            Setup(Layout(blades=0), real_nodes=4), NodeTiming.quick(), BRIDGE_ADDRESS, id="real"
        ),
        pytest.param(
            Setup(Layout(blades=1024), real_nodes=4),
            NodeTiming.for_blades(1024),
            BRIDGE_ADDRESS,
            id="many-simulated-beside-real",
        ),
        pytest.param(
            Setup(Layout(blades=0), real_nodes=4, options=Options(nodes=NodeTiming(40, 50))),
            NodeTiming(40, 50),
            BRIDGE_ADDRESS,
            id="as-asked-for",
        ),
    ],
)
def test_the_control_plane_suits_its_nodes(setup: Setup, nodes: NodeTiming, address: str) -> None:
    options = setup.plane_options()
    assert (options.nodes, options.address) == (nodes, address)


@pytest.mark.parametrize(
    ("setup", "agents"),
    [
        pytest.param(Setup(LAYOUT, real_nodes=2), ("real-0001", "real-0002"), id="real-nodes"),
        pytest.param(Setup(LAYOUT, real_nodes=2, simulated_agents=False), (), id="no-agents"),
        pytest.param(
            Setup(Layout(blades=3), real_agents=("gpu-0002",), real_nodes=1),
            ("gpu-0002", "real-0001"),
            id="both",
        ),
    ],
)
def test_each_real_node_has_an_agent_of_its_own(setup: Setup, agents: tuple[str, ...]) -> None:
    assert setup.agents() == agents


PLAN = NodePlan(3)
TOOLS = Tools(*(Path(f"/opt/my tools/{name}") for name in ("cd", "ctr", "kubelet", "gpus", "cni")))


@pytest.fixture
def files(tmp_path: Path) -> NodeFiles:
    """Files in a folder with a blank in its name, as a person may have it."""
    folder = tmp_path / "my lab"
    return NodeFiles(
        folder, folder / "logs", folder / "kubeconfig", folder / "image.tar", folder / "boot"
    )


def test_the_kubelet_is_quick_to_tell_and_keeps_to_its_cgroup(files: NodeFiles) -> None:
    kubelet = json.loads(config.kubelet_config(PLAN, files))
    assert kubelet["cgroupRoot"] == "/tramontane-lab/real-0003"
    assert kubelet["clusterDNS"] == [BRIDGE_ADDRESS]
    # With longer leases a grace of a few seconds would make healthy nodes flap.
    assert kubelet["nodeLeaseDurationSeconds"] < NodeTiming.quick().grace_s
    assert kubelet["nodeStatusUpdateFrequency"] == "1s"


def test_containerd_has_everything_of_its_own(files: NodeFiles) -> None:
    containerd = tomllib.loads(config.containerd_config(files, TOOLS))
    cri = containerd["plugins"]["io.containerd.grpc.v1.cri"]
    assert Path(containerd["root"]).is_relative_to(files.folder)
    assert cri["sandbox_image"] == PAUSE_IMAGE
    assert Path(cri["registry"]["config_path"]).is_relative_to(files.folder)
    assert Path(cri["registry"]["config_path"]).name in config.FOLDERS
    assert cri["cni"] == {"bin_dir": str(TOOLS.cni), "conf_dir": str(files.folder / "net.d")}


def test_pods_get_addresses_of_their_node(files: NodeFiles) -> None:
    (bridge,) = json.loads(config.cni_config(PLAN, files))["plugins"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert bridge["isGateway"]
    assert not bridge["ipMasq"], "peers must see the address of the pod"


def test_names_are_not_cached() -> None:
    text = config.corefile(Path("/lab/kubeconfig"))
    assert "cache" not in text
    assert text.count(f"bind {BRIDGE_ADDRESS}") == 2
    assert text.count("{") == text.count("}")


def test_scripts_are_scripts_whatever_the_folder_is_called(files: NodeFiles) -> None:
    init = config.init_script(PLAN, files, TOOLS, gpus=6, labels={"b": "2", "a": "1"})
    enter = config.enter_script(PLAN, files.folder / "init", [Path("/sys/fs/cgroup/a b")])
    for script in (init, enter):
        done = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
        assert done.returncode == 0
    assert "--node-labels=a=1,b=2" in init
    assert f"'{TOOLS.device_plugin}' --count=6" in init
    # What a node mounts over the machine's folders is its own.
    for point, folder in config.MOUNTS:
        assert f"mount --bind '{files.folder / folder}' {point}\n" in init
    assert enter.index("cgroup.procs") < enter.index("nsenter"), "cgroups first"


def test_the_api_server_can_be_known_by_the_address_of_its_service(tmp_path: Path) -> None:
    cert = x509.load_pem_x509_certificate(make_keys(tmp_path, {}, BRIDGE_ADDRESS).cert.read_bytes())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ipaddress.ip_address(API_SERVICE) in names.get_values_for_type(x509.IPAddress)
