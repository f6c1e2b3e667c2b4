"""Run pytest where there is no network, and count who asks for a name.

    python tests/node/airgap.py -q tests/unit/inferencedeployment

A network namespace of its own has nothing but `lo`: no other interface, no route, so nothing can
leave it. Names are asked for at 127.0.0.1, where nobody answers but each packet to port 53 is
counted; one is asked for first, to see that it is. A single query fails the run, and its name is
told: behind a firewall that drops instead of refusing it would have cost seconds.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.queries import Queries  # noqa: E402 - pytest does not run this

_INSIDE = "--inside"
_NO_RIGHTS = 77  # as test suites say "skipped"
_FILES = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    # Not by a socket of the machine's own resolver, which namespaces do not keep from anybody.
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_RESOLVERS = ("/run/nscd", "/run/systemd/resolve")
_EXAMPLE = "airgap.example.invalid"


def lacking() -> str:
    """Return why there can be no namespace here; empty where there can."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if not (unshare and ip):
        return "needs `unshare` and `ip`; install util-linux and iproute2"
    done = subprocess.run([*_outside(), "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() and f"needs the right to make namespaces: {done.stderr.strip()}"


def _outside() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *as_root, "--net", "--mount", "--propagation", "private"]


def main(arguments: list[str]) -> int:
    """Return pytest's exit code, 1 for a query, 77 where there can be no namespace."""
    if arguments[:1] == [_INSIDE]:
        return _inside(arguments[1:])
    if reason := lacking():
        _say(f"airgap: skipped: {reason}")
        return _NO_RIGHTS
    own = [sys.executable, "-P", __file__, _INSIDE, *arguments]
    return subprocess.run([*_outside(), *own], check=False).returncode


def _inside(arguments: list[str]) -> int:
    _close()
    interfaces = [name for _, name in socket.if_nameindex()]
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if interfaces != ["lo"] or routes:
        _say(f"airgap: there must be nothing but lo (got {interfaces}, {routes})")
        return 1
    with Queries("lo") as queries:
        with suppress(socket.gaierror):
            socket.getaddrinfo(_EXAMPLE, None)
        asked, names = queries.count(), queries.names()
        if not asked or _EXAMPLE not in names:
            _say(f"airgap: a query must be seen (got {asked} packets, {names})")
            return 1
        code = subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
        found, names = queries.count() - asked, queries.names()
    _say(f"airgap: interfaces: lo; routes: 0; packets to port 53: {found} {sorted(set(names))}")
    return code or int(found > 0)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _close() -> None:
    """Bring up what is left of the network: ourselves."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        for place, text in _FILES.items():
            if Path(place).exists():  # without them the C library does just this
                file = Path(folder) / Path(place).name
                file.write_text(text)
                file.chmod(0o644)
                subprocess.run(["mount", "--bind", file, place], check=True)
    for place in _RESOLVERS:
        if Path(place).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "airgap", place], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
