"""Write raw pods of other controllers in a line each."""

from collections.abc import Iterable
from typing import Any

from tramontane.scheduler.foreign.member import Member, decode_member
from tramontane.scheduler.records import GPU


def raw_pod(name: str, gpus: int = 8, **more: Any) -> dict[str, Any]:
    """Return a pod that names this scheduler; `more` is of its metadata, status, or spec."""
    meta: dict[str, Any] = {
        "namespace": more.pop("namespace", "ml"),
        "name": name,
        "uid": more.pop("uid", f"uid-{name}"),
        "creationTimestamp": more.pop("created", "2027-01-15T08:00:00Z"),
    }
    for word in ("labels", "annotations", "deletionTimestamp"):
        if word in more:
            meta[word] = more.pop(word)
    status = more.pop("status", {})
    requests = {"requests": {GPU: str(gpus)}}
    spec = {"schedulerName": "tramontane", "containers": [{"resources": requests}], **more}
    return {"metadata": meta, "spec": spec, "status": status}


def of_gang(name: str, gang: str, size: int | None = None, **more: Any) -> dict[str, Any]:
    """Return a pod with our label, and the annotation of the size if there is one."""
    notes = more.pop("annotations", {})
    if size is not None:
        notes = {"tramontane.dev/gang-size": str(size), **notes}
    return raw_pod(name, labels={"tramontane.dev/gang": gang}, annotations=notes, **more)


def members(*raws: dict[str, Any]) -> list[Member]:
    return [decode_member(raw) for raw in raws]


def a_gang(gang: str, numbers: Iterable[int], size: int, **more: Any) -> list[dict[str, Any]]:
    """Return pods `gang-0`, `gang-1`, … of one group."""
    return [of_gang(f"{gang}-{i}", gang, size, **more) for i in numbers]
