"""Names and addresses of real nodes: who is where on the bridge.

    10.88.0.1        the machine: API server, DNS
    10.88.0.(10+i)   node i, in a network namespace of its own
    10.244.i.0/24    the pods of node i, routed by node i
    10.96.0.1        the API server, as pods with a service account know it

They are the same for every lab, so one machine has one lab with real nodes at a time; `claim`
sees to that.
"""

from dataclasses import dataclass

from tramontane.api.names import LABEL_TRANCHE
from tramontane.lab.fleet import LABEL_BLOCK, LABEL_GPU, LABEL_RACK, Layout

BRIDGE = "tramontane0"
NETWORK = "10.88.0.0/24"
BRIDGE_ADDRESS = "10.88.0.1"
API_SERVICE = "10.96.0.1"  # the Service `kubernetes`: the first of the control plane's range
PODS_NETWORK = "10.244.0.0/16"
CLUSTER_DOMAIN = "cluster.local"
CGROUP = "tramontane-lab"
MOST_NODES = 16
IMAGE = "tramontane.local/base:1"  # busybox: what pods that mount the machine's Python run in
PAUSE_IMAGE = "tramontane.local/pause:1"
_FIRST_HOST = 10


def node_name(number: int) -> str:
    """Return the name of the real node with this number; the first is 1."""
    return f"real-{number:04d}"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One real node: everything about it that has a name."""

    number: int

    @property
    def name(self) -> str:
        """The Node's name, and its host name."""
        return node_name(self.number)

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return f"10.88.0.{_FIRST_HOST + self.number}"

    @property
    def pods(self) -> str:
        """The network of its pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def namespace(self) -> str:
        """Its network namespace, as `ip netns` knows it."""
        return f"tramontane-{self.name}"

    @property
    def link(self) -> str:
        """The machine's end of its cable; pulled by setting it down."""
        return f"tramontane{self.number}.0"

    @property
    def process(self) -> str:
        """Its process tree's name in the lab's table."""
        return f"node-{self.name}"

    @property
    def cgroup(self) -> str:
        """Its cgroup, from the root of each hierarchy."""
        return f"/{CGROUP}/{self.name}"

    def labels(self, layout: Layout) -> dict[str, str]:
        """Return the labels that its kubelet registers it with: a blade of the layout's kind.

        Real nodes stand in racks of their own, in a block of their own.
        """
        return {
            LABEL_GPU: layout.gpu,
            "nvidia.com/gpu.product": layout.product,
            LABEL_BLOCK: "block-real",
            LABEL_RACK: f"rack-real-{(self.number - 1) // layout.rack + 1}",
            LABEL_TRANCHE: "real",
        }


def plans(count: int) -> tuple[NodePlan, ...]:
    """Return the plans of the first `count` nodes."""
    return tuple(NodePlan(number) for number in range(1, count + 1))
