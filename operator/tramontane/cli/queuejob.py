"""Turn a manifest into the gang that the operator would make of it."""

from typing import Any

import yaml
from pydantic import ValidationError

from tramontane.api import clock
from tramontane.api.errors import InvalidValue, TramontaneError
from tramontane.api.gang import Gang
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.gangs import gang_spec, no_pool_message, pool_for
from tramontane.scheduler.gangs import GangRecord, decode_gang
from tramontane.scheduler.saved import Saved

KINDS: dict[str, type[TrainingJob] | type[Gang]] = {"TrainingJob": TrainingJob, "Gang": Gang}
DEFAULT_NAMESPACE = "default"


class NoPool(TramontaneError):  # noqa: N818 - named for what is lacking
    """Say that a job has no pool to be placed in."""


def read(text: str, where: str, namespace: str | None) -> TrainingJob | Gang:
    """Return the one TrainingJob or Gang of a manifest.

    Raises:
        InvalidValue: there is none, or more than one, or it is not as the API wants it.
    """
    try:
        documents = [one for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except yaml.YAMLError as error:
        raise InvalidValue(f"{where}: must be YAML ({_line(error)})") from error
    found = [one for one in documents if one.get("kind") in KINDS]
    if len(found) != 1:
        kinds = ", ".join(str(one.get("kind", "no kind")) for one in documents) or "nothing"
        raise InvalidValue(f"{where}: must have one TrainingJob or Gang (got {kinds})")
    raw: dict[str, Any] = found[0]
    meta = {"name": "unnamed", "namespace": DEFAULT_NAMESPACE, **(raw.get("metadata") or {})}
    if namespace is not None:
        meta["namespace"] = namespace
    try:
        return KINDS[raw["kind"]].model_validate({**raw, "metadata": meta, "status": {}})
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        more = error.error_count() - 1
        others = f" (and {more} more)" if more else ""
        raise InvalidValue(f"{where}: {at}: {first['msg']}{others}") from error


def gang(world: Saved, submitted: TrainingJob | Gang) -> GangRecord:
    """Return the gang of a job that is submitted now; a suspended one is asked for as if not.

    Raises:
        NoPool: no pool of the world is open to it.
        InvalidValue: its PriorityClass does not exist.
    """
    meta = submitted.metadata
    spec = submitted.spec if isinstance(submitted, Gang) else _spec(world, submitted)
    return decode_gang(
        {
            "metadata": {
                "name": meta.name,
                "namespace": meta.namespace,
                "creationTimestamp": clock.micro(world.now_s),
            },
            "spec": spec.to_dict() | {"active": True},
        }
    )


def _spec(world: Saved, job: TrainingJob) -> Any:
    pools = {
        raw["metadata"]["name"]: NodePool.model_validate(raw) for raw in world.objects["nodepools"]
    }
    pool = pool_for(job, None, pools)
    if pool is None:
        raise NoPool(no_pool_message(job, pools))
    return gang_spec(job, pool, _priority(world, job.spec.priority_class_name))


def _priority(world: Saved, name: str | None) -> int:
    """Return the value of a PriorityClass, as the operator takes it."""
    if name is None:
        return 0
    values = {raw["metadata"]["name"]: raw["value"] for raw in world.objects["priorityclasses"]}
    if name not in values:
        known = ", ".join(sorted(values)) or "none"
        must = f"spec.priorityClassName must name a PriorityClass (there are: {known})"
        raise InvalidValue(must, name)
    return int(values[name])


def _line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
