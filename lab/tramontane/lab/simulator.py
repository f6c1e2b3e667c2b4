"""The simulator process: what a hall does that a control plane on one machine cannot.

It is the kubelets' log endpoint, it trains the jobs, it ends the pods that test and repair blades,
it runs the health agents of the blades that have no process of their own, and it takes orders for
faults (`remote.Remote`):

    GET    /lab/blades                    faults by blade
    POST   /lab/blades/NAME/faults        {"fault": "xid 94", "gpu": 3}
    DELETE /lab/blades/NAME/faults
"""

import argparse
import asyncio
import hmac
import logging
import signal
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler

from tramontane.api.errors import InvalidValue
from tramontane.kube.client import Client
from tramontane.lab.agents import SimulatedAgents
from tramontane.lab.description import Description
from tramontane.lab.faults import KINDS, parse_fault
from tramontane.lab.fleet import Fleet
from tramontane.lab.hall import Agent, Hall, ProcessAgent
from tramontane.lab.jobs import Jobs
from tramontane.lab.logs import LogServer, PodLog
from tramontane.lab.nodes.plan import plans
from tramontane.lab.paths import LabError
from tramontane.lab.works import Works

log = logging.getLogger(__name__)


class Simulator:
    """All that is simulated, for one lab; works while its `async with` block lasts."""

    def __init__(self, client: Client, folder: Path, description: Description) -> None:
        layout = description.layout
        self._folder = folder
        self._description = description
        fleet = Fleet(client, layout)
        real = frozenset(description.real_agents)
        self._simulated = SimulatedAgents(
            client,
            (name for name in fleet.names if name not in real),
            namespace=description.namespace,
            gpus=layout.gpus,
            running=description.simulated_agents,
        )
        agents: dict[str, Agent] = {
            name: ProcessAgent(name, folder, layout.gpus) for name in sorted(real)
        }
        agents |= self._simulated.agents
        self.hall = Hall(fleet, agents)
        self._real_nodes = frozenset(plan.name for plan in plans(description.real_nodes))
        self.jobs = Jobs(client, time.time, self.hall.trouble, real_nodes=self._real_nodes)
        self.works = Works(client, self.hall, real_nodes=self._real_nodes)
        self.hall.changed = self.jobs.blade_changed
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.hall.aclose)
            for played in (self.jobs, self.works):
                stack.push_async_callback(_end, asyncio.create_task(played.run()))
                await played.wait_synced()
            await stack.enter_async_context(self._simulated)
            runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.2)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(
                runner, "127.0.0.1", self._description.kubelet_port, ssl_context=self._tls()
            )
            await site.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(
            self._folder / "keys" / "server.crt", self._folder / "keys" / "server.key"
        )
        return context

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(LogServer(self._log_of, time.time).routes())
        app.add_routes(
            [
                web.get("/lab/blades", self._show),
                web.post("/lab/blades/{name}/faults", self._inject),
                web.delete("/lab/blades/{name}/faults", self._clear),
            ]
        )
        return app

    def _log_of(self, namespace: str, name: str) -> PodLog | None:
        return self.jobs.log_of(namespace, name) or self.works.log_of(namespace, name)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only the lab's own commands give orders; logs are for whoever the API server asks."""
        if request.path.startswith("/lab/"):
            said = request.headers.get("Authorization", "")
            if not hmac.compare_digest(said, f"Bearer {self._description.token}"):
                raise web.HTTPUnauthorized
        try:
            return await handler(request)
        except (InvalidValue, LabError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    async def _show(self, _: web.Request) -> web.Response:
        faults = self.hall.faults
        return web.json_response(
            {name: [str(one) for one in all_] for name, all_ in faults.items()}
        )

    async def _inject(self, request: web.Request) -> web.Response:
        body = await request.json()
        fault = parse_fault(body["fault"], int(body["gpu"]), self._description.layout.gpus)
        name = request.match_info["name"]
        if KINDS[fault.kind].power and name in self._real_nodes:
            raise LabError(
                f"blade {name}: a real node's power must be cut by `tramontane lab power off"
                f" {name}` (got the fault {fault}, which simulated nodes have)"
            )
        await self.hall.inject(name, fault)
        log.info("fault injected blade=%s fault=%r gpu=%d", name, str(fault), fault.gpu)
        return web.json_response({})

    async def _clear(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        had = await self.hall.clear(name)
        log.info("blade cleared blade=%s faults=%d", name, len(had))
        return web.json_response([str(fault) for fault in had])


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def serve(folder: Path) -> None:
    """Run the simulator of the lab in `folder` until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    client = await Client.connect(folder / "kubeconfig", user_agent="tramontane-lab-simulator")
    async with client, Simulator(client, folder, Description.load(folder)) as simulator:
        log.info("simulator serving blades=%d", simulator.hall.size)
        await stop.wait()


def main() -> None:
    """Start the process."""
    parser = argparse.ArgumentParser(prog="python -m tramontane.lab.simulator")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s"
    )
    asyncio.run(serve(arguments.folder))


if __name__ == "__main__":
    main()
