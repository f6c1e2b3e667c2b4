"""A real Kubernetes on this machine: etcd, kube-apiserver, kube-controller-manager, KWOK.

No container runtime, no root, loopback only (`Options.address` says otherwise where real nodes
are beside it). As a context manager it lives as long as the
block and leaves nothing behind, whatever ends the block:

    async with ControlPlane(folder) as plane:
        os.environ["KUBECONFIG"] = str(plane.kubeconfig)

With `Processes(folder, attached=False)` it outlives the caller; `Processes.load(folder).stop()`
ends it. Its data is thrown away with it: a start always begins with an empty cluster.
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import random
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from tramontane.lab.binaries import CONTROL_PLANE, ensure
from tramontane.lab.keys import Keys, make_keys, write_kubeconfig
from tramontane.lab.kwokconfig import PodTiming, kwok_config
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes

ADMIN = "admin"
LOOPBACK = "127.0.0.1"
LISTENING_PORTS = range(15_000, 30_000)
_USERS = {
    ADMIN: ("system:masters",),
    "kubelets": ("system:masters",),
    # With the credentials of its controllers it would start slower; here it may do anything.
    "system:kube-controller-manager": ("system:masters",),
    "system:kube-scheduler": (),
}
# What Tramontane and its tests lean on; the rest (volumes, quotas, autoscaling, ...) costs
# start-up time and watches.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)
_READY_S = 60.0
_POLL_S = 0.05
_RENEWALS_PER_LEASE = 4  # KWOK renews after a quarter of the lease
_RENEWALS_PER_S = 32


@dataclass(frozen=True, slots=True)
class NodeTiming:
    """How soon a node whose heartbeat has stopped turns NotReady."""

    lease_s: int = 8
    grace_s: int = 10
    monitor_s: int = 1

    @classmethod
    def for_blades(cls, blades: int) -> "NodeTiming":
        """Return the quickest timing whose heartbeats stay cheap (32 writes a second).

        136 blades notice within 22 s, 2,560 within 400 s: there heartbeats every 4 s would
        take two thirds of a core.
        """
        lease_s = max(8, blades * _RENEWALS_PER_LEASE // _RENEWALS_PER_S)
        return cls(lease_s=lease_s, grace_s=lease_s + max(2, lease_s // 4))

    @classmethod
    def quick(cls) -> "NodeTiming":
        """Return what suits tests with a handful of blades: NotReady after 7 s."""
        return cls(lease_s=4, grace_s=6)


@dataclass(frozen=True, slots=True)
class Options:
    """What may be different from one control plane to the next."""

    nodes: NodeTiming = field(default_factory=NodeTiming)
    pods: PodTiming = field(default_factory=PodTiming)
    kube_scheduler: bool = False
    kube_scheduler_qps: int = 50
    controller_qps: int = 500
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    runtime_config: tuple[str, ...] = ()
    audit_log: bool = False
    address: str = LOOPBACK  # where the API server answers; pods of real nodes need another one


@functools.cache
def _port_locks() -> int:
    """Return the file of which each process locks a byte per port that it was given."""
    path = Path(tempfile.gettempdir()) / f"tramontane-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def free_ports(count: int, address: str = LOOPBACK) -> list[int]:
    """Return ports that nobody listens on just now; they are loopback's unless said otherwise.

    They lie below those that the kernel gives to outgoing connections, so that none of these
    takes one before the program that it is for has bound it; and no other process that asks here
    is given them while this one lives.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(LISTENING_PORTS, len(LISTENING_PORTS)):
            if len(found) == count:
                break
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind((address, port))
                fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                found.append(port)
    if len(found) < count:
        raise LabError(
            f"ports of {address}: must have {count} free ones in {LISTENING_PORTS} (got:"
            f" {len(found)})"
        )
    return found


class ControlPlane:
    """One control plane in one folder."""

    def __init__(
        self,
        folder: Path,
        options: Options | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.folder = folder
        self.options = options or Options()
        self.processes = processes or Processes(folder)
        self.kubeconfig = folder / "kubeconfig"
        self.keys: Keys
        self.server = ""
        self.etcd = ""
        self.kubelet_port = 0  # where the API server asks for the logs of simulated pods
        self.started_in_s = 0.0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def start(self) -> None:
        """Start everything and return when the API answers and its controllers work.

        Raises:
            LabError: something ended or was not ready in time; nothing is left running.
        """
        paths = ensure((*CONTROL_PLANE, *(["kube-scheduler"] * self.options.kube_scheduler)))
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stale in ("etcd", "keys", *(f"logs/{name}.log" for name in _NAMES)):
            path = self.folder / stale
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.keys = make_keys(self.folder / "keys", _USERS, self.options.address)
        etcd, peer, self.kubelet_port = free_ports(3)
        (api,) = free_ports(1, self.options.address)
        self.server = f"https://{self.options.address}:{api}"
        self.etcd = f"http://{LOOPBACK}:{etcd}"
        self._kubeconfig(ADMIN, self.kubeconfig)
        try:
            self._start_etcd(paths["etcd"], peer)
            self._start_apiserver(paths["kube-apiserver"], api)
            await self._wait("/readyz", lambda status: status == 200)  # noqa: PLR2004 - HTTP OK
            self._start_controller_manager(paths["kube-controller-manager"])
            self._start_kwok(paths["kwok"])
            if self.options.kube_scheduler:
                self._start_scheduler(paths["kube-scheduler"])
            # The first sign of a working controller-manager, and what a first pod needs.
            await self._wait(
                "/api/v1/namespaces/default/serviceaccounts/default",
                lambda status: status == 200,  # noqa: PLR2004 - HTTP OK
            )
        except BaseException:
            self.stop()
            raise
        self.started_in_s = time.monotonic() - began

    def stop(self) -> None:
        """Stop everything that this control plane started; it may be called twice."""
        ours = [record.name for record in self.processes.records if record.name in _NAMES]
        if ours:
            self.processes.stop(*reversed(ours))

    def kubeconfig_for(self, user: str) -> Path:
        """Return a kubeconfig of another user: one of the system's own names."""
        path = self.folder / "keys" / f"{user.replace(':', '-')}.kubeconfig"
        return path if path.exists() else self._kubeconfig(user, path)

    def _kubeconfig(self, user: str, path: Path) -> Path:
        return write_kubeconfig(path, self.server, self.keys.ca, self.keys.users[user])

    def _start_etcd(self, path: Path, peer: int) -> None:
        client, peers = self.etcd, f"http://{LOOPBACK}:{peer}"
        self.processes.start(
            "etcd",
            [
                path, "--name=lab", f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=lab={peers}", "--unsafe-no-fsync",
                "--quota-backend-bytes=4294967296", "--auto-compaction-mode=periodic",
                "--auto-compaction-retention=5m", "--log-level=warn",
            ],
        )  # fmt: skip

    def _start_apiserver(self, path: Path, port: int) -> None:
        options = self.options
        argv: list[str | Path] = [
            path, f"--etcd-servers={self.etcd}",
            f"--bind-address={options.address}", f"--advertise-address={options.address}",
            f"--secure-port={port}",
            f"--tls-cert-file={self.keys.cert}", f"--tls-private-key-file={self.keys.key}",
            f"--cert-dir={self.folder / 'keys'}",
            f"--token-auth-file={self.keys.tokens}", "--authorization-mode=RBAC",
            "--anonymous-auth=false", "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.keys.account_key}",
            f"--service-account-signing-key-file={self.keys.account_key}",
            "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            # One machine, one user: fairness between clients would only add queueing.
            "--max-requests-inflight=3000", "--max-mutating-requests-inflight=1500",
            "--default-watch-cache-size=1000", "--profiling=false",
        ]  # fmt: skip
        if options.feature_gates:
            argv.append(f"--feature-gates={_gates(options.feature_gates)}")
        if options.runtime_config:
            argv.append(f"--runtime-config={','.join(options.runtime_config)}")
        if options.audit_log:
            policy = self.folder / "audit-policy.yaml"
            policy.write_text(
                "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
                "omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"
            )
            log = self.folder / "logs" / "audit.log"
            argv += [f"--audit-policy-file={policy}", f"--audit-log-path={log}"]
        self.processes.start("kube-apiserver", argv)

    def _start_controller_manager(self, path: Path) -> None:
        nodes = self.options.nodes
        config = self.kubeconfig_for("system:kube-controller-manager")
        self.processes.start(
            "kube-controller-manager",
            [
                path, f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0",
                f"--service-account-private-key-file={self.keys.account_key}",
                f"--root-ca-file={self.keys.ca}", f"--controllers={','.join(_CONTROLLERS)}",
                f"--kube-api-qps={self.options.controller_qps}",
                f"--kube-api-burst={max(30, 2 * self.options.controller_qps)}",
                f"--node-monitor-period={nodes.monitor_s}s",
                f"--node-monitor-grace-period={nodes.grace_s}s",
                "--endpointslice-updates-batch-period=500ms",
                "--profiling=false",
            ],
        )  # fmt: skip

    def _start_kwok(self, path: Path) -> None:
        config = self.folder / "kwok.yaml"
        config.write_text(kwok_config(self.options.pods))
        self.processes.start(
            "kwok",
            [
                path, f"--kubeconfig={self.kubeconfig_for('kubelets')}", f"--config={config}",
                "--manage-all-nodes=false",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-ip=127.0.0.1", f"--node-port={self.kubelet_port}",
                "--server-address=127.0.0.1:0", "--cidr=10.64.0.1/12",
                f"--node-lease-duration-seconds={self.options.nodes.lease_s}",
            ],
        )  # fmt: skip

    def _start_scheduler(self, path: Path) -> None:
        qps = self.options.kube_scheduler_qps
        argv: list[str | Path] = [
            path, f"--kubeconfig={self.kubeconfig_for('system:kube-scheduler')}",
            "--leader-elect=false", "--secure-port=0", "--profiling=false",
            f"--kube-api-qps={qps}", f"--kube-api-burst={2 * qps}",
        ]  # fmt: skip
        if self.options.feature_gates:
            argv.append(f"--feature-gates={_gates(self.options.feature_gates)}")
        self.processes.start("kube-scheduler", argv)

    async def _wait(self, path: str, enough: Callable[[int], bool]) -> None:
        """Ask the API server for `path` until its answer is good enough."""
        deadline = time.monotonic() + _READY_S
        context = ssl.create_default_context(cafile=self.keys.ca)
        headers = {"Authorization": f"Bearer {self.keys.users[ADMIN].token}"}
        got = "no answer"
        async with aiohttp.ClientSession(headers=headers) as session:
            while time.monotonic() < deadline:
                self.processes.check()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(self.server + path, ssl=context) as answer:
                        if enough(answer.status):
                            return
                        got = f"HTTP {answer.status}"
                await asyncio.sleep(_POLL_S)
        logs = self.folder / "logs"
        raise LabError(
            f"control plane: {path} must answer within {_READY_S:.0f} s (got {got});"
            f" its logs are in {logs}"
        )


_NAMES = frozenset((*CONTROL_PLANE, "kube-scheduler"))


def _gates(gates: Mapping[str, bool]) -> str:
    """Write feature gates as a flag."""
    return ",".join(f"{name}={str(on).lower()}" for name, on in sorted(gates.items()))
