"""Run one process per GPU of this blade, and make one outcome of theirs.

RANK and WORLD_SIZE count blades; with p processes on each, process l of blade r is rank
r · p + l of a group p times as large. All processes of a group come to the same verdict, unless
one of them broke:

| processes of the blade            | the blade's outcome                        |
|-----------------------------------|--------------------------------------------|
| one says FAIL                     | that one                                   |
| none does, one broke or says ERROR| ERROR, with its reason                     |
| one does not end after the others | ERROR, which                               |
| all say PASS                      | the first one's                            |
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from tramontane.health.burnin.outcome import Outcome, Speaker, Verdict
from tramontane.health.collective.group import Member
from tramontane.health.collective.measure import CHECK

_MODULE = "tramontane.health.collective"
_NO_FILE = "/dev/null/none"  # the message is the parent's to write
# On top of the time for which a process waits for its peers: to give up a sum that never ends.
_PATIENCE_S = 300.0


def launch(
    arguments: Sequence[str], member: Member, processes: int, speaker: Speaker, timeout_s: float
) -> Outcome:
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
    return combine(heard(children, timeout_s + _PATIENCE_S))


def heard(children: Sequence[subprocess.Popen[str]], patience_s: float) -> list[Outcome]:
    """Return the outcomes of the processes; none is waited for longer than so after the first."""
    threads = ThreadPoolExecutor(len(children))
    outputs = [threads.submit(child.communicate) for child in children]
    threads.shutdown(wait=False)
    wait(outputs, return_when=FIRST_COMPLETED)
    wait(outputs, patience_s)
    late = Outcome(CHECK, Verdict.ERROR, f"no end within {patience_s:g} s of another one's")
    outcomes = [
        read(output.result()[0], child.returncode) if output.done() else late
        for child, output in zip(children, outputs, strict=True)
    ]
    for child in children:
        child.kill()  # of those that have ended there is nothing to kill
    return outcomes


def read(output: str, exit_code: int) -> Outcome:
    """Return the outcome of a process, or what its end says without one.

    It is the last line, but for what a library writes there as it ends.
    """
    for line in reversed(output.splitlines()):
        try:
            said: dict[str, Any] = json.loads(line)
            return Outcome(
                said["check"],
                Verdict[said["verdict"]],
                said["reason"],
                said["value"],
                said["unit"],
                said["details"],
            )
        except (ValueError, KeyError, TypeError):
            continue
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
