"""What KWOK plays: a kubelet's part in the life of a node and of a pod.

The rules (KWOK calls them stages) follow the fast defaults that come with KWOK, cut down to
what blades need, with three differences: a deleted pod takes a moment to terminate, as real
ones do; a heartbeat touches only the time of the conditions; and a node that comes back says
when. The kubelet endpoint that nodes advertise is the lab's own log server.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tramontane.api.names import LABEL_WORK

_NODE_READY = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ .metadata.name | Quote }}}
daemonEndpoints:
  kubeletEndpoint:
    Port: {{ NodePort }}
nodeInfo:
  architecture: amd64
  operatingSystem: linux
  osImage: simulated
  bootID: {{ or .status.nodeInfo.bootID .metadata.uid | Quote }}
  machineID: {{ .metadata.uid | Quote }}
  systemUUID: {{ .metadata.uid | Quote }}
  kernelVersion: {{ printf "kwok-%s" Version | Quote }}
  kubeletVersion: {{ printf "kwok-%s" Version | Quote }}
  kubeProxyVersion: ""
  containerRuntimeVersion: {{ printf "kwok-%s" Version | Quote }}
phase: Running
"""

_NODE_HEARTBEAT = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
{{ end }}
"""

_POD_RUNNING = """
{{ $now := Now }}
{{ $nodeIPs := NodeIPsWith .spec.nodeName }}
{{ $podIPs := PodIPsWith .spec.nodeName ( or .spec.hostNetwork false ) .metadata.uid .metadata.name .metadata.namespace }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ index $nodeIPs 0 | Quote }}
hostIPs:
{{ range $nodeIPs }}
- ip: {{ . | Quote }}
{{ end }}
podIP: {{ index $podIPs 0 | Quote }}
podIPs:
{{ range $podIPs }}
- ip: {{ . | Quote }}
{{ end }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: true
  {{ if eq .restartPolicy "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{ else }}
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
  {{ end }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: true
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""  # noqa: E501 - one template expression a line

_JOB_POD_DONE = """
{{ $now := Now }}
phase: Succeeded
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: false
  started: false
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
{{ end }}
"""  # noqa: E501 - one template expression a line


@dataclass(frozen=True, slots=True)
class PodTiming:
    """How long simulated kubelets take, in milliseconds; drawn evenly from each pair."""

    start_ms: tuple[int, int] = (0, 0)
    terminate_ms: tuple[int, int] = (300, 800)


def _has(path: str, operator: str, *values: str) -> dict[str, Any]:
    """Select objects by a jq expression over them."""
    return {"key": path, "operator": operator} | ({"values": list(values)} if values else {})


def _stage(
    name: str,
    kind: str,
    conditions: list[dict[str, Any]],
    following: Mapping[str, Any],
    delay_ms: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """Return one stage: which objects, after what delay, and what happens to them."""
    delay: dict[str, Any] = {}
    if delay_ms[1]:
        delay = {
            "delay": {
                "durationMilliseconds": delay_ms[0],
                "jitterDurationMilliseconds": delay_ms[1],
            }
        }
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": conditions},
            **delay,
            "next": dict(following),
        },
    }


def kwok_config(timing: PodTiming) -> str:
    """Return the text of KWOK's configuration file: the stages."""
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    alive = _has(".metadata.deletionTimestamp", "DoesNotExist")
    documents = [
        _stage(
            "node-ready",
            "Node",
            [_has(ready, "NotIn", "True")],
            {"statusTemplate": _NODE_READY},
            # A new node is touched by several controllers at once: be ready once, not thrice.
            (100, 150),
        ),
        _stage(
            "node-heartbeat",
            "Node",
            [_has(ready, "In", "True")],
            {"statusTemplate": _NODE_HEARTBEAT},
            (600_000, 900_000),
        ),
        _stage(
            "pod-running",
            "Pod",
            [alive, _has(".status.phase", "In", "Pending"), _has(ready, "NotIn", "True")],
            {"statusTemplate": _POD_RUNNING},
            timing.start_ms,
        ),
        _stage(
            "job-pod-done",
            "Pod",
            [
                alive,
                _has(".status.phase", "In", "Running"),
                _has(".metadata.ownerReferences.[].kind", "In", "Job"),
                # Those the simulator ends, for it knows how (works.py).
                _has(f'.metadata.labels["{LABEL_WORK}"]', "DoesNotExist"),
            ],
            {"statusTemplate": _JOB_POD_DONE},
        ),
        _stage(
            "pod-gone",
            "Pod",
            [
                _has(".metadata.deletionTimestamp", "Exists"),
                # Its end shows once more as a change: the next pod of that name is not meant.
                _has(".metadata.deletionGracePeriodSeconds", "NotIn", "0"),
            ],
            {"delete": True},
            timing.terminate_ms,
        ),
    ]
    return "\n---\n".join(json.dumps(document, indent=1) for document in documents) + "\n"
