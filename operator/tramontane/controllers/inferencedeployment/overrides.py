"""Read what people lay over the pods of a deployment, and find what is wrong with it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tramontane.api.inferencedeployment import (
    Egress,
    EngineName,
    InferenceDeploymentSpec,
    S3Source,
)
from tramontane.api.names import (
    ENGINE_CONTAINER,
    GPU_RESOURCE,
    LABEL_INFERENCE,
    LABEL_REVISION,
    LABEL_ROTATION,
    WEIGHTS_CONTAINER,
)
from tramontane.api.quantity import parse_duration
from tramontane.controllers.inferencedeployment.overlay import overlaid
from tramontane.controllers.trainingjob import podcheck

Raw = dict[str, Any]

# After the label is out, until every node knows; the agent waits so long before it ends the engine.
SETTLE_S: Final = 3
# For the agents to end in order, and their engines to let the GPUs go.
_END_S: Final = 30
# Where engines, and what they are made of, find their rank and address.
_RANK_ENV: Final = frozenset(
    {
        *("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *("VLLM_HOST_IP", "VLLM_PORT", "VLLM_DP_RANK", "SGLANG_HOST_IP"),
    }
)
_OUR_LABELS: Final = (LABEL_INFERENCE, LABEL_REVISION, LABEL_ROTATION)
_OURS: Final = "tramontane.dev/"
_PORTS: Final = {"http": 80, "https": 443}


def engine_name(spec: InferenceDeploymentSpec) -> str:
    """Return the name of the container that is the engine: with custom it may be another's."""
    if spec.engine.name is not EngineName.CUSTOM:
        return ENGINE_CONTAINER
    # What has no name yet is refused elsewhere.
    names = [container.get("name") or ENGINE_CONTAINER for container in containers(spec)]
    return ENGINE_CONTAINER if ENGINE_CONTAINER in names or not names else str(names[0])


def problems(spec: InferenceDeploymentSpec) -> Iterator[str]:
    """Yield what is wrong with what people lay over the pods, worst first."""
    over = overrides(spec)
    pod = over.get("spec") or {}
    yield from podcheck.problems(overlaid(_checked(spec), over))
    name = engine_name(spec)
    for container in containers(spec):
        if container.get("name") == name:
            yield from _engine_problems(spec, container)
    for variable, where in _variables(pod):
        if variable.startswith("TRAMONTANE_") or variable in _RANK_ENV:
            yield (
                f"{variable} must not be set in container {where}, because rank, size and address "
                "differ per pod and are set for it; remove it"
            )
    for volume in pod.get("volumes") or ():
        if str(volume.get("name", "")).startswith("tramontane-"):
            yield (
                "template.spec.volumes must have names that do not begin with tramontane- (got "
                f'"{volume["name"]}"), which are ours'
            )
    yield from _metadata_problems(over.get("metadata") or {})
    yield from _pod_problems(spec, pod)
    for container in pod.get("initContainers") or ():
        yield from _init_problems(container)
    yield from _store_problems(spec)


def _metadata_problems(meta: Mapping[str, Any]) -> Iterator[str]:
    for label in _OUR_LABELS:
        if label in (meta.get("labels") or {}):
            yield f"template.metadata.labels must not have {label}"
    for name in meta.get("annotations") or {}:
        if name.startswith(_OURS):
            yield f"template.metadata.annotations must not have {name}; all {_OURS}... are ours"


def _store_problems(spec: InferenceDeploymentSpec) -> Iterator[str]:
    for store in stores(spec):
        if address_of(store) is None:
            # Not as it is given: there may be a password in it.
            yield (
                "s3.endpoint must be a URL with a host, at most a port and no password (got "
                f'"{store.endpoint.rpartition("@")[2]}"); put keys into a secret'
            )
    secrets = {store.secret for store in stores(spec) if store.secret}
    if len(secrets) > 1:
        yield (
            f"model and adapters must use one secret for object stores (got "
            f"{', '.join(sorted(secrets))}); merge them"
        )


def _pod_problems(spec: InferenceDeploymentSpec, pod: Mapping[str, Any]) -> Iterator[str]:
    if pod.get("restartPolicy"):
        yield (
            f"template.spec.restartPolicy must be left out (got {pod['restartPolicy']}), because a "
            "replica is restarted whole; use spec.recovery"
        )
    if pod.get("hostNetwork") and spec.egress is not Egress.OPEN:
        yield (
            f"template.spec.hostNetwork must not be set with egress {spec.egress}, because no "
            "NetworkPolicy holds there; set egress: Open"
        )
    grace, needed = pod.get("terminationGracePeriodSeconds"), grace_s(spec)
    if isinstance(grace, int) and grace < needed:
        yield (
            f"template.spec.terminationGracePeriodSeconds must be at least {needed}, or open "
            f"requests are cut off (got {grace}); leave it out, and use rollout.drainTimeout"
        )


def _init_problems(container: Mapping[str, Any]) -> Iterator[str]:
    name = container.get("name")
    for mount in container.get("volumeMounts") or ():
        path = str(mount.get("mountPath", ""))
        if f"{path}/".startswith(f"{podcheck.MOUNT_ROOT}/"):
            yield (
                f"container {name}: {podcheck.MOUNT_ROOT} must be left to the rank agent (got "
                f'mountPath "{path}")'
            )
    for field_ in ("command", "args"):
        if name == WEIGHTS_CONTAINER and container.get(field_):
            yield f"container {name} must have no {field_}, because it verifies the weights"


def _engine_problems(spec: InferenceDeploymentSpec, container: Mapping[str, Any]) -> Iterator[str]:
    if spec.engine.name is EngineName.CUSTOM:
        if not container.get("command"):
            yield (
                f"container {container['name']} must have a command with engine custom (got none), "
                "because the agent starts it"
            )
    else:
        for field_ in ("command", "args"):
            if container.get(field_):
                yield (
                    f"container {container['name']} must have no {field_} with engine "
                    f"{spec.engine.name}; use engine.extraArgs, or engine custom"
                )
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        if GPU_RESOURCE in (resources.get(kind) or {}):
            yield (
                f"container {container['name']} must not ask for {GPU_RESOURCE}; its GPUs are the "
                "layout's: use spec.layout"
            )


def _variables(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for container in (*(pod.get("containers") or ()), *(pod.get("initContainers") or ())):
        for variable in container.get("env") or ():
            yield str(variable.get("name", "")), str(container.get("name"))


def _checked(spec: InferenceDeploymentSpec) -> Raw:
    """Return what a template needs at least to be looked at: our containers, with their image."""
    image = spec.engine.image
    return {
        "spec": {
            "initContainers": [{"name": WEIGHTS_CONTAINER, "image": image}],
            "containers": [{"name": engine_name(spec), "image": image}],
        }
    }


def overrides(spec: InferenceDeploymentSpec) -> Raw:
    """Return the template that people lay over the pods; it may lack everything."""
    return spec.template or {}


def containers(spec: InferenceDeploymentSpec) -> list[Raw]:
    """Return the containers of that template."""
    return list((overrides(spec).get("spec") or {}).get("containers") or ())


def without_words(spec: InferenceDeploymentSpec) -> Raw:
    """Return the overrides without the engine's own command, which goes under the agent."""
    over, name = overrides(spec), engine_name(spec)
    if not containers(spec):
        return over
    bare = [
        {key: value for key, value in one.items() if key not in {"command", "args"}}
        if one.get("name") == name
        else one
        for one in containers(spec)
    ]
    return {**over, "spec": {**over["spec"], "containers": bare}}


def grace_s(spec: InferenceDeploymentSpec) -> int:
    """Return how long a pod that is told to end may take."""
    return math.ceil(parse_duration(spec.rollout.drain_timeout)) + SETTLE_S + _END_S


def address_of(store: S3Source) -> tuple[str, int] | None:
    """Return host and port of a store's endpoint; None where it has none."""
    try:
        url = urlsplit(store.endpoint)
        port = url.port or _PORTS[url.scheme]
    except (ValueError, KeyError):
        return None
    return (url.hostname, port) if url.hostname and "@" not in url.netloc else None


def stores(spec: InferenceDeploymentSpec) -> Iterator[S3Source]:
    """Yield the object stores that the model and its adapters come from."""
    for source in (spec.model.source, *(one.source for one in spec.model.adapters)):
        if source.s3 is not None:
            yield source.s3
