"""Pods and services for real nodes."""

from typing import Any

from tramontane.api.names import GPU_RESOURCE
from tramontane.lab.nodes.pods import pod_spec

Raw = dict[str, Any]


def pod(name: str, node: str, *command: str, gpus: int = 0, **spec: Any) -> Raw:
    """A pod on a node that runs a command once."""
    body = pod_spec(*command, container="main")
    body["terminationGracePeriodSeconds"] = 1  # as a PID 1, Python does not heed SIGTERM
    if gpus:
        body["containers"][0]["resources"]["limits"] = {GPU_RESOURCE: str(gpus)}
    return {
        "metadata": {"name": name, "labels": {"group": "peers"}},
        "spec": {"nodeName": node, "restartPolicy": "Never", **body, **spec},
    }


def python(name: str, node: str, script: str, **more: Any) -> Raw:
    """A pod on a node that runs a script."""
    return pod(name, node, "python3", "-c", script, **more)


def peers(name: str = "peers") -> Raw:
    """A headless service: pods of that subdomain are found as `<pod>.<service>`, ready or not."""
    return {
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "selector": {"group": name},
            "publishNotReadyAddresses": True,
            "ports": [{"port": 7000}],
        },
    }


# Tells whoever connects who it is, and then keeps the connection for ever.
SERVER = """
import os, socket, time
with socket.create_server(("", 7000)) as server:
    print("listening", flush=True)
    kept = []
    while True:
        kept.append(server.accept()[0])
        kept[-1].sendall(os.uname().nodename.encode() + b"\\n")
"""

# Says what it hears from each address given by the environment, then when a connection ends.
CLIENT = """
import os, select, socket, time
def connect(address):
    while True:
        try:
            return socket.create_connection((address, 7000), timeout=5)
        except OSError as error:
            print("retry", address, error, flush=True)
            time.sleep(0.2)
open_ = [connect(address) for address in os.environ["ADDRESSES"].split()]
for one in open_:
    print("heard", one.recv(100).decode().strip(), flush=True)
while True:
    ready, _, _ = select.select(open_, [], [], 1)
    for one in ready:
        try:
            said = one.recv(1)
        except OSError as error:
            said = str(error)
        print("ended", said, flush=True)
        open_.remove(one)
"""


def client(name: str, node: str, *addresses: str) -> Raw:
    """A pod that connects to servers and tells what it hears."""
    body = python(name, node, CLIENT)
    env = {"name": "ADDRESSES", "value": " ".join(addresses)}
    body["spec"]["containers"][0]["env"].append(env)
    return body


def server(name: str, node: str, **more: Any) -> Raw:
    """A pod that says its name to whoever connects, known as `<name>.peers`."""
    return python(name, node, SERVER, hostname=name, subdomain="peers", **more)
