"""Real nodes in the lab: kubelets with containers, each in namespaces of its own.

A node is one process tree: its PID 1 mounts the node's folders, starts containerd, a kubelet and
a device plugin with simulated GPUs, and reaps. Its power is that PID 1: killed, everything on the
node is gone at once. Its cable is a veth on a bridge, and pulling it is what the others notice.

    plan, config     names, addresses and files (pure)
    image            the one image, made of busybox
    pods             what runs on them: pods over the machine's own Python
    machine          what the machine must have
    claim, sweep     one lab at a time, and nothing left of it
    network, cgroups what is made on the machine
    nodes            RealNodes: start, stop, power, links, processes
"""

from tramontane.lab.nodes.nodes import RealNodes

__all__ = ["RealNodes"]
