"""Lay a user's pod template over the one that Tramontane makes, as a strategic merge would."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

Raw = dict[str, Any]

# Lists whose items have a key: an item of the same key is merged, or replaced where it is one
# choice of many, in which both would be none.
_MERGED: Final = {"containers": "name", "initContainers": "name", "imagePullSecrets": "name"}
_REPLACED: Final = {
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> Raw:
    """Return `over` laid over `base`; neither is changed.

    | field | what wins |
    |---|---|
    | object | merged, field by field |
    | containers, init containers | merged by name; what has another name is added |
    | env, volumes, volumeMounts, ports | by name, path or port; the user's as a whole |
    | another list, a plain value | the user's |

    What is ours keeps its place in a list, so that variables of the user can refer to ours.
    """
    merged = dict(base)
    for field, value in over.items():
        ours = base.get(field)
        if isinstance(ours, Mapping) and isinstance(value, Mapping):
            merged[field] = overlaid(ours, value)
        elif ours and field in _MERGED | _REPLACED and isinstance(value, Sequence):
            merged[field] = _items(field, ours, value)
        else:
            merged[field] = value
    return merged


def _items(field: str, base: Sequence[Raw], over: Sequence[Raw]) -> list[Raw]:
    key = (_MERGED | _REPLACED)[field]
    items = {item.get(key): item for item in base}
    for item in over:
        ours = items.get(item.get(key))
        items[item.get(key)] = item if ours is None or field in _REPLACED else overlaid(ours, item)
    return list(items.values())
