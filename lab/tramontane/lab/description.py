"""What a lab was started with: written by `up`, read by the simulator and the later commands."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from tramontane.api.names import SYSTEM_NAMESPACE
from tramontane.lab.fleet import Layout
from tramontane.lab.paths import LabError

_FILE = "lab.json"


@dataclass(frozen=True, slots=True)
class Description:
    """One lab. `token` lets the commands talk to the simulator."""

    layout: Layout
    namespace: str = SYSTEM_NAMESPACE
    real_agents: tuple[str, ...] = ()
    real_nodes: int = 0
    simulated_agents: bool = True
    kubelet_port: int = 0
    metrics_ports: dict[str, int] = field(default_factory=dict)  # by process
    token: str = field(default="", repr=False)

    def save(self, folder: Path) -> None:
        """Write it into a lab's folder, for its owner only."""
        path = folder / _FILE
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from a lab's folder.

        Raises:
            LabError: no lab was started there.
        """
        try:
            raw = json.loads((folder / _FILE).read_text())
        except FileNotFoundError:
            raise LabError(
                f"lab {folder}: must have been started (got nothing there);"
                " `tramontane lab up` starts one"
            ) from None
        return cls(
            **raw | {"layout": Layout(**raw["layout"]), "real_agents": tuple(raw["real_agents"])}
        )
