"""The process that is measured: `python -m bench.follower_process KUBECONFIG JOBS SECONDS NAMES`.

It runs the operator's own followers over its own client, and prints what that took as JSON. NAMES
are further jobs, which print what no program should while it is measured.
"""

import asyncio
import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

from bench.follower_server import LINES_A_SECOND
from tramontane.api import clock
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.follower import Followers
from tramontane.kube.client import Client
from tramontane.kube.views import PodView, decode_pod

WARM_UP_S = 10.0
_PATIENCE_S = 120.0
_TICK_S = 0.05
_MB = 1e6


def a_job(name: str) -> TrainingJob:
    container = {"name": "trainer", "image": "registry.hall/train:1", "command": ["train"]}
    return TrainingJob.model_validate(
        {
            "metadata": {"name": name, "namespace": "ml", "uid": name},
            "spec": {
                "nodes": 1,
                "template": {"spec": {"containers": [container]}},
                "progress": {"lossPattern": r"loss[ =:]+(?P<loss>[0-9.]+)"},
            },
        }
    )


def a_pod(name: str) -> PodView:
    meta = {
        "name": f"{name}-0",
        "namespace": "ml",
        "uid": f"{name}-0",
        "creationTimestamp": clock.utc(time.time()),
    }
    return decode_pod({"metadata": meta, "spec": {"nodeName": "b0", "containers": []}})


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / _MB


def step_of(followers: Followers, name: str) -> int:
    marks = followers.marks(f"ml/{name}")
    return (marks.step or 0) if marks else 0


async def longest_wait(until: float) -> float:
    """Return by how much the loop was late at worst (s)."""
    worst = 0.0
    while time.monotonic() < until:
        asked = time.monotonic()
        await asyncio.sleep(_TICK_S)
        worst = max(worst, time.monotonic() - asked - _TICK_S)
    return worst


async def main(kubeconfig: str, jobs: int, seconds: float, nasty: list[str]) -> None:
    empty_mb = rss_mb()
    gc.freeze()
    notified: list[str] = []
    async with await Client.connect(kubeconfig, user_agent="bench") as client:
        followers = Followers(client, time.time, notified.append)
        names = [f"job{number}" for number in range(jobs)]
        for name in names:
            followers.follow(a_job(name), a_pod(name))
            await asyncio.sleep(0.002)  # as reconciles come
        async with asyncio.timeout(_PATIENCE_S):
            while not all(followers.is_alive(f"ml/{name}") for name in names):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await asyncio.sleep(WARM_UP_S)
        steps = sum(step_of(followers, name) for name in names)
        began, used = time.monotonic(), time.process_time()
        for name in nasty:
            followers.follow(a_job(name), a_pod(name))
        late_s = await longest_wait(began + seconds)
        took_s, cpu_s = time.monotonic() - began, time.process_time() - used
        reached = [step_of(followers, name) for name in names]
        step = int(await client.get_raw("/step"))
        lines = (sum(reached) - steps) * LINES_A_SECOND
        found = {
            "jobs": jobs,
            "seconds": round(took_s, 2),
            "lines_a_second": round(lines / took_s),
            "cores": round(cpu_s / took_s, 3),
            # A machine with too little time for the server makes fewer lines.
            "cores_at_full_rate": round(cpu_s / lines * jobs * LINES_A_SECOND, 3),
            "us_a_line": round(1e6 * cpu_s / lines, 2),
            "rss_mb": round(rss_mb(), 1),
            "rss_grown_mb": round(rss_mb() - empty_mb, 1),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "steps_done": step,
            "steps_behind": step - min(reached),
            "alive": sum(followers.is_alive(f"ml/{name}") for name in names),
            "nasty_alive": sum(followers.is_alive(f"ml/{name}") for name in nasty),
            "notified": len(notified),
            "loop_late_s": round(late_s, 3),
        }
        print(json.dumps(found), flush=True)
        # There is nothing to be kept, and closing so many streams takes its time.
        os._exit(0)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
