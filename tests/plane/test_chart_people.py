"""What people may do by the roles that the chart makes for them: run the commands, and no more.

Each command runs as a process with a token of somebody who has one of the roles. The audit log
tells what it asked for, and what it was refused, also where it says nothing of that.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from chart.helm import CHART, NAMESPACE, ROOT, Object
from plane import chart_cluster, monitoring_kinds
from plane.chart_cluster import BLADES, MERGE, Cluster, path_of
from plane.chart_rights import PEOPLE_ALLOWED, PEOPLE_REFUSED, may, named, questions
from tramontane.lab.keys import User, write_kubeconfig

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]

COMMAND = "from tramontane.cli.main import main; main()"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
JOB = ROOT / "docs" / "examples" / "trainingjob.yaml"
LOOKS = (
    "fleet",
    "fleet --by blade",
    "top --once",
    "blade list",
    "blade show gpu-1",
    "pool show paris-a",
    "breaker show paris-a",
    "why gang/default/llama",
    f"simulate -n research -f {JOB}",
    "snapshot",
    *(f"{verb} {what}" for verb in ("explain", "timeline") for what in (
        "blade/gpu-1", "np/paris-a", "tj/default/llama", "inf/default/claims", "gang/default/llama"
    )),
    "quarantine gpu-1 --reason tried --dry-run",
)  # fmt: skip
CHANGES = (
    "quarantine gpu-1 --reason smoke --yes",
    "release gpu-1 --reason toaster --yes",
    "breaker close paris-a --reason found --yes",
    "doctor",
    "support",
)
COMMANDS = {"tramontane-viewer": LOOKS, "tramontane-oncall": (*LOOKS, *CHANGES)}
# Besides what the commands above ask for: what follows goes on by watch, and `kubectl logs` reads
# the pod before its log.
ALSO = {"tramontane-viewer": set(), "tramontane-oncall": {("get", "", "pods")}}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A hall with one of each kind, an open breaker, and people who have the roles."""
    folder, foreign = tmp_path_factory.mktemp("chart"), monitoring_kinds.crds()
    with chart_cluster.installed(folder, "helm", CHART, *foreign) as cluster:
        for name in ("nodepool", "trainingjob", "inference-hall"):
            document = yaml.safe_load((ROOT / "docs" / "examples" / f"{name}.yaml").read_text())
            cluster.admin.create(path_of(document, cluster.admin), document)
        slot = {"name": "worker", "count": 4, "requests": {"nvidia.com/gpu": "8"}}
        gang: Object = {
            "apiVersion": "tramontane.dev/v1alpha1",
            "kind": "Gang",
            "metadata": {"name": "llama", "namespace": "default"},
            "spec": {"pool": "paris-a", "slots": [slot]},
        }
        cluster.admin.create(path_of(gang, cluster.admin), gang)
        opened = {"state": "Open", "since": "2026-01-01T00:00:00Z", "reason": "switch 12"}
        patched = cluster.admin.call(
            "PATCH",
            f"{BLADES.replace('blades', 'nodepools')}/paris-a/status",
            {"status": {"breaker": opened}},
            MERGE,
        )
        assert patched.status == 200, patched.message
        for role in PEOPLE_ALLOWED:
            employ(cluster, role)
        yield cluster


def employ(cluster: Cluster, role: str) -> None:
    """Make an account that has the role, and nothing else, in the whole cluster."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role}}
    cluster.admin.create(f"{CORE}/serviceaccounts", account)
    cluster.admin.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{role}-is-tried"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role,
            },
            "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": NAMESPACE}],
        },
    )


def user(role: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{role}"


def asked(cluster: Cluster, role: str) -> Iterator[tuple[tuple[str, str, str], int]]:
    """Yield (verb, group, resource) and the answer's status for each request of somebody."""
    for line in cluster.audit_log.read_text().splitlines():
        event = json.loads(line)
        about = event.get("objectRef")
        if event["user"]["username"] == user(role) and about is not None:
            what = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            verb = (event["verb"], about.get("apiGroup", ""), what)
            yield verb, event["responseStatus"]["code"]


@pytest.mark.parametrize("role", PEOPLE_ALLOWED)
@pytest.mark.parametrize(("table", "wanted"), [(PEOPLE_ALLOWED, True), (PEOPLE_REFUSED, False)])
def test_each_role_allows_its_work_and_no_more(
    installed: Cluster, role: str, table: dict[str, str], wanted: bool
) -> None:
    wrong = [one for one in questions(table[role]) if may(installed, user(role), one) is not wanted]
    assert not wrong


@pytest.mark.parametrize("role", PEOPLE_ALLOWED)
def test_the_commands_need_all_of_a_role_and_nothing_else(
    installed: Cluster, tmp_path: Path, role: str
) -> None:
    a_component_has_a_log(installed)
    person = User(role, (), installed.token(role).token)
    config = write_kubeconfig(tmp_path / "config", installed.admin.server, installed.ca, person)
    for command in COMMANDS[role]:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"KUBECONFIG": str(config), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        assert done.returncode in {0, 3}, f"{command}: {done.stdout}{done.stderr}"
    answers = list(asked(installed, role))
    assert not [verb for verb, status in answers if status == 403]
    used = {verb for verb, _ in answers}
    allowed = {one for one in named(PEOPLE_ALLOWED[role]) if one[0] != "watch"}
    assert used == allowed - ALSO[role]


def a_component_has_a_log(cluster: Cluster) -> None:
    """Say of a pod that its container runs: there is no kubelet that would."""
    pods = cluster.admin.call("GET", f"{CORE}/pods").body["items"]
    name = pods[0]["metadata"]["name"]
    container = {"image": "tramontane", "imageID": "", "ready": True, "restartCount": 0}
    container["name"] = pods[0]["spec"]["containers"][0]["name"]
    status = {"status": {"containerStatuses": [container]}}
    answer = cluster.admin.call("PATCH", f"{CORE}/pods/{name}/status", status, MERGE)
    assert answer.status == 200, answer.message
