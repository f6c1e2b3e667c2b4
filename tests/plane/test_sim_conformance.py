"""The API server in memory against the real one: the same script, the same transcript."""

import asyncio
from typing import Any, cast

from plane.harness import Plane
from sim.script import Script
from tramontane.kube.client import Client
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.client import SimClient
from tramontane.lab.sim.virtual import VirtualLoop, run
from tramontane.lab.sim.watching import collect_garbage

Line = tuple[str, Any]


def in_memory() -> list[Line]:
    loop = VirtualLoop(1_800_000_000.0)

    async def play() -> list[Line]:
        api = ApiServer(loop.wall)
        garbage = asyncio.create_task(collect_garbage(api))
        lines = await Script(cast("Client", SimClient(api, "tests"))).run()
        garbage.cancel()
        return lines

    return run(play(), loop)


async def test_both_answer_alike(plane: Plane) -> None:
    async with await plane.client() as client:
        real = await Script(client).run()
    ours = await asyncio.to_thread(in_memory)
    assert len(real) > 60
    differ = [
        (step, one, other)
        for (step, one), (_, other) in zip(ours, real, strict=True)
        if one != other
    ]
    assert not differ
