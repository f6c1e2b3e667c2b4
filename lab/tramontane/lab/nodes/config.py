"""The files of a real node, as text: kubelet, containerd, CNI, and the script that is its PID 1.

A node sees the machine's file system with a few folders of its own in it: `/run` is empty, and
`/var/lib/kubelet`, `/var/lib/cni` and `/var/log/containers` lie in the node's folder. The kubelet
insists on some of these paths (the sockets of device plugins, for one), so they are mounted over
rather than configured.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.nodes.plan import (
    BRIDGE_ADDRESS,
    CLUSTER_DOMAIN,
    PAUSE_IMAGE,
    NodePlan,
)

RUNTIME_SOCKET = "/run/containerd/containerd.sock"
# Where node folders are mounted over the machine's: (mount point, folder of the node).
MOUNTS = (
    ("/var/lib/kubelet", "kubelet"),
    ("/var/lib/cni", "cni-cache"),
    ("/var/log/containers", "container-logs"),
)
BOOT_ID = "/proc/sys/kernel/random/boot_id"
REGISTRIES = (
    "certs.d"  # a folder per registry with its hosts.toml, read whenever an image is pulled
)
FOLDERS = (*(folder for _, folder in MOUNTS), "containerd", "cni", "net.d", "pod-logs", REGISTRIES)


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs that a node runs."""

    containerd: Path
    ctr: Path
    kubelet: Path
    device_plugin: Path
    cni: Path  # the folder of its plugins


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where a node's files are."""

    folder: Path  # of this node
    logs: Path
    kubeconfig: Path
    image: Path
    boot_id: Path

    @property
    def sick(self) -> Path:
        """The file that names the GPUs that the device plugin reports as sick."""
        return self.folder / "sick"


def kubelet_config(plan: NodePlan, files: NodeFiles) -> str:
    """Return the KubeletConfiguration (JSON is YAML)."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",  # noqa: S104 - of the node's own network namespace
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{RUNTIME_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": plan.cgroup,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "clusterDNS": [BRIDGE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": "",
        "podLogsDir": str(files.folder / "pod-logs"),
        "makeIPTablesUtilChains": False,
        # A silent node is found within seconds, as controlplane.NodeTiming.quick() wants it.
        "nodeLeaseDurationSeconds": 4,
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "1m",
        # A full disk of the machine is not the nodes' business: nothing is evicted or collected.
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": str(files.folder / "volume-plugins"),
        "volumeStatsAggPeriod": "-1s",
        "failSwapOn": False,
    }
    return json.dumps(config, indent=1)


def containerd_config(files: NodeFiles, tools: Tools) -> str:
    """Return containerd's configuration: everything of its own, no registry but those in a file."""
    folder = files.folder
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{folder / "containerd"}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{RUNTIME_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder / "containerd" / "opt"}"
{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE, in a plain VM say, runc could not lower the score and would die.
  restrict_oom_score_adj = true
{cri}.registry]
  config_path = "{folder / REGISTRIES}"
{cri}.cni]
  bin_dir = "{tools.cni}"
  conf_dir = "{folder / "net.d"}"
{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def cni_config(plan: NodePlan, files: NodeFiles) -> str:
    """Return the CNI network of a node's pods: a bridge in the node, addresses kept on disk."""
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(files.folder / "cni"),
                        "ranges": [[{"subnet": plan.pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        },
        indent=1,
    )


def corefile(kubeconfig: Path) -> str:
    """Return CoreDNS's configuration, without the cache that most clusters have.

    It would remember a first "no such name" for 5 s. Outside the cluster there is no name at all,
    as in a hall without internet.
    """
    return f"""{CLUSTER_DOMAIN}:53 {{
    bind {BRIDGE_ADDRESS}
    errors
    kubernetes {CLUSTER_DOMAIN} {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
.:53 {{
    bind {BRIDGE_ADDRESS}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def enter_script(plan: NodePlan, init: Path, cgroups: Sequence[Path]) -> str:
    """Return the script that turns into a node: cgroups first, then namespaces, then init.

    `nsenter` rather than `ip netns exec`, which mounts /sys anew and so hides the cgroups.
    """
    joins = "".join(f"echo $$ > {shlex.quote(str(one / 'cgroup.procs'))}\n" for one in cgroups)
    return f"""set -eu
{joins}exec nsenter --net=/run/netns/{plan.namespace} \\
  unshare --mount --propagation private --uts --pid --fork --mount-proc --kill-child \\
  bash {shlex.quote(str(init))}
"""


def init_script(
    plan: NodePlan, files: NodeFiles, tools: Tools, *, gpus: int, labels: Mapping[str, str]
) -> str:
    """Return the script that is a node's PID 1: it mounts, starts the daemons and reaps.

    The daemons are started again when they end, as systemd would on a real blade.
    """
    kubelet: list[str | Path] = [
        tools.kubelet,
        f"--config={files.folder / 'kubelet.json'}",
        f"--kubeconfig={files.kubeconfig}",
        f"--hostname-override={plan.name}",
        f"--node-ip={plan.address}",
        f"--node-labels={','.join(f'{key}={value}' for key, value in sorted(labels.items()))}",
    ]
    plugin: list[str | Path] = [tools.device_plugin, f"--count={gpus}", f"--sick={files.sick}"]
    containerd: list[str | Path] = [
        tools.containerd,
        f"--config={files.folder / 'containerd.toml'}",
    ]
    mounts = "".join(
        f"mount --bind {shlex.quote(str(files.folder / folder))} {point}\n"
        for point, folder in MOUNTS
    )
    log = shlex.quote(f"{files.logs}/{plan.name}-")
    ctr = f"{_words([tools.ctr])} --address {RUNTIME_SOCKET} --namespace k8s.io"
    return f"""set -u
fail() {{ echo "{plan.name}: $1" >&2; exit 1; }}
keep() {{
  local out={log}$1.log
  shift
  while :; do
    "$@" >>"$out" 2>&1 </dev/null
    echo "ended with exit code $?" >>"$out"
    sleep 0.5
  done
}}
echo {plan.name} > /proc/sys/kernel/hostname
echo 1 > /proc/sys/net/ipv4/ip_forward
mount -t tmpfs -o mode=0755 tmpfs /run || fail "cannot mount"
{mounts}mount --bind {shlex.quote(str(files.boot_id))} {BOOT_ID}
# Of a kubelet that lost its power: a plugin that found it would talk to nobody.
rm -f /var/lib/kubelet/device-plugins/*.sock

keep containerd {_words(containerd)} &
until {ctr} version >/dev/null 2>&1; do sleep 0.05; done
if ! {ctr} images list -q | grep -qxF {PAUSE_IMAGE}; then
  {ctr} images import {shlex.quote(str(files.image))} || fail "cannot import the image"
fi
keep kubelet {_words(kubelet)} &
keep gpus {_words(plugin)} &
wait
"""


def _words(argv: Sequence[str | Path]) -> str:
    return shlex.join(map(str, argv))
