"""Simulate NVML as the real thing: a shared library that pynvml loads unchanged.

`library.build` compiles `src/` into the cache; `state` describes a machine and writes the file
from which the library answers. A process sees the simulated machine when it finds the library
(`LD_LIBRARY_PATH`, or the agent's `--nvml-library`) and `TRAMONTANE_NVML_STATE` names the file:

    library = build(cache_dir)
    machine = StateFile(folder / "gpu-0001.nvml")
    machine.write(blade("gpu-0001"))
    ...                                             # start the agent with machine.environment()
    machine.write(machine.state.with_gpu(3, lost=True).with_xid(3, 79))
"""

from tramontane.lab.nvml.library import build
from tramontane.lab.nvml.state import GpuState, NvmlEvent, NvmlState, StateFile, blade

__all__ = ["GpuState", "NvmlEvent", "NvmlState", "StateFile", "blade", "build"]
