"""Run one process per GPU of this blade, and make one outcome of theirs.

RANK and WORLD_SIZE count blades; with p processes on each, process l of blade r is rank
r · p + l of a group p times as large. All processes of a group come to the same verdict, unless
one of them broke:

| processes of the blade            | the blade's outcome                        |
|-----------------------------------|--------------------------------------------|
| one says FAIL                     | that one                                   |
| none does, one broke or says ERROR| ERROR, with its reason                     |
| all say PASS                      | the first one's                            |
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tramontane.health.burnin.outcome import Outcome, Speaker, Verdict
from tramontane.health.collective.group import Member
from tramontane.health.collective.measure import CHECK

_MODULE = "tramontane.health.collective"
_NO_FILE = "/dev/null/none"  # the message is the parent's to write


def launch(arguments: Sequence[str], member: Member, processes: int, speaker: Speaker) -> Outcome:
    """Start the processes, wait for all of them, and return the blade's outcome."""
    # Later options win over the same ones before them.
    command = [sys.executable, "-m", _MODULE, *arguments, "--procs-per-blade", "1"]
    command += ["--termination-log", _NO_FILE]
    children = []
    for local in range(processes):
        own = member.split(local, processes)
        ranks = {"RANK": own.rank, "WORLD_SIZE": own.size, "LOCAL_RANK": local}
        children.append(
            subprocess.Popen(  # noqa: S603 our own interpreter and module
                command,
                stdout=subprocess.PIPE,
                stderr=None if local == 0 else subprocess.DEVNULL,
                env=os.environ | {name: str(value) for name, value in ranks.items()},
                text=True,
            )
        )
    for child in children:
        speaker.before_stop(child.kill)
    speaker.note(f"{processes} processes")
    outputs = [child.communicate()[0] for child in children]
    return combine(
        [read(out, child.returncode) for out, child in zip(outputs, children, strict=True)]
    )


def read(output: str, exit_code: int) -> Outcome:
    """Return the outcome of a process from its last line, or what its end says without one."""
    try:
        said: dict[str, Any] = json.loads((output.splitlines() or [""])[-1])
        return Outcome(
            said["check"],
            Verdict[said["verdict"]],
            said["reason"],
            said["value"],
            said["unit"],
            said["details"],
        )
    except (ValueError, KeyError, TypeError):
        end = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return Outcome(CHECK, Verdict.ERROR, f"ended by {end} without an outcome")


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of the module's table."""
    for verdict in (Verdict.FAIL, Verdict.ERROR):
        for local, outcome in enumerate(outcomes):
            if outcome.verdict is verdict:
                return Outcome(
                    CHECK,
                    verdict,
                    f"process {local}: {outcome.reason}",
                    outcome.value,
                    outcome.unit,
                    outcome.details,
                )
    return outcomes[0]
