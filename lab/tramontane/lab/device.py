"""The GPUs of a simulated blade: the agent's device in memory, and what only a lab does to it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tramontane.health.device import GpuReading, Unsupported
from tramontane.health.fake import FakeDevice


class LabDevice(FakeDevice):
    """A `FakeDevice` of which GPUs can be missing."""

    def __init__(self, name: str, **how: Any) -> None:
        super().__init__(name, **how)
        self._all_facts = self._facts

    def remove(self, gpu: int) -> None:
        """Take a GPU away: neither the bus nor the driver shows it, the rest move up."""
        left = [one for one in self._reading.gpus if one.index != gpu]
        self._facts = tuple(one.facts for one in left)
        gpus = tuple(replace(one, index=index) for index, one in enumerate(left))
        on_bus = self._reading.pci_gpus
        self._become(gpus=gpus, pci_gpus=None if on_bus is None else on_bus - 1)

    def heal(self) -> None:
        """Repair the blade as a technician does: with all the GPUs that it should have."""
        self._facts = self._all_facts
        if self._reading.pci_gpus is not None:
            self._become(pci_gpus=len(self._all_facts))
        super().heal()

    def reset_all(self) -> None:
        """Reset every GPU that the driver shows."""
        for gpu in self._reading.gpus:
            self.reset(gpu.index)

    def change(self, gpu: int, values: Mapping[str, Any]) -> None:
        """Change values of one GPU, but for those that it does not have."""
        had: GpuReading = self._reading.gpus[gpu]
        known = {
            name: value
            for name, value in values.items()
            if not isinstance(getattr(had, name), Unsupported)
        }
        self.set(gpu, **known)
