"""Read one GPU's links through pynvml: NVLink, the fabric behind it, PCIe.

How many NVLinks a GPU has is not told by a number that can be trusted on every generation; the
links are asked one after the other until NVML knows of no more, once per session. An error that
says anything else makes the links unknown for that look; they are counted at the next one.

| generation      | replays   | recoveries | CRC or effective errors | failed recoveries |
|-----------------|-----------|------------|-------------------------|-------------------|
| up to NVLink 4  | field 161 | field 162  | field 163               | -                 |
| NVLink 5        | -         | field 213  | field 219               | field 214         |
| older driver    | counter 0 | counter 1  | counter 2               | -                 |
"""

import ctypes
from collections.abc import Iterable, Sequence

import pynvml

from tramontane.health.device import Fabric, NvLinkErrors, OfMax
from tramontane.health.nvml_calls import Target, fields, number

_REPLAY, _RECOVERY, _CRC_FLIT = 0, 1, 2  # NVML_NVLINK_ERROR_DL_…
# What NVML answers beyond a GPU's last link, and of a field that this generation does not have.
_NO_MORE = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT})


def nvlinks(gpu: Target) -> tuple[int, ...]:
    """Return the state of each link.

    Raises:
        NVMLError: the GPU has no links, or a link that it had gives no answer.
    """
    if gpu.links:
        return tuple(_states(gpu, range(gpu.links)))
    found = _until_error(_states(gpu, range(pynvml.NVML_NVLINK_MAX_LINKS)))
    gpu.links = len(found)
    return tuple(found)


def _until_error(states: Iterable[int]) -> list[int]:
    """Return what comes before NVML knows of no more; another error is no end of the links."""
    found: list[int] = []
    try:
        for state in states:
            found.append(state)  # noqa: PERF402 -- what came before the error is wanted
    except pynvml.NVMLError as error:
        if not found or error.value not in _NO_MORE:
            raise
    return found


def _states(gpu: Target, links: Sequence[int]) -> Iterable[int]:
    """Yield states by field, or one by one from a driver that does not have the field."""
    items = fields(gpu, [(pynvml.NVML_FI_DEV_NVLINK_GET_STATE, link) for link in links])
    if items[0].nvmlReturn == pynvml.NVML_SUCCESS:
        yield from map(number, items)
        return
    for link in links:
        yield pynvml.nvmlDeviceGetNvLinkState(gpu.handle, link)


def nvlink_errors(gpu: Target) -> NvLinkErrors:
    """Return the error counts of each link, as this generation has them.

    Raises:
        NVMLError: the GPU has no links or does not count their errors.
    """
    if not gpu.links:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    counts = NvLinkErrors(
        replays=_counts(gpu, pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY),
        recoveries=_counts(gpu, pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY),
        crc=_counts(gpu, pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC),
    )
    if counts != NvLinkErrors():
        return counts
    counts = NvLinkErrors(
        recoveries=_counts(gpu, pynvml.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS),
        crc=_counts(gpu, pynvml.NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS),
        failed=_counts(gpu, pynvml.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS),
    )
    return _counted_singly(gpu) if counts == NvLinkErrors() else counts


def _counts(gpu: Target, field: int) -> tuple[int, ...]:
    items = fields(gpu, [(field, link) for link in range(gpu.links)])
    if items[0].nvmlReturn in _NO_MORE:
        return ()
    return tuple(map(number, items))


def _counted_singly(gpu: Target) -> NvLinkErrors:
    def counts(counter: int) -> tuple[int, ...]:
        return tuple(
            pynvml.nvmlDeviceGetNvLinkErrorCounter(gpu.handle, link, counter)
            for link in range(gpu.links)
        )

    return NvLinkErrors(counts(_REPLAY), counts(_RECOVERY), counts(_CRC_FLIT))


def fabric(gpu: Target) -> Fabric:
    """Return how the GPU stands with the fabric; without a summary from an older driver."""
    info = pynvml.c_nvmlGpuFabricInfo_v3_t()
    try:
        pynvml.nvmlDeviceGetGpuFabricInfoV(gpu.handle, ctypes.byref(info))
    except pynvml.NVMLError_ArgumentVersionMismatch:
        older = pynvml.c_nvmlGpuFabricInfo_v2_t()
        pynvml.nvmlDeviceGetGpuFabricInfoV(gpu.handle, ctypes.byref(older))
        return Fabric(older.state, older.status, older.healthMask)
    return Fabric(info.state, info.status, info.healthMask, info.healthSummary)


def pcie_width(gpu: Target) -> OfMax:
    """Return the number of PCIe lanes."""
    return OfMax(
        pynvml.nvmlDeviceGetCurrPcieLinkWidth(gpu.handle),
        pynvml.nvmlDeviceGetMaxPcieLinkWidth(gpu.handle),
    )


def pcie_generation(gpu: Target) -> OfMax:
    """Return the generation of the PCIe link, against what slot and GPU both can do."""
    return OfMax(
        pynvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu.handle),
        pynvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu.handle),
    )


def pcie_replays(gpu: Target) -> int:
    """Return the count of packets sent again."""
    replays: int = pynvml.nvmlDeviceGetPcieReplayCounter(gpu.handle)
    return replays
