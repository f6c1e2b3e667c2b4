"""What it costs to follow the logs of 2,000 running jobs.

    make bench ARGS=follower

The operator's own followers in a process of their own, over the operator's own client; a server in
another process writes ten lines a second into each of 2,000 logs, each line in a chunk of its own,
as a kubelet's come through the API server. Measured once over plain HTTP; once over TLS, as it is
in a cluster; and once with four more logs that begin, as the measuring does, with a line of 10 MB,
with 10 MB of binary noise without a newline (two of them), and with a million lines at once.

The CPU is that of the following process alone. Where the machine has too little time for the
server, fewer lines come; so the budget is on the CPU per line at the full rate, or what was used,
whichever is more.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench import results
from bench.follower_process import WARM_UP_S
from bench.follower_server import LINES_A_SECOND
from bench.results import Budget
from support.scripted import kubeconfig
from tramontane.lab.keys import make_keys, write_kubeconfig

JOBS = 2000
SECONDS = 25.0
NASTY = ("long-a", "binary-a", "binary-b", "flood-a")
_PATIENCE_S = 400.0


async def run() -> list[Budget]:
    """Measure, write bench/results/follower.json, return the budgets."""
    rounds = {
        "plain": await _measured(tls=False),
        "tls": await _measured(tls=True),
        "tls_with_nasty_logs": await _measured(*NASTY, tls=True),
    }
    budgets = []
    for name, found in rounds.items():
        cores = max(found["cores"], found["cores_at_full_rate"])
        budgets.append(Budget(f"CPU, {name}", cores, 1.0, "cores"))
        budgets.append(Budget(f"logs not read to their end, {name}", JOBS - found["alive"], 0))
    figures = {
        "jobs": JOBS,
        "lines_a_second_each": LINES_A_SECOND,
        "warm_up_s": WARM_UP_S,
        "nasty_logs": NASTY,
        "rounds": rounds,
    }
    results.write("follower", figures, budgets)
    return budgets


async def _measured(*nasty: str, tls: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        async with _server(Path(name), tls=tls) as config:
            measured = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.follower_process"),
                *(str(config), str(JOBS), str(SECONDS), *nasty),
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await asyncio.wait_for(measured.communicate(), _PATIENCE_S)
    found: dict[str, Any] = json.loads(said)
    print(f"  {found}", flush=True)
    return found


@asynccontextmanager
async def _server(folder: Path, *, tls: bool) -> AsyncIterator[Path]:
    """Serve logs while the block lasts; yields the kubeconfig."""
    keys = make_keys(folder / "keys", {"bench": []})
    files = [str(keys.cert), str(keys.key)] if tls else []
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.follower_server", *files),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    config = folder / "kubeconfig"
    if tls:
        write_kubeconfig(config, f"https://127.0.0.1:{port}", keys.ca, keys.users["bench"])
    else:
        kubeconfig(config, f"http://127.0.0.1:{port}")
    try:
        yield config
    finally:
        server.kill()
        await server.wait()
