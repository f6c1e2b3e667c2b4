"""The controller over a scripted API server, with caches that the test brings up to date."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.scripted import Scripted, kubeconfig, scripted_server
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.controllers.inferencedeployment import Config, InferenceDeploymentController
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.totals import Totals
from tramontane.controllers.informers import blades_of, inference_of_gang, inference_of_pod
from tramontane.kube.client import Client
from tramontane.kube.store import Store
from tramontane.kube.views import PodView, decode_pod
from unit.inferencedeployment.builders import NOW, a_blade, a_deployment, a_node, a_pool

Raw = dict[str, Any]
KEY = "ml/claims"
OURS = "/apis/tramontane.dev/v1alpha1/namespaces/ml"
CORE = "/api/v1/namespaces/ml"
APPS = "/apis/apps/v1/namespaces/ml"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/ml/endpointslices"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/ml/networkpolicies"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/ml/httproutes"


class Loads:
    """Hold what the engines say, and whom they were asked of."""

    def __init__(self) -> None:
        self.watched: Mapping[str, PodView] = {}

    def watch(self, key: str, deployment: InferenceDeployment, pods: Mapping[str, PodView]) -> None:
        del key, deployment
        self.watched = pods

    def loads(self, _: str) -> Mapping[str, Load]:
        return {}

    def totals(self, _: str) -> Totals | None:
        return None

    def forget(self, _: str) -> None:
        self.watched = {}

    async def close(self) -> None:
        return


class Hall:
    """Two blades, one deployment, an operator that may be started anew."""

    def __init__(self, server: Scripted, client: Client) -> None:
        self.server, self.client = server, client
        self.now = NOW
        self.loads = Loads()
        self.said: list[str] = []
        self.start()

    def start(self, config: Config | None = None) -> None:
        """Start an operator that knows nothing but what the API server has."""
        names = ("pods", "gangs", "blades", "nodes", "pools")
        self.stores: dict[str, Store[Any]] = {name: Store(name) for name in names}
        self.stores["pods"].add_index("inference", inference_of_pod)
        self.stores["pods"].add_index("node", lambda pod: (pod.node,) if pod.node else ())
        self.stores["gangs"].add_index("inference", inference_of_gang)
        self.stores["gangs"].add_index("blade", blades_of)
        informers: Any = SimpleNamespace(**self.stores)
        recorder: Any = SimpleNamespace(record=lambda *said: self.said.append(said[2]))
        self.controller = InferenceDeploymentController(
            self.client, informers, recorder, lambda: self.now, config, loads=lambda _: self.loads
        )
        self.controller.wire()
        for name in ("b0", "b1"):
            self.stores["blades"].put(name, a_blade(name))
            self.stores["nodes"].put(name, a_node(name))
        self.stores["pools"].put("hall", a_pool())
        self.sync()

    def put(self, deployment: InferenceDeployment) -> None:
        body = deployment.to_dict()
        self.server.put(f"{OURS}/inferencedeployments", "claims", **body)

    def ask(self, **spec: Any) -> None:
        self.put(a_deployment(self.status, **spec))

    @property
    def status(self) -> Raw:
        found = self.server.objects.get(f"{OURS}/inferencedeployments/claims", {})
        status: Raw = found.get("status") or {}
        return status

    def of(self, collection: str) -> dict[str, Raw]:
        """Return the objects of a collection by name."""
        there = self.server.objects.items()
        return {
            path.rpartition("/")[2]: raw
            for path, raw in there
            if path.rpartition("/")[0] == collection
        }

    def sync(self) -> None:
        """Bring the caches up to date."""
        pods = (decode_pod(raw) for raw in self.of(f"{CORE}/pods").values())
        self.stores["pods"].replace({pod.key: pod for pod in pods})
        gangs = map(Gang.model_validate, self.of(f"{OURS}/gangs").values())
        self.stores["gangs"].replace({gang.key: gang for gang in gangs})

    def place(self) -> None:
        """Place all Gangs on both blades, as the scheduler does."""
        for name, raw in self.of(f"{OURS}/gangs").items():
            placement = {"size": 2, "seats": ["b0", "b1"], "spares": []}
            status = {"phase": "Placed", "epoch": 1, "placement": placement}
            self.server.put(f"{OURS}/gangs", name, **{**raw, "status": status})

    def kubelets(self) -> None:
        """Run what is there, and take away what is to be deleted (the server did it)."""
        for name, raw in self.of(f"{CORE}/pods").items():
            status = {
                "phase": "Running",
                "podIP": f"10.0.0.{raw['metadata']['labels']['tramontane.dev/seat']}",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "engine", "state": {"running": {}}}],
            }
            self.server.put(f"{CORE}/pods", name, **{**raw, "status": status})

    async def settle(self, rounds: int = 10) -> None:
        """Let everybody work until nothing is left to do."""
        for _ in range(rounds):
            self.now += 1
            self.sync()
            await self.controller.reconcile(KEY)
            self.place()
            self.kubelets()
        self.sync()

    def writes(self, part: str) -> list[str]:
        """Return the writes whose path has `part`, as "METHOD name"."""
        return [
            f"{method} {path.partition('?')[0].rpartition('/')[2]}"
            for method, path in self.server.requests
            if method != "GET" and part in path
        ]


@asynccontextmanager
async def a_hall(folder: Path, **spec: Any) -> AsyncIterator[Hall]:
    async with scripted_server() as server:
        config = kubeconfig(folder / "config", server.url)
        async with await Client.connect(config) as client:
            hall = Hall(server, client)
            hall.put(a_deployment(**spec))
            yield hall
