"""Collect what helps somebody else to understand a cluster: objects, what happened, logs.

No Secret and no ConfigMap is read. What could not be read is told in the file, not left out.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from tramontane.api.names import GROUP, LABEL_GANG
from tramontane.cli import queueask
from tramontane.cli.doctorask import look
from tramontane.cli.doctorchecks import examine
from tramontane.cli.supportstrip import Stripper
from tramontane.kube.client import ApiError, Client
from tramontane.kube.resources import (
    BLADES,
    DEPLOYMENTS,
    EVENTS,
    GANGS,
    INFERENCEDEPLOYMENTS,
    LEASES,
    NODEPOOLS,
    NODES,
    PODS,
    TRAININGJOBS,
    Resource,
)
from tramontane.scheduler.saved import dump

Raw = dict[str, Any]
OURS: Final = "app.kubernetes.io/part-of=tramontane"
LOG_LINES: Final = 5000
UNREAD: Final = "unread.txt"
_KINDS: Final = (NODEPOOLS, BLADES, GANGS, TRAININGJOBS, INFERENCEDEPLOYMENTS, NODES)


async def collect(
    client: Client, namespace: str, strip: Stripper, say: Callable[[str], None]
) -> AsyncIterator[tuple[str, str]]:
    """Yield (path, content) for each file, stripped; what fails becomes a line of UNREAD."""
    unread: list[str] = []

    def told(what: str, error: ApiError) -> None:
        unread.append(strip.text(f"{what} could not be read: {error}"))

    say("doctor")
    facts = await look(client, namespace)
    yield "doctor.json", _json(strip.object([one.to_dict() for one in examine(facts)]))
    for resource in _KINDS:
        say(resource.plural)
        try:
            kept = await client.list_kept(resource, lambda raw: _json(strip.object(raw)))
            yield f"{resource.plural}.json", "[\n" + ",\n".join(kept) + "\n]\n"
        except ApiError as error:
            told(resource.plural, error)
    pods: list[Raw] = []
    for name, resource, where, selector, keep in _SELECTED:
        say(name)
        try:
            found = await client.list_all(
                resource, namespace if where else None, label_selector=selector
            )
        except ApiError as error:
            told(name, error)
            continue
        chosen = [raw for raw in found if keep(raw, namespace)]
        pods += chosen if name == "component-pods" else []
        yield f"{name}.json", _json(strip.object(chosen))
    say("snapshot")
    try:
        yield "snapshot.json", dump(await queueask.capture(client))
    except ApiError as error:
        told("snapshot", error)
    for pod in pods:
        async for path, text in _logs(client, pod, strip, told, say):
            yield path, text
    yield UNREAD, "\n".join(unread or ["everything was read"]) + "\n"


def _is_ours(event: Raw, namespace: str) -> bool:
    about = event.get("regarding") or {}
    return str(about.get("apiVersion", "")).startswith(f"{GROUP}/") or (
        event["metadata"].get("namespace") == namespace
    )


_Keep = Callable[[Raw, str], bool]
# Name of the file, kind, whether only of the components' namespace, labels, which of them.
_SELECTED: Final[tuple[tuple[str, Resource, bool, str | None, _Keep], ...]] = (
    ("component-pods", PODS, True, OURS, lambda _raw, _ns: True),
    ("gang-pods", PODS, False, LABEL_GANG, lambda _raw, _ns: True),
    ("deployments", DEPLOYMENTS, True, OURS, lambda _raw, _ns: True),
    ("leases", LEASES, True, None, lambda _raw, _ns: True),
    ("events", EVENTS, False, None, _is_ours),
)


async def _logs(
    client: Client,
    pod: Raw,
    strip: Stripper,
    told: Callable[[str, ApiError], None],
    say: Callable[[str], None],
) -> AsyncIterator[tuple[str, str]]:
    """Yield the last lines of each container, and of its life before where there was one."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        lives = ("current", "previous") if container.get("restartCount") else ("current",)
        for life in lives:
            path = f"logs/{name}/{container['name']}-{life}.log"
            say(path)
            asked = _query(container["name"], previous=life == "previous")
            try:
                raw = await client.get_raw(f"{PODS.path(namespace, name, 'log')}?{asked}")
            except ApiError as error:
                told(path, error)
                continue
            yield path, strip.text(raw.decode(errors="replace"))


def _query(container: str, *, previous: bool) -> str:
    wanted: Mapping[str, str] = {
        "container": container,
        "tailLines": str(LOG_LINES),
        "timestamps": "true",
        **({"previous": "true"} if previous else {}),
    }
    return urlencode(wanted)


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
