"""Find where in a pod the files of a source lie, and the volume that brings them there.

Where a source lies depends on nothing but the source, so that pods made at different times, and
adapters that are loaded later, agree about it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tramontane.api.inferencedeployment import ModelSource
from tramontane.controllers.trainingjob.template import trainer_of

Raw = dict[str, Any]

VOLUMES: Final = "/tramontane/volumes"
CACHE_FOLDER: Final = "/tramontane/cache"
#: Below it, each namespace has a cache of its own: nobody alters another's weights.
CACHES_ON_BLADE: Final = "/var/lib/tramontane/models"
CACHE_VOLUME: Final = "tramontane-cache"
# What ends with the pod of a job holds nothing for anybody else.
_SHORT_LIVED: Final = frozenset({"emptyDir", "ephemeral", "downwardAPI", "projected"})
_HASH: Final = 8


@dataclass(frozen=True, slots=True)
class Mounted:
    """Hold the volume of a source, how it is mounted, and the path of its files."""

    volume: Raw
    mount: Raw
    path: str


def mounted(
    source: ModelSource, template: Mapping[str, Any] | None = None, digest: str | None = None
) -> Mounted | str:
    """Return where a source's files lie in a pod, or what is wrong with it.

    | source | volume, read-only | path in it |
    |---|---|---|
    | pvc | the whole claim | path |
    | hostPath | the directory around it, for adapters beside it that come later | its name |
    | trainingJob | the volume of `template`, the job's, that covers the path | what is left of it |
    | oci | the image | its root |
    | s3 | the blade's cache, see `cache` | by digest or address |
    """
    if source.pvc is not None:
        claim: Raw = {"claimName": source.pvc.claim, "readOnly": True}
        return _in_volume({"persistentVolumeClaim": claim}, source.pvc.path, "pvc.path")
    if source.host_path is not None:
        path, around = PurePosixPath(source.host_path), around_host_path(source.host_path)
        if not path.name or ".." in path.parts:
            return (
                "hostPath must be a directory below the root, without .. in it "
                f'(got "{source.host_path}")'
            )
        return _in_volume({"hostPath": {"path": around}}, str(path.relative_to(around)), "hostPath")
    if source.oci is not None:
        image = {"reference": source.oci, "pullPolicy": "IfNotPresent"}
        return _in_volume({"image": image}, "", "oci")
    if source.training_job is not None:
        return _of_job(source.training_job.path, template)
    assert source.s3 is not None
    address = source.s3.model_dump_json(exclude={"secret"})
    key = digest.removeprefix("sha256:") if digest else hashlib.sha256(address.encode()).hexdigest()
    return Mounted(
        {"name": CACHE_VOLUME},
        {"name": CACHE_VOLUME, "mountPath": CACHE_FOLDER},
        f"{CACHE_FOLDER}/{key}",
    )


def around_host_path(host_path: str) -> str:
    """Return the directory of a blade that is mounted for what lies there.

    It is the one around it, but never the root, which is nobody's to see.
    """
    path = PurePosixPath(host_path)
    return str(path if path.parent == path.parent.parent else path.parent)


def cache(namespace: str) -> Raw:
    """Return the volume of the blade's cache, into which only init containers write."""
    folder = {"path": f"{CACHES_ON_BLADE}/{namespace}", "type": "DirectoryOrCreate"}
    return {"name": CACHE_VOLUME, "hostPath": folder}


def _of_job(path: str, template: Mapping[str, Any] | None) -> Mounted | str:
    """Return the place of a path in the job's pods: that of the longest mount path above it."""
    if not template:
        return f"trainingJob.path must lie in a volume of the job (got {path}, and no such job)"
    wanted = PurePosixPath(path)
    above = [
        mount
        for mount in trainer_of(template).get("volumeMounts") or ()
        if wanted.is_relative_to(mount["mountPath"])
    ]
    if not above:
        return (
            f"trainingJob.path must lie in a volume of the job (got {path}); a container's own "
            "files are gone with it: save to a volume"
        )
    mount = max(above, key=lambda one: len(PurePosixPath(one["mountPath"]).parts))
    volumes = template["spec"].get("volumes") or ()
    volume = next((dict(one) for one in volumes if one["name"] == mount["name"]), {})
    volume.pop("name", None)
    if not volume or _SHORT_LIVED & volume.keys():
        kind = next(iter(volume), "none")
        return (
            f"trainingJob.path must lie in a volume that outlives the job's pods (got {path} in "
            f"{kind}); save to a claim, or to a directory of the blades"
        )
    if mount.get("subPathExpr"):
        return (
            "trainingJob.path must not lie below a subPathExpr, which differs per pod "
            f"(got {mount['subPathExpr']})"
        )
    left = str(wanted.relative_to(mount["mountPath"]))
    return _in_volume(volume, left, "trainingJob.path", mount.get("subPath", ""))


def _in_volume(volume: Raw, path: str, field: str, sub_path: str = "") -> Mounted | str:
    inside = PurePosixPath(path.strip("/"))
    if ".." in inside.parts:
        return f'{field} must not leave its volume (got "{path}")'
    identity = json.dumps([volume, sub_path], sort_keys=True)
    short = hashlib.sha256(identity.encode()).hexdigest()[:_HASH]
    name, folder = f"tramontane-model-{short}", f"{VOLUMES}/{short}"
    mount: Raw = {"name": name, "mountPath": folder, "readOnly": True}
    if sub_path:
        mount["subPath"] = sub_path
    return Mounted({"name": name, **volume}, mount, str(PurePosixPath(folder) / inside))
