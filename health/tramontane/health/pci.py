"""Count the GPUs on the PCI bus, which the kernel knows whatever the driver makes of them."""

from pathlib import Path

DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
# 3D controllers; data-centre GPUs have no display and so are no VGA controllers (0x0300).
_CLASS_3D = "0x0302"


def count_gpus(devices: Path = DEVICES) -> int | None:
    """Return the number of NVIDIA 3D controllers, or None where sysfs cannot be read."""
    try:
        return sum(
            (device / "vendor").read_text().strip() == _NVIDIA
            and (device / "class").read_text().startswith(_CLASS_3D)
            for device in devices.iterdir()
        )
    except OSError:
        return None
