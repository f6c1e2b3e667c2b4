"""Say what is wrong with a TrainingJob that the CRD's schema cannot see, before anything waits.

A gang that has waited for a day must not then turn out to have a pod that no kubelet takes. Each
finding names the field, what must be, what was given, and the way out. The checks of the pod
template are in `podcheck`; what only the API server knows (quotas, policies) is told when the
first pod is refused.
"""

import re
from collections.abc import Iterator
from typing import Final

from tramontane.api.trainingjob import (
    RESERVED_ENV,
    AgentMode,
    LauncherType,
    RestartPolicy,
    TrainingJob,
    TrainingJobSpec,
)
from tramontane.controllers.trainingjob import podcheck
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.launchers import lighthouse_name
from tramontane.controllers.trainingjob.template import gpus_of, trainer_of

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HOST_NAME_MAX: Final = 63
# What the kernel takes as a host name; beyond it no kubelet starts the pod.
_FULL_NAME_MAX: Final = 64
_CLUSTER_DOMAIN: Final = "svc.cluster.local"
# Beside what all schemas refuse: what differs by seat with replica groups and elastic sizes.
_SEAT_ENV: Final = frozenset(
    {"TRAMONTANE_AGENT_FOLDER", "REPLICA_GROUP_ID", "NUM_REPLICA_GROUPS", "PET_LOCAL_ADDR"}
)
# Blades that are wanted elsewhere are given up after it at the latest.
_LONGEST_GRACE_S: Final = 24 * 3600.0
_LONG_GRACE_S: Final = 3600.0
_UNBOUNDED: Final = re.compile(r"[*+]|\{\d*,\}")


def problem_of(job: TrainingJob) -> str | None:
    """Return the first thing that is wrong with the job, or None."""
    found = next(_problems(job), None)
    return None if found is None else f"TrainingJob {job.key}: {found}"


def spares_problem(job: TrainingJob, pool: str, blades: int) -> str | None:
    """Return what is wrong with the spares of a job in a pool of so many blades, or None.

    Not for a job that runs: a pool that shrinks must not keep it from recovering. A pool without
    blades has not been counted yet.
    """
    if job.spec.spares <= blades or blades == 0:
        return None
    return (
        f"TrainingJob {job.key}: spec.spares must be at most the blades of NodePool {pool} (got "
        f"{job.spec.spares}, and it has {blades}); ask for fewer, one per 64 blades is plenty"
    )


def note_of(spec: TrainingJobSpec) -> str | None:
    """Return what the owner should know though nothing is wrong, or None."""
    return "; ".join(_notes(spec)) or None


def _notes(spec: TrainingJobSpec) -> Iterator[str]:
    if (note := agent_note(spec)) is not None:
        yield note
    given, made = spec.template["spec"].get("restartPolicy"), restart_policy(spec)
    if given not in {None, made}:
        yield (
            f"template.spec.restartPolicy is {given}, and {made} is used; leave it out, "
            "spec.recovery says what restarts"
        )
    if seconds(spec.checkpoint.grace) >= _LONG_GRACE_S:
        yield (
            f"checkpoint.grace is {spec.checkpoint.grace}: so long may a blade be kept from "
            "whom it was promised to; save more often, or in less time"
        )


def agent_note(spec: TrainingJobSpec) -> str | None:
    """Return why the rank agent is not used although it may be, or None."""
    if spec.recovery.agent is AgentMode.AUTO and not trainer_of(spec.template).get("command"):
        return (
            "the rank agent is not used, because the rank's container has no command of its own; "
            "after a loss the kubelet restarts containers. Give it a command, or set "
            "recovery.agent: None"
        )
    return None


def uses_agent(spec: TrainingJobSpec) -> bool:
    """Return whether the rank agent is PID 1 of the rank's container."""
    return spec.recovery.agent is AgentMode.AUTO and agent_note(spec) is None


def restart_policy(spec: TrainingJobSpec) -> str:
    """Return Never where we restart ranks ourselves, OnFailure where the kubelet must.

    | agent | recovery.restart | policy |
    |---|---|---|
    | used | any | Never: the agent restarts the rank, and a pod that ends has ended |
    | not used | InPlace | OnFailure: the kubelet restarts survivors in their pods |
    | not used | Gang | Never: all pods are made anew |
    """
    if uses_agent(spec) or spec.recovery.restart is RestartPolicy.GANG:
        return "Never"
    return "OnFailure"


def _problems(job: TrainingJob) -> Iterator[str]:
    spec = job.spec
    yield from _names(job)
    yield from podcheck.problems(spec.template)
    yield from _launcher(job)
    yield from _environment(spec)
    yield from _gpus(spec)
    yield from _sizes(spec)
    yield from _grace(spec)
    yield from _patterns(spec)


def _names(job: TrainingJob) -> Iterator[str]:
    name, last = job.metadata.name, f"{job.metadata.name}-{job.spec.nodes - 1}"
    if not _NAME.fullmatch(name):
        yield (
            "metadata.name must begin with a letter and have only a-z, 0-9 and '-', because a "
            f'Service and host names are made of it (got "{name}")'
        )
    if len(last) > _HOST_NAME_MAX:
        yield (
            f"metadata.name must leave room for the seat in a host name of {_HOST_NAME_MAX} "
            f'characters (got "{last}", {len(last)}); use a shorter name'
        )


def _launcher(job: TrainingJob) -> Iterator[str]:
    launcher = job.spec.launcher
    if launcher.replica_groups > 1:
        yield from _groups(job)
    if launcher.type is LauncherType.JAX and (launcher.procs_per_node or 1) > 1:
        yield (
            f"launcher.procsPerNode must be 1 with type jax (got {launcher.procs_per_node}); one "
            "process drives all GPUs of a blade"
        )


def _groups(job: TrainingJob) -> Iterator[str]:
    """Yield what keeps replica groups from running; schemas of today refuse most of it."""
    spec, launcher = job.spec, job.spec.launcher
    groups = launcher.replica_groups
    if launcher.type is not LauncherType.TORCHRUN:
        yield (
            f"launcher.replicaGroups must be 1 with type {launcher.type} (got {groups}); only "
            "torchrun has groups that go on without a lost one"
        )
    for size in (spec.nodes, *(spec.elastic.sizes if spec.elastic else ())):
        if size % groups:
            yield (
                f"launcher.replicaGroups must divide the number of blades (got {groups} and "
                f"{size}); all groups are alike"
            )
    if launcher.min_replica_groups > groups:
        yield (
            f"launcher.minReplicaGroups must not exceed replicaGroups (got "
            f"{launcher.min_replica_groups} over {groups}); training would never begin"
        )
    name = lighthouse_name(job.metadata.name)
    if len(name) > _HOST_NAME_MAX:
        yield (
            f"metadata.name must leave room for the lighthouse in a host name of {_HOST_NAME_MAX} "
            f'characters (got "{name}", {len(name)}); use a shorter name'
        )
    meta = job.metadata
    last = f"{meta.name}-{spec.nodes - 1}.{meta.name}.{meta.namespace}.{_CLUSTER_DOMAIN}"
    if len(last) > _FULL_NAME_MAX and spec.template["spec"].get("setHostnameAsFQDN", True):
        yield (
            f"metadata.name must leave room for a full host name of {_FULL_NAME_MAX} characters "
            f'(got "{last}", {len(last)}), because replica groups find each other by it; use a '
            "shorter name, or setHostnameAsFQDN: false in the template, and tell torchft a name"
        )


def _sizes(spec: TrainingJobSpec) -> Iterator[str]:
    """Yield what is wrong with elastic sizes; schemas of today refuse it, stored jobs may have it.

    The launcher's range and a growing job both end at spec.nodes.
    """
    sizes = spec.elastic.sizes if spec.elastic else ()
    if sizes and max(sizes) != spec.nodes:
        yield (
            f"elastic.sizes must have spec.nodes, {spec.nodes}, as their largest (got "
            f"{', '.join(map(str, sizes))}); put it first, or change spec.nodes"
        )


def _grace(spec: TrainingJobSpec) -> Iterator[str]:
    if seconds(spec.checkpoint.grace) > _LONGEST_GRACE_S:
        yield (
            f"checkpoint.grace must be at most 24h (got {spec.checkpoint.grace}), because others "
            "wait so long for the blades; save more often, or in less time"
        )


def _environment(spec: TrainingJobSpec) -> Iterator[str]:
    refused = set(RESERVED_ENV) | _SEAT_ENV
    if spec.launcher.type is LauncherType.NONE:
        refused = {name for name in refused if name.startswith("TRAMONTANE_")}
    for container in spec.template["spec"]["containers"]:
        for variable in container.get("env") or ():
            if variable.get("name") in refused:
                yield (
                    f"{variable['name']} must not be set in container {container['name']}, "
                    "because rank and size differ per pod and attempt and are set for it; remove "
                    "it, or use launcher.type: none"
                )


def _gpus(spec: TrainingJobSpec) -> Iterator[str]:
    asked = gpus_of(spec.template)
    if spec.gpus_per_node is not None and asked not in {None, spec.gpus_per_node}:
        yield (
            f"gpusPerNode must be what the template's containers ask for together "
            f"(got {spec.gpus_per_node} and {asked}); leave one of them out"
        )


def _patterns(spec: TrainingJobSpec) -> Iterator[str]:
    step = spec.progress.effective_step_pattern
    yield from _pattern("progress.stepPattern", step, "step")
    yield from _pattern("progress.lossPattern", spec.progress.loss_pattern, "loss")
    yield from _pattern("checkpoint.savedPattern", spec.checkpoint.saved_pattern, "step")
    yield from _pattern("checkpoint.savingPattern", spec.checkpoint.saving_pattern, None)


def _pattern(field: str, pattern: str | None, group: str | None) -> Iterator[str]:
    if not pattern:
        return
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f'{field} must be a regular expression (got "{pattern}": {error})'
        return
    if group is not None and group not in compiled.groupindex:
        yield (
            f'{field} must have a group named {group} (got "{pattern}"); write it as '
            rf"'{group} (?P<{group}>\d+)'"
        )
    if _repeats_repeats(pattern):
        yield (
            f'{field} must not repeat a group that itself repeats something (got "{pattern}"), '
            "because one line could then take hours to match; write it without the inner or the "
            "outer repetition"
        )


def _repeats_repeats(pattern: str) -> bool:
    """Return whether a group with an unbounded repetition inside is repeated without bound.

    Such patterns, `(a+)+`, take exponential time on lines that almost match. Escapes and
    character classes are skipped; O(length).
    """
    inner = [False]  # per open group: whether it has an unbounded repetition inside
    at, closed = 0, False  # `closed`: the last thing was a group with a repetition inside
    while at < len(pattern):
        char = pattern[at]
        repeat = _UNBOUNDED.match(pattern, at)
        if repeat is not None:
            if closed:
                return True
            inner[-1] = True
            at = repeat.end()
            continue
        closed = False
        if char == "\\":
            at += 1
        elif char == "[":
            at = _end_of_class(pattern, at)
        elif char == "(":
            inner.append(False)
        elif char == ")" and len(inner) > 1:
            closed = inner.pop()
            inner[-1] = inner[-1] or closed
        at += 1
    return False


def _end_of_class(pattern: str, at: int) -> int:
    """Return the index of the `]` that ends the character class beginning at `at`."""
    at += 2 if pattern[at + 1 : at + 2] == "^" else 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
