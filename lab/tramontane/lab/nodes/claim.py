"""One lab with real nodes on a machine at a time: who has it is written in /run.

Addresses, the bridge and the cgroups have fixed names, so a second lab would wreck the first. The
claim is written before anything is made and removed after everything is gone; one of a lab that
has died says what is to be swept up.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tramontane.lab.processes import start_ticks

CLAIM = Path("/run/tramontane-lab.json")


@dataclass(frozen=True, slots=True)
class Claim:
    """A lab that has, or had, real nodes here."""

    folder: Path
    pid: int  # of the process that claims; it may have ended, and the lab live on
    started: int
    made: tuple[str, ...] = ()  # folders of the machine that were made as mount points

    @classmethod
    def mine(cls, folder: Path, made: tuple[str, ...] = ()) -> "Claim":
        """Return a claim by this process."""
        return cls(folder, os.getpid(), start_ticks(os.getpid()) or 0, made)

    def claimer_lives(self) -> bool:
        """Tell whether the process that claimed still runs."""
        return start_ticks(self.pid) == self.started


@contextmanager
def locked(path: Path = CLAIM) -> Iterator[None]:
    """Let one process at a time look at the claim and change it."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # no file that would stay
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read(path: Path = CLAIM) -> Claim | None:
    """Return who has real nodes on this machine."""
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Claim(Path(raw["folder"]), raw["pid"], raw["started"], tuple(raw["made"]))


def write(claim: Claim, path: Path = CLAIM) -> None:
    """Write a claim, whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(claim) | {"folder": str(claim.folder)}))
    draft.replace(path)


def drop(path: Path = CLAIM) -> None:
    """Forget the claim."""
    path.unlink(missing_ok=True)
