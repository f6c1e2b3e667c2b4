"""Fill a component's collectors as a hall of 10,000 GPUs does, and scrape it: series and time.

    python -m support.monitored operator|scheduler|agent [SCRAPES]      series, and CPU time
    python -m support.monitored operator|scheduler|agent text          a small hall, as scraped

A process of its own for each, because it fills the registry that the component itself exports.
1,250 blades of 8 GPUs in one pool, 2,000 jobs that train, 200 tenants, 300 deployments of vLLM that
serve; whatever has labels of its own (verbs, kinds, codes) has more of them than a cluster shows.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product
from math import inf
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from tramontane.api import clock
from tramontane.kube import metrics as kube
from tramontane.kube.process import scrape

BLADES, GPUS, JOBS, TENANTS, DEPLOYMENTS = 1250, 8, 2000, 200, 300
_SMALL = {"BLADES": 50, "JOBS": 2, "TENANTS": 2, "DEPLOYMENTS": 2}
NOW = 1_800_000_000.0
AT = clock.utc(NOW)
# What the operator and the scheduler ask of the API server: more than the cases that there are.
_VERBS = ("get", "list", "watch", "create", "apply", "patch", "delete")
_KINDS = (
    *("blades", "blades/status", "gangs", "gangs/status", "nodepools/status", "trainingjobs"),
    *("trainingjobs/status", "inferencedeployments/status", "nodes", "pods", "pods/log", "leases"),
)
_STATES = ("Healthy", "Healthy", "Healthy", "Quarantined", "Repairing")


def _requests() -> None:
    for verb, kind in product(_VERBS, _KINDS):
        kube.REQUEST_SECONDS.labels(verb, kind).observe(0.01)
        for code in ("200", "409"):
            kube.REQUESTS.labels(verb, kind, code).inc()
    for kind in _KINDS:
        kube.OBJECTS.labels(kind).set(1)
        for word in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            kube.WATCH_EVENTS.labels(kind, word).inc()
        for cause in ("served", "cut", "silent"):
            kube.WATCH_ENDS.labels(kind, cause).inc()
            kube.RELISTS.labels(kind, cause).inc()
    for queue, outcome in product(("blades", "nodepools", "jobs", "inference"), ("ok", "error")):
        kube.RECONCILE_SECONDS.labels(queue, outcome).observe(0.01)


def _operator() -> None:
    from tramontane.controllers import metrics  # noqa: PLC0415 - one component per process
    from tramontane.controllers.inferencedeployment.metrics import SERVED  # noqa: PLC0415
    from tramontane.controllers.nodepool.metrics import (  # noqa: PLC0415
        BLADES as SHOWN,
    )
    from tramontane.controllers.nodepool.metrics import POOLS, PoolShown  # noqa: PLC0415
    from tramontane.controllers.trainingjob.metrics import JOBS as TRAINING  # noqa: PLC0415

    _requests()
    POOLS.observe("paris-a", PoolShown(_pool(), 40, 125, 2, GPUS, 9000))
    SHOWN.lead(_caches())
    for job in _jobs():
        TRAINING.observe(job, job.status)
    totals = _totals()
    SERVED.count_by(lambda _: totals)
    for deployment, loads in _deployments():
        SERVED.observe(deployment, deployment.status, loads)
    for state, reason in product(("Healthy", "Quarantined", "Repairing"), map(str, range(20))):
        metrics.TRANSITIONS.labels("paris-a", state, reason).inc()
    metrics.OUT_SECONDS.labels("paris-a").observe(600)
    for stage, cause in product(("detected", "replaced", "running"), map(str, range(7))):
        metrics.RECOVERY_SECONDS.labels(stage, cause).observe(10)


def _pool() -> Any:
    from tramontane.api.nodepool import NodePoolStatus  # noqa: PLC0415

    tranches = [{"name": f"t{n}", "delivered": 64, "healthy": 60} for n in range(20)]
    return NodePoolStatus.model_validate(
        {
            "blades": {"total": BLADES, "healthy": 1200, "quarantined": 40, "repairing": 10},
            "tranches": tranches,
            "failureRate": "6.5",
            "spares": {"target": 12, "ready": 10},
            "breaker": {"state": "Closed"},
        }
    )


def _caches() -> Any:
    """Return what is read of the operator's caches: every blade has a seat, every tenth is odd."""
    from types import SimpleNamespace  # noqa: PLC0415

    from tramontane.api.blade import Blade  # noqa: PLC0415
    from tramontane.api.gang import Gang  # noqa: PLC0415

    blades = {}
    for number in range(BLADES):
        name = f"gpu-{number:04}"
        odd = number % 10 == 0
        status = {
            "state": _STATES[number % 50 // 10] if odd else "Healthy",
            "reason": "HardwareFault" if odd else None,
            "stateSince": AT,
            "history": {"lemonScore": "0.12" if odd else "0.00"},
        }
        blade = {"metadata": {"name": name}, "spec": {"pool": "paris-a"}, "status": status}
        blades[name] = Blade.model_validate(blade)
    gangs = {}
    for number in range(BLADES):
        owner = {"apiVersion": "tramontane.dev/v1alpha1", "kind": "TrainingJob", "uid": "u"}
        meta = {"name": f"job-{number}", "namespace": f"team-{number % TENANTS}"}
        gang = {
            "metadata": {**meta, "ownerReferences": [{**owner, "name": f"job-{number}"}]},
            "spec": {
                "pool": "paris-a",
                "slots": [{"name": "worker", "count": 1, "requests": {"nvidia.com/gpu": "8"}}],
            },
            "status": {"placement": {"seats": [f"gpu-{number:04}"], "spares": [], "size": 1}},
        }
        gangs[f"job-{number}"] = Gang.model_validate(gang)
    of = SimpleNamespace
    return of(blades=of(cache=blades), gangs=of(cache=gangs))


def _jobs() -> Iterator[Any]:
    from tramontane.api.trainingjob import TrainingJob, TrainingJobStatus  # noqa: PLC0415

    lost = dict.fromkeys(("queue", "start", "restart", "rework", "hang", "checkpoint"), "12s")
    raw = {
        "phase": "Running",
        "ready": "4/4",
        "size": 4,
        "gpus": 32,
        "step": 118400,
        "loss": "1.8031",
        "stepTime": "5.1s",
        "stepTimeP99": "7.9s",
        "lastCheckpoint": {"step": 118000, "at": AT},
        "checkpointAdvice": "22m",
        "goodput": {
            "productive": "86400s",
            "lost": {**lost, "preempted": "5s", "suspended": "5s"},
            "restart": {"detect": "2s", "replace": "3s", "resume": "7s"},
            "at": AT,
        },
        "restarts": {"user": 1, "infra": 4, "preempted": 1},
    }
    status = TrainingJobStatus.model_validate(raw)
    job = TrainingJob.model_validate(
        {
            "metadata": {"name": "llama", "creationTimestamp": clock.utc(NOW - 90_000)},
            "spec": {"nodes": 4, "template": {"spec": {"containers": [{"name": "trainer"}]}}},
        }
    )
    for number in range(JOBS):
        meta = {"name": f"llama-{number}", "namespace": f"team-{number % TENANTS}"}
        metadata = job.metadata.model_copy(update=meta)
        yield job.model_copy(update={"status": status, "metadata": metadata})


def _totals() -> Any:
    from tramontane.controllers.inferencedeployment.load import Histogram  # noqa: PLC0415
    from tramontane.controllers.inferencedeployment.totals import Totals  # noqa: PLC0415

    def of(bounds: int) -> Histogram:
        bounds_s = (*(0.005 * 1.6**n for n in range(bounds - 1)), inf)
        return Histogram(bounds_s, (7.0,) * bounds, 1.5)

    # As many buckets as vLLM has for either.
    return Totals(1000.0, 2.0, 1e6, of(23), of(20))


def _deployments() -> Iterator[tuple[Any, Any]]:
    from tramontane.api.inferencedeployment import InferenceDeployment  # noqa: PLC0415
    from tramontane.controllers.inferencedeployment.load import Load  # noqa: PLC0415

    loads = {"claims-0": Load(time.time() + 3600, running=4, waiting=2, kv_use=0.5)}
    for number in range(DEPLOYMENTS):
        meta = {"name": f"claims-{number}", "namespace": f"team-{number % TENANTS}"}
        raw = {
            "metadata": meta,
            "spec": {
                "model": {"source": {"hostPath": "/models/x"}, "servedName": "x"},
                "engine": {"name": "vllm", "version": "0.32", "image": "registry.local/vllm:1"},
                "capacity": {"contextTokens": 8192, "concurrentRequests": 8},
                "slo": {"ttftP95": "1s"},
            },
            "status": {
                "phase": "Serving",
                "ready": "1/1",
                "replicasWanted": 1,
                "plan": {"gpusPerReplica": 8},
                "replicas": [{"name": "claims-0", "state": "Serving", "blades": ["gpu-0001"]}],
            },
        }
        yield InferenceDeployment.model_validate(raw), loads


def _scheduler() -> None:
    from tramontane.scheduler import metrics  # noqa: PLC0415
    from tramontane.scheduler.records import TenantRecord  # noqa: PLC0415
    from unit.scheduler.builders import Hall, gang, placed  # noqa: PLC0415

    _requests()
    tenants = tuple(TenantRecord(f"team-{n}", 8, 64) for n in range(TENANTS))
    hall = Hall([25] * (BLADES // 25), racks_per_block=2, tenants=tenants)
    names = list(hall.blades)
    sits = [
        placed(f"s{n}", names[4 * n : 4 * n + 4], tenant=f"team-{n % TENANTS}")
        for n in range(BLADES // 4)
    ]
    waits = [gang(f"w{n}", 4, tenant=f"team-{n % TENANTS}") for n in range(100)]
    gangs = {one.key: one for one in (*sits, *waits)}
    metrics.count_pass(hall.decide(*gangs.values()), 0.02, gangs)


def _agent() -> None:
    from tramontane.health.metrics import Metrics  # noqa: PLC0415
    from unit.health.test_metrics import _full  # noqa: PLC0415

    metrics = Metrics()
    _full(metrics)
    asked = (("apply", "blades/status"), ("get", "blades"), ("patch", "leases"), ("get", "leases"))
    for verb, kind in asked:
        kube.REQUESTS.labels(verb, kind, "200").inc()


FILL: dict[str, Callable[[], None]] = {
    "operator": _operator,
    "scheduler": _scheduler,
    "agent": _agent,
}
MODULES = {
    "operator": "tramontane.controllers.__main__",
    "scheduler": "tramontane.scheduler.__main__",
    "agent": "tramontane.health.__main__",
}


def main(component: str, scrapes: str = "0") -> None:
    """Print the series of one scrape and the CPU time (s) that each took, or its text."""
    from prometheus_client import disable_created_metrics  # noqa: PLC0415 - as a process does

    disable_created_metrics()  # type: ignore[no-untyped-call]
    import_module(MODULES[component])
    if scrapes == "text":
        globals().update(_SMALL)
    FILL[component]()
    kube.CLOCK_SKEW.heard("Fri, 15 Jan 2027 08:00:00 GMT", NOW, NOW)
    for one in kube.__dict__.values():  # what nothing above has counted has one of each label
        if isinstance(one, MetricWrapperBase) and one._labelnames and not one._metrics:
            one.labels(*("x" for _ in one._labelnames))
    if scrapes == "text":
        sys.stdout.write(scrape().decode())
        return
    families = list(REGISTRY.collect())
    series = {family.name: len(family.samples) for family in families if family.samples}
    found = {
        "series": sum(series.values()),
        "lines": sum(series.values()) + 2 * len(families),
        "most": dict(sorted(series.items(), key=lambda item: -item[1])[:8]),
        "scrape_s": [_timed() for _ in range(int(scrapes))],
    }
    print(json.dumps(found))  # noqa: T201 - it is a command


def _timed() -> float:
    began = time.process_time()
    scrape()
    return time.process_time() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
