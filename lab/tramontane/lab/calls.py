"""Call a program that has to succeed: what it says is the answer, or why there is none."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tramontane.lab.paths import LabError

_TIMEOUT_S = 900
_MOST_SAID = 500


def call(
    argv: Sequence[str | Path],
    must: str,
    remedy: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Return what a program printed; `must` says what has to be, `remedy` what to do if it is not.

    Raises:
        LabError: it ended with another status than 0; the end of what it said is in the message.
    """
    done = subprocess.run(  # noqa: S603 - callers name our own programs
        argv,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-_MOST_SAID:]
        raise LabError(f"{must} (got: {said}); {remedy}")
    return done.stdout
