"""Write the pool and the job of a simulated hall, as people would."""

from typing import Any

from tramontane.api.names import API_VERSION
from tramontane.lab.fleet import LABEL_BLOCK, LABEL_GPU, LABEL_RACK, Layout

Raw = dict[str, Any]

POOL = "hall"
NAMESPACE = "ml"
_REPAIR = {"spec": {"containers": [{"name": "repair", "image": "simulated"}]}}


def pool_of(layout: Layout, name: str = POOL, *, max_unavailable: str = "10%") -> Raw:
    """Return a NodePool of all blades of a layout, with pods that reset and reboot."""
    levels = [{"name": "block", "label": LABEL_BLOCK}, {"name": "rack", "label": LABEL_RACK}]
    return {
        "apiVersion": API_VERSION,
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"matchLabels": {LABEL_GPU: layout.gpu}},
            # No memory: read again at each look at each GPU, it would cost more than all else.
            "gpu": {"product": layout.product, "count": layout.gpus},
            "topology": {"levels": levels},
            "remediation": {
                "reset": {"template": _REPAIR},
                "reboot": {"template": _REPAIR},
                "maxUnavailable": max_unavailable,
            },
        },
    }


def job_of(name: str, nodes: int, **spec: Any) -> Raw:
    """Return a TrainingJob of whole blades that never ends by itself."""
    rank = {"name": "trainer", "image": "simulated", "command": ["python3", "train.py"]}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodePool": POOL,
            "nodes": nodes,
            "template": {"spec": {"containers": [rank]}},
            "checkpoint": {"savedPattern": r"saved step=(?P<step>\d+)"},
            **spec,
        },
    }
