"""Ask NVML through pynvml, and take its errors for what they say.

| error                                            | means                                      |
|--------------------------------------------------|--------------------------------------------|
| GpuIsLost, ResetRequired                         | a finding of its own, at once              |
| Uninitialized, DriverNotLoaded, LibRmVersion…    | the session is of no use: DeviceError      |
| NotSupported, FunctionNotFound, NoPermission, …  | this value is unknown: Unsupported(name)   |

Only the modules `nvml…` import pynvml, and only the child imports them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from tramontane.health.device import DeviceError, Unsupported

_SESSION_ERRORS = frozenset({"Uninitialized", "DriverNotLoaded", "LibRmVersionMismatch"})
# Members of NVML's union by its value type: double, unsigned int, unsigned long, …
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

T = TypeVar("T")


def error_name(error: Exception) -> str:
    """Return NVML's word for an error: `NVMLError_GpuIsLost` → `GpuIsLost`."""
    return type(error).__name__.removeprefix("NVMLError_")


def ask(call: Callable[[], T]) -> T | Unsupported:
    """Return what `call` returns, or why it does not.

    Raises:
        DeviceError: the error concerns the whole session.
    """
    try:
        return call()
    except pynvml.NVMLError as error:
        name = error_name(error)
        if name in _SESSION_ERRORS:
            raise DeviceError(name) from error
        return Unsupported(name)
    except pynvml.NVMLLibraryMismatchError:
        # What pynvml makes of FunctionNotFound where a function's name has no version.
        return Unsupported("FunctionNotFound")


def text(value: str | bytes | Unsupported) -> str:
    """Return what NVML says as text; nothing where it does not say it."""
    if isinstance(value, Unsupported):
        return ""
    return value.decode() if isinstance(value, bytes) else value


@dataclass(slots=True)
class Target:
    """A GPU to ask; `links` is how many NVLinks it has, 0 until that is known."""

    handle: Any
    links: int = 0


def fields(gpu: Target, wanted: Sequence[int | tuple[int, int]]) -> Sequence[Any]:
    """Return many values by one call, which succeeds although single ones fail: see `number`."""
    items: Sequence[Any] = pynvml.nvmlDeviceGetFieldValues(gpu.handle, wanted)
    return items


def number(item: Any) -> int:
    """Return a field's value.

    Raises:
        NVMLError: this one could not be read.
    """
    if item.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(item.nvmlReturn)
    kind = item.valueType
    return int(getattr(item.value, _MEMBERS[kind] if kind < len(_MEMBERS) else "ullVal"))


def field(gpu: Target, field_id: int) -> int:
    """Return the value of one field."""
    (item,) = fields(gpu, [field_id])
    return number(item)
