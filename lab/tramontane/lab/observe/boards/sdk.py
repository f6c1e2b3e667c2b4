"""Import Grafana's types once, without their advice.

The SDK would rather have everybody write its second schema, and warns about the classic one at
import. The classic one is what every Grafana from 9 to 13 reads, also from a ConfigMap.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models import (
        bargauge,
        common,
        heatmap,
        prometheus,
        stat,
        statetimeline,
        table,
        text,
        timeseries,
    )
    from grafana_foundation_sdk.models import dashboard as model

__all__ = [
    "JSONEncoder",
    "bargauge",
    "common",
    "heatmap",
    "model",
    "prometheus",
    "register_default_plugins",
    "stat",
    "statetimeline",
    "table",
    "text",
    "timeseries",
]
