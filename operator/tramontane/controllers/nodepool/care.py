"""Read from a NodePool what its blades go through: qualification, repair, drain. Parsed once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tramontane.api.nodepool import NodePool, RepairPod, ResetBy
from tramontane.api.quantity import parse_duration

Raw = dict[str, Any]

SOAK, BURN_IN, COLLECTIVE = "soak", "burnIn", "collective"

# A reset takes seconds, a reboot of an 8-GPU blade up to a quarter of an hour; a repair that takes
# longer has failed. Source: NVSentinel, 25 minutes per remediation.
REPAIR_TIMEOUT_S = 1500.0


@dataclass(frozen=True, slots=True)
class Test:
    """A pod that tests a blade, or one of a group. `groups` of at most so many blades."""

    template: Raw
    timeout_s: float
    group_size: int = 1
    min_bandwidth: float = 0.0


@dataclass(frozen=True, slots=True)
class Care:
    """What a pool's blades go through.

    Attributes:
        soak_s: time that all passive checks must be clean.
        repeat_idle_s: how often idle blades run the burn-in again; 0: never.
        attempts: failed repairs of one fault before RMA.
        drain_timeout_s: how long a drain waits for those who do not know of it.
        reset_by: whether a reset is enough for a fault that asks for one, or it takes a reboot.
        reset, reboot: pods that repair; None: nobody can but a person.
    """

    soak_s: float = 0.0
    burn_in: Test | None = None
    collective: Test | None = None
    repeat_idle_s: float = 0.0
    attempts: int = 2
    drain_timeout_s: float = 1800.0
    reset_by: ResetBy = ResetBy.RESET
    reset: Raw | None = None
    reboot: Raw | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the steps of qualification, in order; empty where a clean report is enough."""
        named = ((SOAK, self.soak_s), (BURN_IN, self.burn_in), (COLLECTIVE, self.collective))
        return tuple(name for name, given in named if given)

    def after(self, step: str | None) -> str | None:
        """Return the step that follows, or None after the last; also if `step` is no more."""
        order = (SOAK, BURN_IN, COLLECTIVE)
        later = order[order.index(step) + 1 :] if step in order else ()
        return next((one for one in later if one in self.steps), None)


def read(pool: NodePool, reset: Raw | None = None) -> Care:
    """Return the care of a pool.

    Args:
        pool: as its owner wrote it.
        reset: the pod that resets where the pool gives none; None: nobody can but a person.

    Raises:
        InvalidValue: a value that the CRD would have refused.
    """
    remediation = pool.spec.remediation
    repairs = Care(
        attempts=remediation.attempts,
        drain_timeout_s=parse_duration(remediation.drain.timeout),
        reset_by=remediation.reset_by,
        reset=_template(remediation.reset) or reset,
        reboot=_template(remediation.reboot),
    )
    asked = pool.spec.qualification
    if asked is None:
        return repairs
    burn_in, collective = asked.burn_in, asked.collective
    return replace(
        repairs,
        soak_s=parse_duration(asked.soak),
        burn_in=Test(burn_in.template, parse_duration(burn_in.timeout)) if burn_in else None,
        collective=Test(
            collective.template,
            parse_duration(collective.timeout),
            collective.group_size,
            collective.min_bandwidth,
        )
        if collective
        else None,
        repeat_idle_s=parse_duration(asked.repeat_idle_every),
    )


def _template(pod: RepairPod | None) -> Raw | None:
    return pod.template if pod is not None else None


def reset_by(image: str, pull_secrets: Sequence[str] = ()) -> Raw:
    """Return the pod that resets a GPU with the host's own nvidia-smi; the GPU must be idle.

    Args:
        image: one with nsenter, as our agent's.
        pull_secrets: names of Secrets in the operator's namespace, for its registry.
    """
    command = (
        'if [ "$TRAMONTANE_GPU" = all ]; then exec nvidia-smi --gpu-reset; '
        'else exec nvidia-smi --gpu-reset -i "$TRAMONTANE_GPU"; fi'
    )
    container = {
        "name": "reset",
        "image": image,
        "command": ["nsenter", "--target", "1", "--mount", "--", "sh", "-c", command],
        # Our image's user is not root, and even privileged it would have no capability in effect.
        "securityContext": {"privileged": True, "runAsUser": 0},
    }
    secrets = [{"name": name} for name in pull_secrets]
    return {"spec": {"hostPID": True, "containers": [container], "imagePullSecrets": secrets}}
