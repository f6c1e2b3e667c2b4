"""Be the scheduler's process: `python -m tramontane.scheduler`.

Every replica follows the API server; the one that holds the Lease decides. A standby is ready,
with warm caches. Losing the Lease ends the process.
"""

import asyncio
import contextlib
from functools import partial

import click

from tramontane.api.names import LEASE_SCHEDULER
from tramontane.kube.client import Client
from tramontane.kube.lease import LeaderElector
from tramontane.kube.metrics import announce
from tramontane.kube.process import Checks, ProcessOptions, StopEvent, process_options, run
from tramontane.scheduler.cycle import Cycle
from tramontane.scheduler.world import World


async def serve(options: ProcessOptions, readiness: Checks, stop: StopEvent) -> None:
    """Follow the world, and decide while leading; return when `stop` is set.

    Raises:
        LeadershipLost: another replica may lead by now.
    """
    async with await Client.connect(user_agent=LEASE_SCHEDULER) as client:
        world = World(client)
        readiness.add("caches", lambda: world.synced)
        elector = LeaderElector(client, LEASE_SCHEDULER, options.namespace, options.identity)
        cycle = Cycle(client, world, leading=lambda: elector.leading)
        following = [asyncio.create_task(follow()) for follow in world.following()]
        electing = asyncio.create_task(elector.run(partial(cycle.run, stop)))
        stopping = asyncio.create_task(stop.wait())
        try:
            ended, _ = await asyncio.wait(
                {electing, stopping, *following}, return_when=asyncio.FIRST_COMPLETED
            )
            if stopping in ended and elector.leading:
                await electing  # it finishes its pass and gives the Lease back
            for task in ended - {stopping}:
                task.result()
        finally:
            for task in (*following, electing, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*following, electing, stopping, return_exceptions=True)


@click.command()
@process_options
def main(options: ProcessOptions) -> None:
    """Place gangs on blades, and keep their seats."""
    readiness = Checks()
    announce("scheduler")
    run(partial(serve, options, readiness), options, readiness)


if __name__ == "__main__":
    main()
