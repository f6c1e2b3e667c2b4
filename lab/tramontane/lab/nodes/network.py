"""The network of real nodes: a bridge on the machine, a cable to each node's own namespace.

Nothing of it needs forwarding or rules on the machine itself: nodes talk over the bridge, and
what pods ask of the API server and of the DNS ends on the machine. There is no kube-proxy: of all
Services with an address only that of the API server leads somewhere, by a rule in each node.
"""

import contextlib
import ipaddress
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tramontane.lab.nodes.machine import which
from tramontane.lab.nodes.plan import (
    API_SERVICE,
    BRIDGE,
    BRIDGE_ADDRESS,
    NETWORK,
    PODS_NETWORK,
    NodePlan,
)
from tramontane.lab.paths import LabError

NAMESPACES = Path("/run/netns")
_PREFIX = "tramontane-"


def _ip(*words: str, lines: Iterable[str] = ()) -> str:
    """Run `ip`; `lines` are commands for one batch.

    Raises:
        LabError: it failed.
    """
    ip = which("ip")
    if ip is None:
        raise LabError("real nodes: `ip` must be on PATH (got none); install iproute2")
    done = subprocess.run(  # noqa: S603 - the machine's own command
        [ip, *words],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            f"real nodes: `ip {' '.join(words)}` must succeed (got: {done.stderr.strip()});"
            " `tramontane lab down` removes what is left of a network"
        )
    return done.stdout


def _batch(lines: Iterable[str], *words: str) -> None:
    _ip(*words, "-batch", "-", lines=lines)


def check_free() -> None:
    """Ensure that nobody else has our bridge or our addresses.

    Raises:
        LabError: somebody has.
    """
    links = {link["ifname"] for link in _json("link", "show")}
    if BRIDGE in links:
        raise LabError(
            f"real nodes: there must be no link named {BRIDGE} (got one that no lab has claimed);"
            f" remove it with `ip link delete {BRIDGE}` if nobody needs it"
        )
    ours = [ipaddress.ip_network(one) for one in (NETWORK, PODS_NETWORK)]
    for route in _json("route", "show"):
        if route["dst"] == "default":
            continue
        taken = ipaddress.ip_network(route["dst"], strict=False)
        if any(taken.overlaps(one) for one in ours):
            raise LabError(
                f"real nodes: the addresses {NETWORK} and {PODS_NETWORK} must be free (got a route"
                f" to {taken} on {route.get('dev')}); remove that network, podman's default one"
                " for instance"
            )


def make(plans: Iterable[NodePlan]) -> None:
    """Make the bridge, and for each node a namespace, a cable and routes.

    Raises:
        LabError: something of it could not be made.
    """
    plans = tuple(plans)
    _batch([
        f"link add {BRIDGE} type bridge",
        f"addr add {BRIDGE_ADDRESS}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        *(line for plan in plans for line in (
            f"netns add {plan.namespace}",
            f"link add {plan.link} type veth peer name eth0 netns {plan.namespace}",
            f"link set {plan.link} master {BRIDGE} up",
            f"route add {plan.pods} via {plan.address} dev {BRIDGE}",
        )),
    ])  # fmt: skip
    for plan in plans:
        _batch(
            [
                f"addr add {plan.address}/24 dev eth0",
                "link set lo up",
                "link set eth0 up",
                f"route add default via {BRIDGE_ADDRESS}",
                *(
                    f"route add {other.pods} via {other.address}"
                    for other in plans
                    if other is not plan
                ),
            ],
            "-netns",
            plan.namespace,
        )


def lead_to_api(plans: Iterable[NodePlan], server: str) -> str:
    """Lead the address of the Service `kubernetes` to the API server, in each node.

    A pod with a service account knows its API server by that address alone. Return why it cannot
    be, where the kernel does not translate addresses; empty: it can.
    """
    iptables = which("iptables")
    assert iptables is not None, "machine() has looked for it"
    target = server.rpartition("/")[2]
    for plan in plans:
        for chain in ("PREROUTING", "OUTPUT"):  # of pods; of the node itself
            rule = f"-t nat -A {chain} -d {API_SERVICE} -p tcp --dport 443 -j DNAT --to {target}"
            try:
                _ip("netns", "exec", plan.namespace, str(iptables), "-w", *rule.split())
            except LabError as error:
                return str(error)
    return ""


def link(plan: NodePlan, *, up: bool) -> None:
    """Plug a node's cable in, or pull it: its peers hear nothing of that."""
    _ip("link", "set", plan.link, "up" if up else "down")


def forget_pods(plan: NodePlan) -> None:
    """Remove what a node that lost its power has left in its namespace."""
    with contextlib.suppress(LabError):  # it may not have had a pod
        _ip("-netns", plan.namespace, "link", "delete", "cni0")


def remove() -> None:
    """Remove the bridge, all cables and all namespaces, as far as they are there.

    Raises:
        LabError: something could not be removed.
    """
    for found in _json("link", "show"):
        name = found["ifname"]
        if name == BRIDGE or (name.startswith("tramontane") and name.endswith(".0")):
            try:
                _ip("link", "delete", name)
            except LabError:  # it may have gone with its other end meanwhile
                if any(one["ifname"] == name for one in _json("link", "show")):
                    raise
    if NAMESPACES.is_dir():
        for path in NAMESPACES.glob(f"{_PREFIX}*"):
            _ip("netns", "delete", path.name)


def unmount_namespaces() -> None:
    """Undo what the first `ip netns add` on a machine does: it mounts the folder on itself."""
    umount = which("umount")
    if umount is not None and NAMESPACES.is_mount():
        subprocess.run([umount, NAMESPACES], check=False, capture_output=True)  # noqa: S603


def _json(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_ip("-json", *words) or "[]")
    return found
