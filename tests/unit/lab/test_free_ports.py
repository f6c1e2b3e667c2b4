"""Ports of a control plane: free, and not promised to another lab that has not bound them yet."""

import subprocess
import sys

import pytest

from tramontane.lab import controlplane
from tramontane.lab.controlplane import free_ports
from tramontane.lab.paths import LabError

PORTS = range(29_990, 29_994)
OTHER = f"""
import sys
from tramontane.lab import controlplane
controlplane.LISTENING_PORTS = {PORTS!r}
print(*controlplane.free_ports(3), flush=True)
sys.stdin.read()
"""


def test_what_another_process_was_given_is_not_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controlplane, "LISTENING_PORTS", PORTS)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        assert len(theirs) == 3
        assert free_ports(0) == []
        assert free_ports(1) == [*set(PORTS) - theirs]
        with pytest.raises(LabError, match="must have 2 free ones"):
            free_ports(2)
        other.stdin.close()
        other.wait(10)
        assert set(free_ports(4)) == set(PORTS), "it has ended, and so has its claim"
