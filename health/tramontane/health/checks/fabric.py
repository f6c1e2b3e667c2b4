"""fabric: the GPU is registered with the NVLink fabric, and the fabric says that it is well.

| registration      | finding                                              | severity | action  |
|-------------------|------------------------------------------------------|----------|---------|
| 0 not supported   | none: the GPU is in no fabric                        | -        | -       |
| 1 not started     | fabric-not-registered (CUDA does not start)          | Degraded | Drain   |
| 2 in progress     | fabric-not-registered                                | Degraded | Drain   |
| 3 completed       | status other than 0: fabric-registration-failed      | Degraded | Reset   |

| health mask       | bits   | finding when                                 | severity | action  |
|-------------------|--------|----------------------------------------------|----------|---------|
| bandwidth         | 0-1    | 1: fabric-bandwidth                          | Degraded | Reset   |
| route recovery    | 2-3    | 1: fabric-recovering                         | Degraded | Drain   |
| route unhealthy   | 4-5    | 1: fabric-route                              | Degraded | Reset   |
| access timeout    | 6-7    | 1: fabric-recovering                         | Degraded | Drain   |
| configuration     | 8-11   | 2 to 8: fabric-configuration                 | Degraded | Inspect |
| partition         | 12-13  | 2: fabric-partition                          | Degraded | Drain   |
| fabric manager    | 14-15  | 2: fabric-manager                            | Degraded | Drain   |

Without partition or fabric manager a GPU may be well, in a blade that is used as a whole: where
the summary says healthy, these two are Info and ask for a look. A summary of unhealthy or of
limited capacity without any of these bits is a finding of its own (fabric-unhealthy). What
recovers by itself asks for no repair, only for no new work meanwhile.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import Fabric, GpuReading

# Source: nvml.h, NVML_GPU_FABRIC_STATE_* and NVML_GPU_FABRIC_HEALTH_SUMMARY_*.
_NOT_SUPPORTED, _NOT_STARTED, _IN_PROGRESS, _COMPLETED = range(4)
_HEALTHY = 1
_BAD_SUMMARIES = {2: "unhealthy", 3: "limited capacity"}
# Source: nvml.h, NVML_GPU_FABRIC_HEALTH_MASK_*: shift, the value that is bad.
_TRUE, _FALSE = 1, 2
_FLAGS = (
    (0, _TRUE, "fabric-bandwidth", Action.RESET, "bandwidth is degraded"),
    (2, _TRUE, "fabric-recovering", Action.DRAIN, "a route is being recovered"),
    (4, _TRUE, "fabric-route", Action.RESET, "a route is unhealthy"),
    (6, _TRUE, "fabric-recovering", Action.DRAIN, "a recovery from access timeouts goes on"),
    (12, _FALSE, "fabric-partition", Action.DRAIN, "the GPU is in no partition"),
    (14, _FALSE, "fabric-manager", Action.DRAIN, "the fabric manager is not connected"),
)
_DEPENDS = frozenset({"fabric-partition", "fabric-manager"})
_CONFIGURATION_SHIFT, _CONFIGURATION_FINE = 8, 1
_CONFIGURATIONS = {
    2: "wrong system GUID",
    3: "wrong chassis serial number",
    4: "no partition",
    5: "too few NVLinks",
    6: "incompatible firmware",
    7: "invalid location",
    8: "invalid GPU state",
}


def _judge(gpu: GpuReading, fabric: Fabric) -> Iterator[Finding]:
    if fabric.state in {_NOT_STARTED, _IN_PROGRESS}:
        words = "not started" if fabric.state == _NOT_STARTED else "in progress"
        evidence = f"registration with the fabric is {words}"
        yield from on(gpu, "fabric-not-registered", Severity.DEGRADED, Action.DRAIN, evidence)
    if fabric.state != _COMPLETED:
        return
    if fabric.status:
        evidence = f"registration with the fabric ended with NVML error {fabric.status}"
        yield from on(gpu, "fabric-registration-failed", Severity.DEGRADED, Action.RESET, evidence)
    found = list(_masked(gpu, fabric))
    yield from found
    if fabric.summary in _BAD_SUMMARIES and not found:
        evidence = f"the fabric's health is: {_BAD_SUMMARIES[fabric.summary]}"
        yield from on(gpu, "fabric-unhealthy", Severity.DEGRADED, Action.INSPECT, evidence)


def _masked(gpu: GpuReading, fabric: Fabric) -> Iterator[Finding]:
    mask = fabric.mask
    found: dict[str, tuple[Action, list[str]]] = {}
    for shift, bad, code, action, words in _FLAGS:
        if mask >> shift & 0x3 == bad:
            found.setdefault(code, (action, []))[1].append(words)
    configuration = mask >> _CONFIGURATION_SHIFT & 0xF
    if configuration > _CONFIGURATION_FINE:
        words = _CONFIGURATIONS.get(configuration, f"code {configuration}")
        found["fabric-configuration"] = (Action.INSPECT, [f"wrong configuration: {words}"])
    for code, (action, said) in found.items():
        evidence = f"{'; '.join(said)} (health mask {mask:#x})"
        if code in _DEPENDS and fabric.summary == _HEALTHY:
            yield from on(gpu, code, Severity.INFO, Action.INSPECT, evidence)
        else:
            yield from on(gpu, code, Severity.DEGRADED, action, evidence)


CHECK = per_gpu(
    "fabric",
    "NVML GpuFabricInfo v3: state, status, health mask; gpud's fabric-manager component",
    lambda gpu: gpu.fabric,
    _judge,
)
