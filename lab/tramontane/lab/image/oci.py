"""Layers as an image, and an image as an OCI archive that skopeo and containerd read.

Source: OCI Image Format Specification 1.1, its image-layout, manifest, config and annotations.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.lab.image.layer import Layer, write_tar
from tramontane.lab.image.tree import HOME, USER

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_INDEX = "application/vnd.oci.image.index.v1+json"
_REF = "org.opencontainers.image.ref.name"
_ENVIRONMENT = {
    "PATH": f"/{HOME}/bin:/usr/bin",
    "HOME": "/tmp",  # noqa: S108 - the only folder that a container may have to write in
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class Image:
    """What is said about an image besides its layers."""

    name: str
    version: str
    architecture: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    created: str


def write_archive(image: Image, layers: Sequence[Layer], path: Path) -> str:
    """Write an image as an archive; return its digest: that of its manifest."""
    config = _json(_config(image, layers))
    manifest = _json(_manifest(image, config, layers))
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": _INDEX,
            "manifests": [
                _descriptor(_MANIFEST, manifest)
                | {
                    "platform": {"architecture": image.architecture, "os": "linux"},
                    "annotations": {_REF: image.version},
                }
            ],
        }
    )
    files: dict[str, Path | bytes] = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": index,
        _blob(_digest(config)): config,
        _blob(_digest(manifest)): manifest,
        **{_blob(layer.digest): layer.path for layer in layers},
    }
    write_tar(files, path)
    return _digest(manifest)


def _config(image: Image, layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "created": image.created,
        "architecture": image.architecture,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
            "Cmd": list(image.command),
            "WorkingDir": "/",
            "Labels": dict(image.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": image.created, "created_by": layer.created_by} for layer in layers],
    }


def _manifest(image: Image, config: bytes, layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, config),
        "layers": [
            {"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in layers
        ],
        "annotations": dict(image.labels),
    }


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
