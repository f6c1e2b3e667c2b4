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
from tramontane.controllers.trainingjob.template import gpus_of, trainer_of

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HOST_NAME_MAX: Final = 63
_AGENT_ENV: Final = frozenset({"TRAMONTANE_AGENT_FOLDER"})
_UNBOUNDED: Final = re.compile(r"[*+]|\{\d*,\}")


def problem_of(job: TrainingJob) -> str | None:
    """Return the first thing that is wrong with the job, or None."""
    found = next(_problems(job), None)
    return None if found is None else f"TrainingJob {job.key}: {found}"


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
    yield from _launcher(spec)
    yield from _environment(spec)
    yield from _gpus(spec)
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


def _launcher(spec: TrainingJobSpec) -> Iterator[str]:
    launcher = spec.launcher
    if launcher.replica_groups > 1:
        yield (
            f"launcher.replicaGroups must be 1 (got {launcher.replica_groups}); replica groups "
            "with a lighthouse are not served by this version"
        )
    if launcher.type is LauncherType.JAX and (launcher.procs_per_node or 1) > 1:
        yield (
            f"launcher.procsPerNode must be 1 with type jax (got {launcher.procs_per_node}); one "
            "process drives all GPUs of a blade"
        )


def _environment(spec: TrainingJobSpec) -> Iterator[str]:
    refused = set(RESERVED_ENV) | _AGENT_ENV
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


def _pattern(field: str, pattern: str | None, group: str) -> Iterator[str]:
    if not pattern:
        return
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f'{field} must be a regular expression (got "{pattern}": {error})'
        return
    if group not in compiled.groupindex:
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
