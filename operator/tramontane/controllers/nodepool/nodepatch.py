"""Write labels and our one taint on a Node in a single JSON patch that harms nobody's.

`spec.taints` is an atomic list: whoever writes it whole can undo what somebody else has just
added. So the patch names single items, and tests what it believes of each:

| taint in our key | wanted       | operations                                                |
|------------------|--------------|-----------------------------------------------------------|
| none             | one          | add at the end; or test that there is no list, and make it|
| one              | other value  | test the item's key and effect, replace its value         |
| one              | none         | test the item's key, remove the item                      |

A test that fails means that the Node is not what the cache says: read it and plan again.
"""

from collections.abc import Mapping
from typing import Any

from tramontane.api.names import TAINT_BLADE
from tramontane.kube.views import NodeView

Operation = dict[str, Any]

_EFFECT = "NoSchedule"


def plan(node: NodeView, labels: Mapping[str, str | None], taint: str | None) -> list[Operation]:
    """Return the operations that give the Node `labels` (None: without it) and our taint.

    Empty where nothing is to do.
    """
    return [*_labels(node, labels), *_taints(node, taint)]


def _labels(node: NodeView, labels: Mapping[str, str | None]) -> list[Operation]:
    operations: list[Operation] = []
    if not node.labels and any(value is not None for value in labels.values()):
        operations.append({"op": "add", "path": "/metadata/labels", "value": {}})
    for key, value in sorted(labels.items()):
        path = "/metadata/labels/" + key.replace("~", "~0").replace("/", "~1")
        if value is None and key in node.labels:
            operations.append({"op": "remove", "path": path})
        elif value is not None and node.labels.get(key) != value:
            operations.append({"op": "add", "path": path, "value": value})
    return operations


def _taints(node: NodeView, value: str | None) -> list[Operation]:
    operations: list[Operation] = []
    kept = False
    # From the end, so that a removal leaves the earlier indexes as they are.
    for index in reversed(range(len(node.taints))):
        taint = node.taints[index]
        if taint.key != TAINT_BLADE:
            continue
        path = f"/spec/taints/{index}"
        test = {"op": "test", "path": f"{path}/key", "value": TAINT_BLADE}
        if value is None or kept or taint.effect != _EFFECT:
            operations += [test, {"op": "remove", "path": path}]
            continue
        kept = True
        if taint.value != value:
            operations += [
                test,
                {"op": "test", "path": f"{path}/effect", "value": _EFFECT},
                {"op": "add", "path": f"{path}/value", "value": value},
            ]
    if value is not None and not kept:
        ours = {"key": TAINT_BLADE, "value": value, "effect": _EFFECT}
        if node.taints:
            operations.append({"op": "add", "path": "/spec/taints/-", "value": ours})
        else:
            operations += [
                {"op": "test", "path": "/spec/taints", "value": None},
                {"op": "add", "path": "/spec/taints", "value": [ours]},
            ]
    return operations
