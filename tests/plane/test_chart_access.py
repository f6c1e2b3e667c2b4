"""Who may do what under the chart: roles by account, and the policies that hold the agents."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from chart.helm import NAMESPACE, Object, is_hook, kinds
from plane import chart_cluster
from plane.chart_cluster import BLADES, MERGE, WAIT_S, Answer, Api, Cluster, blade, path_of
from plane.chart_rights import ALLOWED, PEOPLE_ALLOWED, REFUSED, may, named, questions

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
APPLY = "application/apply-patch+yaml"


@pytest.mark.parametrize("account", ALLOWED)
@pytest.mark.parametrize(("table", "wanted"), [(ALLOWED, True), (REFUSED, False)])
def test_each_account_may_do_its_work_and_no_more(
    installed: Cluster, account: str, table: dict[str, str], wanted: bool
) -> None:
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    wrong = [one for one in questions(table[account]) if may(installed, user, one) is not wanted]
    assert not wrong


def test_the_roles_grant_nothing_that_the_tables_do_not_name(installed: Cluster) -> None:
    """A verb that is added to a role has to be added to a table, where somebody sees it."""
    rendered = installed.helm.template()
    for account, table in (ALLOWED | PEOPLE_ALLOWED).items():
        granted = {
            (verb, group, resource)
            for role in kinds(rendered, "Role", "ClusterRole")
            if role["metadata"]["name"] == account
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        assert granted == named(table)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with chart_cluster.installed(tmp_path_factory.mktemp("chart")) as cluster:
        for item in cluster.helm.template():  # of `helm test`, which makes them when it runs
            if is_hook(item) and item["kind"] != "Pod":
                cluster.admin.create(path_of(item, cluster.admin), item)
        yield cluster


@pytest.fixture(scope="module")
def agent(installed: Cluster) -> Api:
    """The agent of gpu-1, once the admission policies are in force."""
    pod = installed.admin.create(
        PODS,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "agent-of-gpu-1"},
            "spec": {
                "serviceAccountName": "tramontane-agent",
                "nodeName": "gpu-1",
                "containers": [{"name": "agent", "image": "tramontane:0.1.0"}],
            },
        },
    )
    api = installed.token("tramontane-agent", pod)
    deadline = time.monotonic() + WAIT_S
    while "must write" not in report(api, "gpu-2", dry=True).message or (
        "must write" not in heartbeat(api, "gpu-2", dry=True).message
    ):
        assert time.monotonic() < deadline, "the admission policies must be in force by now"
        time.sleep(0.1)
    return api


def report(api: Api, name: str, *, dry: bool = False, **status: Any) -> Answer:
    """Apply a report as an agent does, with what else is in `status`."""
    body = blade(name, status={"report": {"checks": {"run": 41}}, **status})
    query = "fieldManager=tramontane-agent&force=true" + ("&dryRun=All" if dry else "")
    return api.call("PATCH", f"{BLADES}/{name}/status?{query}", body, APPLY)


def heartbeat(api: Api, name: str, *, dry: bool = False) -> Answer:
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"blade-{name}", "labels": {"tramontane.dev/heartbeat": "true"}},
        "spec": {"holderIdentity": "agent-of-gpu-1", "leaseDurationSeconds": 45},
    }
    return api.call("POST", LEASES + ("?dryRun=All" if dry else ""), body)


def test_an_agent_reports_on_its_own_blade(agent: Api, installed: Cluster) -> None:
    answer = report(agent, "gpu-1")
    assert answer.status == 200, answer.message
    assert answer.body["status"]["report"]["checks"]["run"] == 41
    assert answer.body["status"]["state"] == "Healthy"
    managers = {
        item["manager"]: item
        for item in installed.admin.call("GET", f"{BLADES}/gpu-1").body["metadata"]["managedFields"]
    }
    assert set(managers["tramontane-agent"]["fieldsV1"]["f:status"]) == {"f:report"}


def test_an_agent_cannot_speak_for_another_blade(agent: Api) -> None:
    answer = report(agent, "gpu-2")
    assert answer.status == 422, answer.body
    assert (
        "Blade gpu-2: an agent must write the blade that it runs on (got a token of node gpu-1)"
        in answer.message
    )


def test_a_token_without_a_node_reports_on_nothing(agent: Api, installed: Cluster) -> None:
    assert agent
    answer = report(installed.token("tramontane-agent"), "gpu-1")
    assert answer.status == 422, answer.body
    assert "(got a token of no node)" in answer.message


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"state": "Quarantined"}, id="state"),
        pytest.param({"verdict": {"severity": "None", "action": "None"}}, id="verdict"),
        pytest.param({"message": "all is well"}, id="message"),
        pytest.param({"observedGeneration": 7}, id="observed-generation"),
    ],
)
def test_an_agent_changes_its_report_only(agent: Api, status: Object) -> None:
    answer = report(agent, "gpu-1", **status)
    assert answer.status == 422, answer.body
    assert f"(got a change of status.{next(iter(status))})" in answer.message


def test_an_agent_cannot_remove_what_the_operator_wrote(agent: Api) -> None:
    answer = agent.call("PATCH", f"{BLADES}/gpu-1/status", {"status": {"state": None}}, MERGE)
    assert answer.status == 422, answer.body
    assert "(got a change of status.state)" in answer.message


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("PATCH", f"{BLADES}/gpu-1", {"spec": {"pool": "b"}}, id="spec"),
        pytest.param("DELETE", f"{BLADES}/gpu-1", None, id="delete-blade"),
        pytest.param("POST", BLADES, blade("gpu-3", spec={"pool": "paris-a"}), id="create-blade"),
        pytest.param("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets", None, id="list-secrets"),
        pytest.param("GET", "/api/v1/secrets", None, id="list-all-secrets"),
        pytest.param("PATCH", "/api/v1/nodes/gpu-1", {"spec": {"unschedulable": True}}, id="node"),
        pytest.param("DELETE", f"{LEASES}/blade-gpu-1", None, id="delete-heartbeat"),
    ],
)
def test_what_roles_refuse_an_agent(
    agent: Api, method: str, path: str, body: Object | None
) -> None:
    answer = agent.call(method, path, body, MERGE if method == "PATCH" else "application/json")
    assert answer.status == 403, answer.body
    assert "cannot" in answer.message


def test_the_policy_holds_even_where_roles_are_too_wide(agent: Api, installed: Cluster) -> None:
    """Somebody binds the agents to cluster-admin: they still write reports only."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    installed.admin.create(
        path,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "too-wide"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [
                {"kind": "ServiceAccount", "name": "tramontane-agent", "namespace": NAMESPACE}
            ],
        },
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while agent.call("GET", "/api/v1/secrets").status != 200:
            assert time.monotonic() < deadline, "the binding must be in force by now"
            time.sleep(0.05)
        hold = {"spec": {"hold": {"reason": "x", "by": "agent"}}}
        for answer in (
            agent.call("PATCH", f"{BLADES}/gpu-1", hold, MERGE),
            agent.call("DELETE", f"{BLADES}/gpu-1"),
            agent.call("POST", BLADES, blade("gpu-3", spec={"pool": "paris-a"})),
        ):
            assert answer.status == 422, answer.body
            assert "must write status.report only" in answer.message
        assert heartbeat(installed.admin, "gpu-2").status in {201, 409}
        assert agent.call("DELETE", f"{LEASES}/blade-gpu-2").status == 422
    finally:
        assert installed.admin.call("DELETE", f"{path}/too-wide").status == 200


def test_an_agent_renews_its_own_heartbeat_only(agent: Api, installed: Cluster) -> None:
    own = heartbeat(agent, "gpu-1")
    assert own.status == 201, own.message
    renewal = {"spec": {"holderIdentity": "gpu-1"}}
    renewed = agent.call("PATCH", f"{LEASES}/blade-gpu-1", renewal, MERGE)
    assert renewed.status == 200, renewed.message
    assert heartbeat(installed.admin, "gpu-2").status in {201, 409}
    stolen = agent.call("PATCH", f"{LEASES}/blade-gpu-2", renewal, MERGE)
    assert stolen.status == 422, stolen.body
    other = heartbeat(agent, "gpu-2")
    assert other.status == 422, other.body
    assert "must write the heartbeat of the blade that it runs on" in other.message


def test_the_policies_leave_others_alone(agent: Api, installed: Cluster) -> None:
    assert agent
    operator = installed.token("tramontane-operator")
    answer = operator.call(
        "PATCH",
        f"{BLADES}/gpu-2/status?fieldManager=tramontane-operator&force=true",
        blade("gpu-2", status={"state": "Quarantined", "reason": "HeldByPerson"}),
        APPLY,
    )
    assert answer.status == 200, answer.message


def foreign_pod(name: str, **spec: Any) -> Object:
    """Return a pod of somebody else's."""
    containers = [{"name": "main", "image": "registry.example/train:1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, **spec},
    }


@pytest.fixture(scope="module")
def research(installed: Cluster) -> str:
    """A namespace of people who train, with a Secret and a pod of theirs; gives its path."""
    core = "/api/v1/namespaces"
    installed.admin.create(
        core, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}}
    )
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}}
    installed.admin.create(f"{core}/research/secrets", secret)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    installed.admin.call("POST", f"{core}/research/serviceaccounts", account)
    pod = foreign_pod("theirs", schedulerName="tramontane-scheduler")
    installed.admin.create(f"{core}/research/pods", pod)
    return f"{core}/research"


TOKEN: Object = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}


@pytest.mark.parametrize("account", ALLOWED)
@pytest.mark.parametrize(
    ("asked", "body"),
    [
        pytest.param("GET /secrets", None, id="list-secrets"),
        pytest.param("GET /secrets/token", None, id="read-a-secret"),
        pytest.param("POST /pods/theirs/exec?command=id", None, id="exec"),
        pytest.param("POST /serviceaccounts/default/token", TOKEN, id="take-an-account"),
        pytest.param("DELETE ", None, id="delete-the-namespace"),
    ],
)
def test_no_component_s_token_opens_what_is_people_s(
    installed: Cluster, research: str, account: str, asked: str, body: Object | None
) -> None:
    method, _, tail = asked.partition(" ")
    answer = installed.token(account).call(method, research + tail, body)
    assert answer.status == 403, answer.body
    assert "cannot" in answer.message


@pytest.mark.parametrize(
    ("account", "method", "tail"),
    [
        pytest.param("tramontane-scheduler", "DELETE", "/pods/theirs", id="scheduler-delete"),
        pytest.param("tramontane-scheduler", "POST", "/pods", id="scheduler-create"),
        pytest.param("tramontane-scheduler", "PATCH", "/pods/theirs", id="scheduler-patch"),
        pytest.param("tramontane-scheduler", "POST", "/pods/theirs/eviction", id="scheduler-evict"),
        pytest.param("tramontane-agent", "GET", "/pods", id="agent-list"),
        pytest.param("tramontane-agent", "DELETE", "/pods/theirs", id="agent-delete"),
        pytest.param("tramontane-doctor", "GET", "/pods", id="doctor-list"),
        pytest.param("tramontane-doctor", "DELETE", "/pods/theirs", id="doctor-delete"),
    ],
)
def test_only_the_operator_deletes_pods(
    installed: Cluster, research: str, account: str, method: str, tail: str
) -> None:
    body = foreign_pod("mine") if method in {"POST", "PATCH"} else None
    kind = MERGE if method == "PATCH" else "application/json"
    answer = installed.token(account).call(method, research + tail, body, kind)
    assert answer.status == 403, answer.body
    assert "cannot" in answer.message


def test_the_scheduler_binds_a_pod_and_says_why_it_waits(installed: Cluster, research: str) -> None:
    scheduler = installed.token("tramontane-scheduler")
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    said = scheduler.call(
        "PATCH",
        f"{research}/pods/theirs/status",
        {"status": {"conditions": [waits]}},
        "application/strategic-merge-patch+json",
    )
    assert said.status == 200, said.message
    target = {"apiVersion": "v1", "kind": "Node", "name": "gpu-1"}
    bound = scheduler.call(
        "POST",
        f"{research}/pods/theirs/binding",
        {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "theirs"},
            "target": target,
        },
    )
    assert bound.status == 201, bound.message
    there = installed.admin.call("GET", f"{research}/pods/theirs").body
    assert there["spec"]["nodeName"] == "gpu-1"


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        pytest.param(
            "view",
            "get list watch tramontane.dev/trainingjobs",
            "create patch delete tramontane.dev/trainingjobs",
            id="view",
        ),
        pytest.param(
            "edit",
            "create patch update delete tramontane.dev/trainingjobs",
            "create patch tramontane.dev/gangs",
            id="edit",
        ),
        pytest.param(
            "admin",
            "create patch update delete tramontane.dev/inferencedeployments",
            "patch tramontane.dev/trainingjobs/status",
            id="admin",
        ),
    ],
)
def test_people_s_own_roles_know_our_kinds(
    installed: Cluster, research: str, role: str, allowed: str, refused: str
) -> None:
    assert research
    user = f"{role}-of-research"
    installed.admin.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/research/rolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role,
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        },
    )
    deadline = time.monotonic() + WAIT_S  # the roles are put together by a controller
    while not all(may(installed, user, one) for one in questions(allowed)):
        assert time.monotonic() < deadline, f"{user} must be able to {allowed}"
        time.sleep(0.1)
    assert not [one for one in questions(refused) if may(installed, user, one)]
