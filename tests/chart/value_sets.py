"""The sets of values that the chart is tried with: each switch on in one, off in another.

Whoever adds a switch adds it here; test_chart_effect.py tells who forgot.
"""

from collections.abc import Mapping
from typing import Any

DIGEST = "sha256:" + "a" * 64

VALUE_SETS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "air-gapped": {
        "image": {
            "registry": "registry.hall:5000/mirror",
            "repository": "gpu/tramontane",
            "digest": DIGEST,
        },
        "agent": {"image": {"repository": "gpu/tramontane-agent", "digest": DIGEST}},
        "imagePullSecrets": [{"name": "mirror"}],
        "commonLabels": {"team": "platform"},
        "crds": {"keep": False},
        "priorityClasses": {"keep": False},
    },
    "host-driver": {
        "agent": {
            "access": "Host",
            "driverRoot": "/run/nvidia/driver",
            "nvmlLibrary": "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        }
    },
    "single": {"operator": {"replicas": 1}, "scheduler": {"replicas": 1}, "dryRun": True},
    "metrics": {
        "metrics": {
            "port": 9400,
            "detail": "low",
            "service": {"enabled": True, "annotations": {"a": "b"}},
        }
    },
    "observed": {
        "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbookUrl": "https://wiki.hall/runbooks",
            "dashboardUrl": "https://grafana.hall",
            "powerBudgetWatts": 900_000,
        },
        "dashboards": {"enabled": True, "namespace": "grafana"},
        "monitoring": {"cluster": "paris"},
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [
                {
                    "namespaceSelector": {
                        "matchLabels": {"kubernetes.io/metadata.name": "monitoring"}
                    }
                }
            ],
            "apiServer": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
            "operatorTo": [
                {"ipBlock": {"cidr": "10.1.0.0/16", "except": ["10.1.255.0/24"]}},
                {"ipBlock": {"cidr": "fd00:1::/48"}},
            ],
        },
    },
    "observed-by-services": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {"enabled": True},
    },
    "extras": {
        component: {
            "extraArgs": ["--log-level=debug"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.hall:3128"}],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "hall-ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/hall", "readOnly": True}],
            "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"},
            "tolerations": [{"key": "infra", "operator": "Exists"}],
        }
        for component in ("operator", "scheduler", "agent")
    },
    "bare": {
        "crds": {"enabled": False},
        "priorityClasses": {"enabled": False},
        "rbac": {"create": False},
        "admissionPolicy": {"enabled": False},
        "agent": {"enabled": False},
        "doctor": {"enabled": False},
        "operator": {"serviceAccount": {"create": False, "name": "mine"}},
    },
    "own-roles": {
        "rbac": {"aggregate": False, "people": False},
        "scheduler": {"serviceAccount": {"create": False, "name": "mine"}},
        "agent": {"serviceAccount": {"create": False, "name": "mine"}},
    },
    "part-of-an-umbrella": {
        "global": {
            "imageRegistry": "mirror.hall",
            "imagePullSecrets": [{"name": "mirror"}],
            "dryRun": True,
        },
    },
    "long-names": {
        "fullnameOverride": "a" * 44,
        "metrics": {"service": {"enabled": True}},
        "dashboards": {"enabled": True},
    },
}
