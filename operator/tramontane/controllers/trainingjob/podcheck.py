"""Find in a pod template what the API server or a kubelet would refuse, or what is ours to set."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tramontane.api.errors import InvalidValue
from tramontane.api.names import LABEL_GANG, LABEL_JOB, LABEL_LIGHTHOUSE, LABEL_SEAT
from tramontane.api.quantity import parse_quantity

AGENT_VOLUME: Final = "tramontane-agent"
POD_VOLUME: Final = "tramontane-pod"
MOUNT_ROOT: Final = "/tramontane"

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ENV_NAME: Final = re.compile(r"[ -<>-~]+")
_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
# What places a pod, or names it, is decided elsewhere; the remedy says where.
_OURS: Final = {
    "nodeName": "the scheduler chooses blades",
    "schedulerName": "the scheduler chooses blades",
    "topologySpreadConstraints": "use spec.topology",
    "hostname": "each seat has a host name of its own",
    "subdomain": "each seat has a host name of its own",
    "schedulingGates": "pods are created only when all have a place",
}
_OUR_LABELS: Final = (LABEL_JOB, LABEL_GANG, LABEL_SEAT, LABEL_LIGHTHOUSE)


def problems(template: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the template, worst first."""
    spec = template.get("spec")
    if not isinstance(spec, Mapping) or not spec.get("containers"):
        yield "template.spec.containers must have at least one container (got none)"
        return
    yield from _names(spec)
    yield from _pod_fields(template, spec)
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        yield from _container(container)
    yield from _host_ports(spec)
    yield from _volumes(spec)


def _names(spec: Mapping[str, Any]) -> Iterator[str]:
    seen: set[str] = set()
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            where = f"template.spec.{field}[{index}]"
            name = container.get("name") if isinstance(container, Mapping) else None
            if not isinstance(name, str) or not _LABEL.fullmatch(name):
                got = f'"{name}"' if name else "none"
                yield f"{where}.name must be a DNS label of at most 63 characters (got {got})"
                return
            if name in seen:
                yield f'{where}.name must differ from all other containers\' (got "{name}" twice)'
            seen.add(name)


def _pod_fields(template: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    for field, remedy in _OURS.items():
        if spec.get(field):
            yield f"template.spec.{field} must not be set (got {_short(spec[field])}); {remedy}"
    yield from _affinity(spec.get("affinity") or {})
    policy = spec.get("restartPolicy")
    if policy is not None and policy not in _RESTART_POLICIES:
        yield (
            f"template.spec.restartPolicy must be {', '.join(_RESTART_POLICIES[:-1])} or "
            f'{_RESTART_POLICIES[-1]} (got "{policy}"); leave it out, recovery says what restarts'
        )
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or grace < 0):
        yield f"template.spec.terminationGracePeriodSeconds must be at least 0 (got {grace})"
    labels = (template.get("metadata") or {}).get("labels") or {}
    for label in _OUR_LABELS:
        if label in labels:
            yield f"template.metadata.labels must not have {label} (got {labels[label]})"


def _affinity(affinity: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not a required node affinity over labels: nothing else places a gang."""
    node = affinity.get("nodeAffinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = (node.get(required) or {}).get("nodeSelectorTerms") or ()
    fields = any(not term.get("matchExpressions") or term.get("matchFields") for term in terms)
    if affinity.keys() - {"nodeAffinity"} or node.keys() - {required} or fields:
        yield (
            "template.spec.affinity must be a required nodeAffinity over labels "
            f"(got {_short(affinity)}); use spec.topology for nearness"
        )


def _container(container: Mapping[str, Any]) -> Iterator[str]:
    name = container["name"]
    if not str(container.get("image") or "").strip():
        yield f"container {name} must have an image (got none)"
    for field in ("command", "args"):
        words = container.get(field) or ()
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            yield f"container {name}: {field} must be a list of strings (got {_short(words)})"
    for variable in container.get("env") or ():
        given = variable.get("name") if isinstance(variable, Mapping) else None
        if not given or not _ENV_NAME.fullmatch(given):
            yield f"container {name}: a variable must have a name without '=' (got {_short(given)})"
        elif "value" in variable and not isinstance(variable["value"], str):
            yield (
                f"container {name}: the value of {given} must be a string "
                f"(got {_short(variable['value'])}); put it in quotes"
            )
    yield from _resources(name, container.get("resources") or {})


def _resources(name: str, resources: Mapping[str, Any]) -> Iterator[str]:
    amounts: dict[str, dict[str, Any]] = {"limits": {}, "requests": {}}
    for kind, parsed in amounts.items():
        for resource, amount in (resources.get(kind) or {}).items():
            try:
                parsed[resource] = parse_quantity(amount)
            except InvalidValue as error:
                yield f"container {name}: resources.{kind}[{resource}] {error}"
                return
            if "/" in resource and not isinstance(parsed[resource], int):
                yield (
                    f"container {name}: resources.{kind}[{resource}] must be whole (got {amount})"
                )
                return
    for resource, requested in amounts["requests"].items():
        limit = amounts["limits"].get(resource)
        if limit is not None and requested > limit:
            yield f"container {name}: the request of {resource} must not exceed its limit"
        if "/" in resource and limit is not None and requested != limit:
            yield f"container {name}: request and limit of {resource} must be equal"
        if "/" in resource and limit is None:
            yield f"container {name}: {resource} must have a limit, equal to its request"


def _host_ports(spec: Mapping[str, Any]) -> Iterator[str]:
    taken: dict[tuple[int, str, str], str] = {}
    for container in spec["containers"]:
        for port in container.get("ports") or ():
            number = port.get("hostPort")
            if spec.get("hostNetwork"):
                number = number or port.get("containerPort")
            if not number:
                continue
            key = (number, port.get("protocol", "TCP"), port.get("hostIP", ""))
            if key in taken:
                yield (
                    f"container {container['name']}: host port {number}/{key[1]} must not be "
                    f"taken twice (got it in container {taken[key]} too)"
                )
            taken[key] = container["name"]


def _volumes(spec: Mapping[str, Any]) -> Iterator[str]:
    names = [volume.get("name") for volume in spec.get("volumes") or ()]
    for name in names:
        if names.count(name) > 1:
            yield f'template.spec.volumes must have different names (got "{name}" twice)'
            return
        if name in {AGENT_VOLUME, POD_VOLUME}:
            yield f'template.spec.volumes must not have one named "{name}", which is the agent\'s'
    for container in spec["containers"]:
        for mount in container.get("volumeMounts") or ():
            path = str(mount.get("mountPath", ""))
            if mount.get("name") not in names:
                yield (
                    f"container {container['name']}: volumeMounts must name one of the pod's "
                    f'volumes (got "{mount.get("name")}")'
                )
            if path == MOUNT_ROOT or path.startswith(f"{MOUNT_ROOT}/"):
                yield (
                    f"container {container['name']}: {MOUNT_ROOT} must be left to the rank agent "
                    f'(got mountPath "{path}")'
                )


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line's worth
