"""A release grows up under a running job: from the previous chart to this one, back, and away.

The operator, the scheduler and an agent run meanwhile, under the release's own accounts. Whatever
Helm does, the job's pods stay the very same pods and go on training. Once by Helm 4, which applies
on the server's side and would meet a conflict on any field that a component writes, once by Helm 3.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chart.helm import CHART, NAMESPACE, RELEASE, Helm, Object, is_hook
from plane.chart_hall import WATCHED, BareLab, Hall, job_status, until
from plane.chart_versions import previous
from tramontane.kube.client import NotFound
from tramontane.kube.resources import (
    BLADES,
    CRDS,
    DEPLOYMENTS,
    GANGS,
    NODEPOOLS,
    PODS,
    PRIORITYCLASSES,
    TRAININGJOBS,
    Resource,
)
from tramontane.lab import binaries
from tramontane.lab.cluster import Setup, ensure_namespace, pool_of
from tramontane.lab.controlplane import NodeTiming, Options, free_ports
from tramontane.lab.demo import training_job
from tramontane.lab.fleet import Layout

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(400, func_only=True)]

LAYOUT = Layout(blades=4)
CLUSTERROLES = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False
)
CHANGED: Object = {
    "operator": {"replicas": 3},
    "scheduler": {"replicas": 1},
    "logLevel": "debug",
    "metrics": {"service": {"enabled": True}, "detail": "low"},
    "dryRun": True,
    "networkPolicy": {"enabled": True},
}


class ChartLab(BareLab):
    """A lab to which the previous chart brings kinds and namespace."""

    helm: Helm
    before: Hall

    async def install(self) -> None:
        programs = binaries.ensure([self.program, *binaries.CONTROL_PLANE])
        helm = Helm(programs[self.program], self.folder, {"KUBECONFIG": str(self.plane.kubeconfig)})
        (port,) = free_ports(1)
        self.before = Hall(self, helm, port, chart=previous(self.folder))
        await ensure_namespace(self.client, NAMESPACE)
        values = self.before.values()
        await self.before.release("install", RELEASE, str(self.before.chart), values=values)

    program = "helm"


@pytest.fixture(params=["helm", "helm3"])
async def hall(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Hall]:
    """A hall under the previous chart, in which a job trains on three of four blades."""
    setup = Setup(
        LAYOUT,
        components=(),
        real_agents=(WATCHED,),
        options=Options(nodes=NodeTiming.quick(), audit_log=True),
    )
    lab = ChartLab(tmp_path / "lab", setup)
    lab.program = request.param
    async with lab:
        await lab.before.start_all()
        await lab.client.create(NODEPOOLS, pool_of(LAYOUT))
        await lab.wait_healthy("paris-a")
        await lab.client.create(TRAININGJOBS, training_job("llama", 3, "paris-a"))
        await trains(lab.before)
        yield lab.before


async def trains(hall: Hall) -> None:
    """Return when the job has made a step that it had not made before."""
    made = (await job_status(hall.lab.client)).get("step") or 0

    async def steps() -> bool:
        status = await job_status(hall.lab.client)
        return status.get("phase") == "Running" and (status.get("step") or 0) > made

    await until(hall.lab, "the job trains", steps)


async def pods_of_the_job(hall: Hall) -> dict[str, tuple[str, str, str]]:
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            pod["spec"]["nodeName"],
            pod["status"]["phase"],
        )
        for pod in await hall.lab.client.list_all(PODS, "default")
    }


async def upgrade(hall: Hall) -> None:
    """Go to this chart with other values, and let the components follow."""
    hall.chart, hall.more = CHART, CHANGED
    await hall.release("upgrade", RELEASE, str(CHART), values=hall.values())
    await hall.restart_all()


async def managers(hall: Hall) -> dict[str, set[str]]:
    """Return who wrote each object of the release, as the API server remembers it."""
    found = {}
    for item in hall.helm.template(hall.values(), chart=hall.chart):
        if is_hook(item):
            continue
        group, _, version = item["apiVersion"].rpartition("/")
        kind = item["kind"]
        plural = kind.lower() + ("es" if kind.endswith("s") else "s")
        plural = plural.removesuffix("ys") + "ies" if plural.endswith("ys") else plural
        namespace = item["metadata"].get("namespace")
        resource = Resource(group, version, plural, kind, namespaced=namespace is not None)
        live = await hall.lab.client.get(resource, item["metadata"]["name"], namespace)
        found[f"{kind}/{item['metadata']['name']}"] = {
            f"{one['manager']} {one['operation']}" for one in live["metadata"]["managedFields"]
        }
    return found


async def test_the_job_trains_through_upgrade_rollback_and_uninstall(hall: Hall) -> None:
    client = hall.lab.client
    before = await pods_of_the_job(hall)
    assert len(before) == 3
    crds = {crd["metadata"]["name"]: crd["metadata"]["uid"] for crd in await client.list_all(CRDS)}
    assert len(crds) == 5

    await upgrade(hall)
    await trains(hall)
    operator = await client.get(DEPLOYMENTS, "tramontane-operator", NAMESPACE)
    assert operator["spec"]["replicas"] == 3
    assert operator["metadata"]["labels"]["helm.sh/chart"] == "tramontane-0.2.0"
    wrote = await managers(hall)
    assert len(wrote) > 30
    how = "helm Apply" if hall.helm.binary.name == "helm" else "helm Update"
    for name, who in wrote.items():
        assert how in who, name
        assert not [one for one in who if one.startswith("tramontane")], name

    await hall.release("rollback", RELEASE, "1")
    hall.chart, hall.more = previous(hall.lab.folder), {}
    await hall.restart_all()
    await trains(hall)
    operator = await client.get(DEPLOYMENTS, "tramontane-operator", NAMESPACE)
    assert operator["spec"]["replicas"] == 2
    assert operator["metadata"]["labels"]["helm.sh/chart"] == "tramontane-0.1.0"

    await upgrade(hall)
    attempt = (await job_status(client)).get("attempt")
    assert not hall.refused()
    await hall.release("uninstall", RELEASE)
    hall.stop_all()
    without_roles = len(hall.refused())  # until they had ended, as pods do a moment later
    roles = {role["metadata"]["name"] for role in await client.list_all(CLUSTERROLES)}
    assert not {name for name in roles if name.startswith("tramontane")}
    with pytest.raises(NotFound):
        await client.get(DEPLOYMENTS, "tramontane-operator", NAMESPACE)
    assert await pods_of_the_job(hall) == before
    after = {crd["metadata"]["name"]: crd["metadata"]["uid"] for crd in await client.list_all(CRDS)}
    assert after == crds
    kept = {item["metadata"]["name"] for item in await client.list_all(PRIORITYCLASSES)}
    assert "tramontane-training" in kept
    for resource, count in ((TRAININGJOBS, 1), (GANGS, 1), (NODEPOOLS, 1), (BLADES, 4)):
        assert len(await client.list_all(resource)) == count, resource.plural

    await hall.release("install", RELEASE, str(CHART), values=hall.values())
    await hall.start_all()
    await trains(hall)
    assert await pods_of_the_job(hall) == before
    assert (await job_status(client)).get("attempt") == attempt
    assert not hall.refused()[without_roles:]
