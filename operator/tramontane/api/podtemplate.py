"""Type as much of a pod template as the API server must see to refuse a useless one.

The whole PodTemplateSpec would add 10,000 lines to each CRD. Only containers, their names, images
and environment are typed here; everything else passes through unread
(`x-kubernetes-preserve-unknown-fields` at each level) to the pods, where it is checked.
"""

from typing import Annotated, Any, Final

from pydantic import WithJsonSchema

_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

MAX_CONTAINERS: Final = 16
MAX_ENV: Final = 256


def _text(description: str, max_length: int, min_length: int = 0) -> dict[str, Any]:
    schema = {"type": "string", "description": description, "maxLength": max_length}
    return schema | ({"minLength": min_length} if min_length else {})


def _named(description: str, max_items: int, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "array",
        "description": description,
        "maxItems": max_items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {**_OPEN, "required": ["name"], "properties": properties},
    }


_ENV: Final = _named(
    "Environment of the container. Rank and size are set for it and are refused here. "
    "Example: [{name: NCCL_DEBUG, value: INFO}].",
    MAX_ENV,
    {
        "name": _text("Name of the variable. Example: NCCL_DEBUG.", 256, 1),
        "value": _text("Value of the variable. Default: empty. Example: INFO.", 32768),
    },
)
_CONTAINERS: Final = _named(
    "Containers of the pod. Example: [{name: trainer, image: registry.local/llama:12}].",
    MAX_CONTAINERS,
    {
        "name": _text("Name of the container. Example: trainer.", 63, 1),
        "image": _text("Image of the container. Example: registry.local/llama:12.", 1024),
        "env": _ENV,
    },
)


def _template(*, required: bool) -> dict[str, Any]:
    containers = _CONTAINERS | ({"minItems": 1} if required else {})
    spec = {
        **_OPEN,
        "description": "Specification of the pods, as in a core/v1 Pod. "
        "Example: {containers: [{name: trainer, image: registry.local/llama:12}]}.",
        "properties": {"containers": containers},
    }
    metadata = {
        **_OPEN,
        "description": "Labels and annotations of the pods. Example: {labels: {team: research}}.",
    }
    template: dict[str, Any] = {**_OPEN, "properties": {"metadata": metadata, "spec": spec}}
    if required:
        spec["required"] = ["containers"]
        template["required"] = ["spec"]
    return template


# A PodTemplateSpec that has containers.
PodTemplate = Annotated[dict[str, Any], WithJsonSchema(_template(required=True))]
# A PodTemplateSpec laid over one that Tramontane makes.
PodOverrides = Annotated[dict[str, Any], WithJsonSchema(_template(required=False))]
