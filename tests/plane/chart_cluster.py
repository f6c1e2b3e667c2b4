"""A control plane of its own with the chart on it, as the API server shows it to one user.

The chart brings the CRDs that the other tests' cluster has already, so it needs an empty one.
There are no kubelets: Deployments make pods that wait, which is all that is needed here.
"""

import asyncio
import functools
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chart.helm import CHART, NAMESPACE, RELEASE, Helm, Object
from tramontane.lab import binaries
from tramontane.lab.controlplane import ControlPlane, Options

BLADES = "/apis/tramontane.dev/v1alpha1/blades"
MERGE = "application/merge-patch+json"
WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Object

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


@dataclass(frozen=True, slots=True)
class Api:
    """The API server as one user sees it."""

    server: str
    context: ssl.SSLContext
    token: str

    def call(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json"
    ) -> Answer:
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=20) as answer:
                return Answer(answer.status, json.load(answer))
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, json.load(refused))

    def create(self, path: str, body: Object) -> Object:
        answer = self.call("POST", path, body)
        assert answer.status == 201, answer.message
        return answer.body

    def with_token(self, token: str) -> "Api":
        return Api(self.server, self.context, token)


@dataclass(frozen=True, slots=True)
class Cluster:
    admin: Api
    helm: Helm
    ca: Path
    audit_log: Path

    def token(self, account: str, pod: Object | None = None) -> Api:
        """Return the API as a ServiceAccount, by a token bound to `pod` where there is one."""
        spec: Object = {"audiences": ["https://kubernetes.default.svc"]}
        if pod is not None:
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            }
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
        made = self.admin.create(
            path,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        return self.admin.with_token(made["status"]["token"])

    def release(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        done = self.helm.run(*arguments, "--namespace", NAMESPACE, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout


def path_of(item: Object, api: Api) -> str:
    """Return the path of an object; the plural comes from discovery."""
    prefix = f"/apis/{item['apiVersion']}" if "/" in item["apiVersion"] else "/api/v1"
    found = _resource(api, prefix, item["kind"])
    namespace = item["metadata"].get("namespace", "default")
    place = f"/namespaces/{namespace}" if found["namespaced"] else ""
    return f"{prefix}{place}/{found['name']}"


@functools.cache
def _resource(api: Api, prefix: str, kind: str) -> Object:
    """Return what discovery says of a kind."""
    resources = api.call("GET", prefix).body["resources"]
    (found,) = [one for one in resources if one["kind"] == kind and "/" not in one["name"]]
    return dict(found)


@contextmanager
def installed(
    folder: Path, program: str = "helm", chart: Path = CHART, *kinds: Object
) -> Iterator[Cluster]:
    """Yield a cluster with the release, two nodes and their blades.

    Args:
        folder: of the cluster; empty.
        program: the Helm that installs it.
        chart: what it installs.
        kinds: CRDs of others that are there before.
    """
    helm = binaries.ensure([program])[program]
    plane = ControlPlane(folder / "plane", Options(audit_log=True))
    try:
        asyncio.run(plane.start())
        context = ssl.create_default_context(cafile=str(plane.keys.ca))
        cluster = Cluster(
            Api(plane.server, context, plane.keys.users["admin"].token),
            Helm(helm, folder, {"KUBECONFIG": str(plane.kubeconfig)}),
            plane.keys.ca,
            plane.folder / "logs" / "audit.log",
        )
        for kind in kinds:
            cluster.admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", kind)
        cluster.release("install", RELEASE, str(chart), "--create-namespace")
        assert served_blades(cluster.admin) == []
        for name in ("gpu-1", "gpu-2"):
            cluster.admin.create(
                "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
            )
            cluster.admin.create(BLADES, blade(name, spec={"pool": "paris-a"}))
            answer = cluster.admin.call(
                "PATCH", f"{BLADES}/{name}/status", {"status": {"state": "Healthy"}}, MERGE
            )
            assert answer.status == 200, answer.message
        yield cluster
    finally:
        plane.stop()


def served_blades(admin: Api) -> list[Object]:
    """Return the Blades, as soon as they are served: after a change of their CRD they are not."""
    deadline = time.monotonic() + WAIT_S
    while (answer := admin.call("GET", BLADES)).status != 200:
        assert time.monotonic() < deadline, "the CRDs must be served by now"
        time.sleep(0.05)
    found: list[Object] = answer.body["items"]
    return found


def blade(name: str, **parts: Object) -> Object:
    return {
        "apiVersion": "tramontane.dev/v1alpha1",
        "kind": "Blade",
        "metadata": {"name": name},
        **parts,
    }
