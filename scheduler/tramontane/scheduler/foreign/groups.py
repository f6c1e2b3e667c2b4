"""Say which group a pod of another controller belongs to, and where its size stands.

| first that fits, on the pod | group | its size |
|---|---|---|
| label `tramontane.dev/gang`                        | of that name            | annotation |
| `spec.schedulingGroup.podGroupName` (1.36)         | that PodGroup           | `gang.minCount` |
| `spec.workloadRef` (1.35)                          | that replica of a group | `gang.minCount` |
| label `jobset.sigs.k8s.io/jobset-name`             | an attempt of the JobSet | its jobs |
| label `leaderworkerset.sigs.k8s.io/name`           | one of its groups       | annotation |
| annotation `scheduling.k8s.io/group-name` (Volcano) | that PodGroup          | `minMember` |
| label `scheduling.x-k8s.io/pod-group`              | that PodGroup           | `minMember` |
| none of these                                      | the pod alone           | 1 |

The annotation `tramontane.dev/gang-size` goes before every other size. Kubeflow Trainer makes
JobSets. Source: KEP-4671 (gangs), and the label tables of JobSet, LeaderWorkerSet, Volcano.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tramontane.api.names import LABEL_GANG
from tramontane.scheduler.records import Raw

WHOLE: Final = ""
UPSTREAM: Final = "scheduling.k8s.io/podgroups"
WORKLOAD: Final = "scheduling.k8s.io/workloads"
JOBSET: Final = "jobset.x-k8s.io/jobsets"
VOLCANO: Final = "scheduling.volcano.sh/podgroups"
COSCHEDULING: Final = "scheduling.x-k8s.io/podgroups"

_JOBSET: Final = "jobset.sigs.k8s.io"
_LWS: Final = "leaderworkerset.sigs.k8s.io"

# Pods per part of a group; of one that must be whole, under WHOLE. 0: its pods need no company.
Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Hold the group that a pod says it belongs to.

    `name` is unique in the namespace, and empty for a pod alone. `api` is the kind of the object
    that says how many pods there are, `of` its name and `part` the part of it; empty where the
    pods say so themselves.
    """

    name: str = ""
    api: str = ""
    of: str = ""
    part: str = ""


ALONE: Final = Group()


def group_of(raw: Raw) -> Group:
    """Return the group of a pod; see the table above."""
    return next(_claimed(raw), ALONE)


def size_annotation(notes: Mapping[str, str]) -> str | None:
    """Return how many pods the group has, as LeaderWorkerSet writes it on each of them."""
    return notes.get(f"{_LWS}/size")


def upstream_sizes(raw: Raw) -> Sizes:
    """Return the size of a PodGroup of Kubernetes; one with another policy than gang has none."""
    return {WHOLE: _least((raw.get("spec") or {}).get("schedulingPolicy"))}


def workload_sizes(raw: Raw) -> Sizes:
    """Return the sizes of the groups of a Workload (1.35), by name."""
    groups = (raw.get("spec") or {}).get("podGroups") or ()
    return {group["name"]: _least(group.get("policy")) for group in groups}


def member_sizes(raw: Raw) -> Sizes:
    """Return the size of a PodGroup of Volcano or of the coscheduling plugin."""
    return {WHOLE: int((raw.get("spec") or {}).get("minMember") or 0)}


def jobset_sizes(raw: Raw) -> Sizes:
    """Return the pods of a JobSet: of all its jobs, or by job where some wait for others.

    Jobs that start one after another are never there all at once: each is a gang of its own.
    """
    spec = raw.get("spec") or {}
    jobs = spec.get("replicatedJobs") or ()
    sizes = {job["name"]: int(job.get("replicas", 1)) * _parallel(job) for job in jobs}
    in_order = (spec.get("startupPolicy") or {}).get("startupPolicyOrder") == "InOrder"
    if in_order or any(job.get("dependsOn") for job in jobs):
        return sizes
    return {WHOLE: sum(sizes.values())}


def _claimed(raw: Raw) -> Iterator[Group]:
    meta, spec = raw["metadata"], raw.get("spec") or {}
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    if name := labels.get(LABEL_GANG):
        yield _group(name)
    if name := (spec.get("schedulingGroup") or {}).get("podGroupName"):
        yield _group(f"podgroup:{name}", UPSTREAM, name)
    if ref := spec.get("workloadRef"):
        part = ref.get("podGroup") or ""
        name = ":".join(filter(None, (ref["name"], part, ref.get("podGroupReplicaKey"))))
        yield _group(f"workload:{name}", WORKLOAD, ref["name"], part)
    if name := labels.get(f"{_JOBSET}/jobset-name"):
        attempt = labels.get(f"{_JOBSET}/restart-attempt", "0")
        job = labels.get(f"{_JOBSET}/replicatedjob-name", "")
        yield _group(f"jobset:{name}:{attempt}", JOBSET, name, job)
    if name := labels.get(f"{_LWS}/name"):
        yield _group(f"lws:{name}:{labels.get(f'{_LWS}/group-index', '0')}")
    if name := notes.get("scheduling.k8s.io/group-name"):
        yield _group(f"volcano:{name}", VOLCANO, name)
    if name := labels.get("scheduling.x-k8s.io/pod-group"):
        yield _group(f"podgroup.x:{name}", COSCHEDULING, name)


def _parallel(job: Raw) -> int:
    spec = (job.get("template") or {}).get("spec") or {}
    parallelism = int(spec.get("parallelism", 1))
    completions = spec.get("completions")
    return parallelism if completions is None else min(parallelism, int(completions))


def _least(policy: Raw | None) -> int:
    return int(((policy or {}).get("gang") or {}).get("minCount") or 0)


def _group(name: str, api: str = "", of: str = "", part: str = "") -> Group:
    return Group(sys.intern(name), api, sys.intern(of), sys.intern(part))
