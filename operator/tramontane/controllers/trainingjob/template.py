"""Read a job's pod template: which container is the rank, what a pod needs of its blade."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from tramontane.api.names import GPU_RESOURCE, TRAINER_CONTAINER
from tramontane.api.quantity import parse_quantity

Raw = dict[str, Any]


def trainer_of(template: Mapping[str, Any]) -> Raw:
    """Return the container that is the rank: the one named trainer, else the first."""
    containers: list[Raw] = template["spec"]["containers"]
    named = (container for container in containers if container.get("name") == TRAINER_CONTAINER)
    return next(named, containers[0])


def gpus_of(template: Mapping[str, Any]) -> int | None:
    """Return the GPUs that the containers ask for together; None where none asks."""
    asked = [
        int(parse_quantity(requests[GPU_RESOURCE]))
        for container in template["spec"]["containers"]
        if GPU_RESOURCE in (requests := _requests(container))
    ]
    return sum(asked) if asked else None


def pod_requests(template: Mapping[str, Any], gpus: int) -> dict[str, str]:
    """Return what a pod needs of its blade, by resource, as the kubelet will count it.

    Containers and sidecars add up; an init container counts where it alone needs more. The GPUs
    are given, because the template may leave them to the job.
    """
    spec = template["spec"]
    init = spec.get("initContainers") or ()
    sidecars = [container for container in init if container.get("restartPolicy") == "Always"]
    total = _sum((*spec["containers"], *sidecars))
    for container in init:
        for resource, amount in _requests(container).items():
            total[resource] = max(total.get(resource, 0), parse_quantity(amount))
    for resource, amount in (spec.get("overhead") or {}).items():
        total[resource] = total.get(resource, 0) + parse_quantity(amount)
    total[GPU_RESOURCE] = gpus
    return {resource: _written(amount) for resource, amount in sorted(total.items()) if amount}


def _requests(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container's requests; what has only a limit requests that much."""
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _sum(containers: Iterable[Mapping[str, Any]]) -> dict[str, Fraction | int]:
    total: dict[str, Fraction | int] = {}
    for container in containers:
        for resource, amount in _requests(container).items():
            total[resource] = total.get(resource, 0) + parse_quantity(amount)
    return total


def _written(amount: Fraction | int) -> str:
    """Return the quantity as a string: whole, or in thousandths rounded up."""
    return str(amount) if isinstance(amount, int) else f"{-(-amount * 1000 // 1)}m"
