"""Each value has an effect: another one for it, and the chart renders something else.

The table has to name every value, so a value that no template reads cannot be added.
"""

import operator
from collections.abc import Mapping
from functools import reduce
from typing import Any

import pytest

from chart.described import LEAVES, VALUES, schema_of
from chart.helm import CHART, Helm
from chart.value_sets import VALUE_SETS

COMPONENT: Mapping[str, Any] = {
    "replicas": 5,
    "extraArgs": ["--log-level=debug"],
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraVolumes": [{"name": "a", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}],
    "resources": {"requests": {"cpu": "7m"}},
    "priorityClassName": "other",
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a"}],
    "affinity": {"nodeAffinity": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "serviceAccount.create": False,
    "serviceAccount.name": "other",
    "serviceAccount.annotations": {"a": "b"},
}
HOST = {"agent": {"access": "Host"}}
SERVICES = {"podMonitor": {"enabled": False}, "serviceMonitor": {"enabled": True}}
OTHERS: Mapping[str, Any] = {
    "global.imageRegistry": "other",
    "global.imagePullSecrets": [{"name": "a"}],
    "global.dryRun": True,
    "dryRun": True,
    "fullnameOverride": "other",
    "commonLabels": {"a": "b"},
    "image.registry": "other",
    "image.repository": "other",
    "image.tag": "other",
    "image.digest": "sha256:" + "b" * 64,
    "image.pullPolicy": "Never",
    "imagePullSecrets": [{"name": "a"}],
    "logLevel": "debug",
    "crds.enabled": False,
    "crds.keep": False,
    "priorityClasses.enabled": False,
    "priorityClasses.keep": False,
    "rbac.create": False,
    "rbac.aggregate": False,
    "rbac.people": False,
    "admissionPolicy.enabled": False,
    "networkPolicy.enabled": False,
    "networkPolicy.metricsFrom": [{"podSelector": {}}],
    "networkPolicy.apiServer": [{"podSelector": {}}],
    "networkPolicy.apiServerPorts": [16443],
    "networkPolicy.operatorTo": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
    "metrics.port": 9999,
    "metrics.detail": "high",
    "metrics.service.enabled": False,
    "metrics.service.annotations": {"a": "b"},
    "monitoring.cluster": "other",
    "podMonitor.enabled": False,
    "podMonitor.interval": "7s",
    "podMonitor.labels": {"a": "b"},
    "serviceMonitor.enabled": False,
    "serviceMonitor.interval": "7s",
    "serviceMonitor.labels": {"a": "b"},
    "prometheusRule.enabled": False,
    "prometheusRule.labels": {"a": "b"},
    "prometheusRule.runbookUrl": "https://other",
    "prometheusRule.dashboardUrl": "https://other",
    "prometheusRule.gangPendingMinutes": 7,
    "prometheusRule.quarantineStormRatio": 0.7,
    "prometheusRule.quarantineStuckHours": 7,
    "prometheusRule.detectionSlowSeconds": 7,
    "prometheusRule.goodputObjective": 0.9,
    "prometheusRule.checkpointStaleMinutes": 7,
    "prometheusRule.powerBudgetWatts": 7,
    "prometheusRule.reconcileErrorRatio": 0.7,
    "prometheusRule.clockSkewSeconds": 7,
    "dashboards.enabled": False,
    "dashboards.labels": {"a": "b"},
    "dashboards.annotations": {"a": "b"},
    "dashboards.namespace": "other",
    "doctor.enabled": False,
    "doctor.resources": {"requests": {"cpu": "7m"}},
    "doctor.nodeSelector": {"a": "b"},
    "doctor.tolerations": [{"key": "a"}],
    **{f"{one}.{key}": to for one in ("operator", "scheduler") for key, to in COMPONENT.items()},
    **{f"agent.{key}": to for key, to in COMPONENT.items() if key not in {"replicas", "affinity"}},
    "agent.enabled": False,
    "agent.image.repository": "other",
    "agent.image.tag": "other",
    "agent.image.digest": "sha256:" + "b" * 64,
    "agent.interval": 7,
    "agent.access": "Host",
    "agent.runtimeClassName": "other",
    "agent.driverRoot": "/other",
    "agent.nvmlLibrary": "/other",
    "agent.maxUnavailable": 7,
}
# What has to stand beside a value for it to matter.
BESIDE: Mapping[str, Mapping[str, Any]] = {
    "agent.driverRoot": HOST,
    "serviceMonitor.enabled": SERVICES,
    "serviceMonitor.interval": SERVICES,
    "serviceMonitor.labels": SERVICES,
}
EVERYTHING: Mapping[str, Any] = {
    **{one: {"enabled": True} for one in ("networkPolicy", "podMonitor", "prometheusRule")},
    "dashboards": {"enabled": True},
    "metrics": {"service": {"enabled": True}},
}


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with more of them, map by map, as Helm merges them."""
    made = dict(values)
    for key, value in more.items():
        old = made.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            made[key] = merged(old, value)
        else:
            made[key] = value
    return made


def rendered(helm: Helm, values: Mapping[str, Any]) -> str:
    done = helm.run("template", "tramontane", str(CHART), values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_has_every_value() -> None:
    named = {".".join(path) for path in LEAVES}
    assert named == {path for path in OTHERS if not path.endswith(".resources")}


def test_each_switch_is_on_in_one_set_of_values_and_off_in_another() -> None:
    """What the API server and the schemas of Kubernetes are asked about is what the sets render."""
    switches = [path for path in LEAVES if schema_of(path) == {"type": "boolean"}]
    assert ("rbac", "people") in switches
    sets = [merged(VALUES, values) for values in VALUE_SETS.values()]
    tried = {
        ".".join(path): {bool(reduce(operator.getitem, path, values)) for values in sets}
        for path in switches
    }
    assert not [name for name, found in tried.items() if found != {True, False}]


@pytest.fixture(scope="module")
def plain(helm: Helm) -> str:
    return rendered(helm, EVERYTHING)


@pytest.mark.parametrize("path", OTHERS)
def test_each_value_has_an_effect(helm: Helm, plain: str, path: str) -> None:
    before = merged(EVERYTHING, BESIDE.get(path, {}))
    change: Any = OTHERS[path]
    for key in reversed(path.split(".")):
        change = {key: change}
    unchanged = rendered(helm, before) if path in BESIDE else plain
    assert rendered(helm, merged(before, change)) != unchanged
