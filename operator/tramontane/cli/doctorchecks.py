"""Judge whether a cluster is fit for Tramontane, from what was read of it: pure.

Each check is a function of all facts that yields its findings; `examine` runs them in the order in
which one would look. A check that had nothing to read says so, and goes on with the next one.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tramontane.api import clock
from tramontane.api.crdgen import KINDS, definition
from tramontane.api.names import LEASE_OPERATOR, LEASE_SCHEDULER
from tramontane.cli.doctorfacts import (
    Facts,
    Finding,
    Level,
    Raw,
    Unreadable,
    blind,
    is_true,
    some,
)
from tramontane.cli.doctorhall import agents, clocks, nodes, pools

OLDEST_KUBERNETES: Final = (1, 32)
# A leader renews every 2 s and gives up after 10.
_LEASE_STALE_S: Final = 30.0
MONITORING_GROUP: Final = "monitoring.coreos.com"
COMPONENT: Final = "app.kubernetes.io/component"
POD_SECURITY: Final = "pod-security.kubernetes.io/enforce"
# A pod that resets a GPU enters the host's namespaces: these standards refuse it.
_UNPRIVILEGED: Final = ("baseline", "restricted")


def examine(facts: Facts) -> list[Finding]:
    """Return the findings of all checks, in the order of a look-around."""
    return [finding for check in CHECKS for finding in check(facts)]


def _versions(facts: Facts) -> Iterator[Finding]:
    if (lost := blind("versions", facts.server_version)) is not None:
        yield lost
        return
    assert not isinstance(facts.server_version, Unreadable)
    text = str(facts.server_version.get("gitVersion", "unknown"))
    major, minor = (
        _leading_number(str(facts.server_version.get(part, ""))) for part in ("major", "minor")
    )
    if (major, minor) < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        yield Finding(
            "versions",
            Level.PROBLEM,
            f"Kubernetes must be at least {oldest} (got {text})",
            "agents are held to their blade by tokens that name their node; upgrade Kubernetes",
        )
    else:
        yield Finding(
            "versions", Level.OK, f"Kubernetes {text}, this command {facts.client_version}"
        )
    if isinstance(facts.workloads, Unreadable):
        return
    for name, raw in facts.workloads.items():
        theirs = raw["metadata"].get("labels", {}).get("app.kubernetes.io/version")
        if theirs and theirs != facts.client_version:
            yield Finding(
                "versions",
                Level.WARNING,
                f"{name} is of version {theirs}, this command of {facts.client_version}",
                "use the command of the same version",
            )


def _crds(facts: Facts) -> Iterator[Finding]:
    if (lost := blind("crds", facts.crds)) is not None:
        yield lost
        return
    assert not isinstance(facts.crds, Unreadable)
    good = 0
    for kind in KINDS:
        ours = definition(kind)
        name = ours["metadata"]["name"]
        theirs = facts.crds.get(name)
        if theirs is None:
            yield Finding(
                "crds",
                Level.PROBLEM,
                f"{name} must be there (got none)",
                "kubectl apply --server-side -f crds/, or install the chart with crds.enabled=true",
            )
        elif not is_true(theirs, "Established"):
            yield Finding(
                "crds",
                Level.PROBLEM,
                f"{name} must be established (got a definition that is not served)",
                f"kubectl describe crd {name}",
            )
        elif missing := sorted(_fields(ours) - _fields(theirs)):
            yield Finding(
                "crds",
                Level.PROBLEM,
                f"{name} must have all fields of this version (got one without {some(missing)})",
                "a field that is not in the CRD is dropped without a word; apply crds/ again",
            )
        else:
            good += 1
    if good == len(KINDS):
        yield Finding("crds", Level.OK, f"all {good} are established and as this version has them")


def _components(facts: Facts) -> Iterator[Finding]:
    if (lost := blind("components", facts.workloads)) is not None:
        yield lost
    elif not facts.workloads:
        yield Finding(
            "components",
            Level.WARNING,
            f"namespace {facts.namespace} has no Deployment of Tramontane",
            "name the right one by --namespace, or install the chart",
        )
    elif not isinstance(facts.workloads, Unreadable):
        for name, raw in facts.workloads.items():
            yield _ready(name, raw, facts)
    if (lost := blind("leaders", facts.leases)) is not None:
        yield lost
        return
    assert not isinstance(facts.leases, Unreadable)
    for name in (LEASE_OPERATOR, LEASE_SCHEDULER):
        yield _led(name, facts.leases.get(name), facts.now)


def _ready(name: str, raw: Raw, facts: Facts) -> Finding:
    """Return how many are ready; an agent is, once its node is a Blade that it can report on."""
    status, spec = raw.get("status") or {}, raw.get("spec") or {}
    wanted = status.get("desiredNumberScheduled", spec.get("replicas", 1))
    ready = status.get("numberReady", status.get("readyReplicas", 0)) or 0
    told, pods = f"{name}: {ready} of {wanted} ready", f"kubectl -n {facts.namespace} get pods"
    if ready >= wanted:
        return Finding("components", Level.OK, told)
    if not facts.blades and raw["metadata"].get("labels", {}).get(COMPONENT) == "agent":
        return Finding(
            "components",
            Level.WARNING,
            f"{told}: an agent is ready once a NodePool has taken its node",
            f"until then they must be Running: {pods}",
        )
    return Finding("components", Level.WARNING if ready else Level.PROBLEM, told, pods)


def _led(name: str, lease: Raw | None, now: float) -> Finding:
    spec = (lease or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        return Finding(
            "leaders",
            Level.PROBLEM,
            f"{name} must have a leader (got none)",
            "is the component running? kubectl get pods -A -l app.kubernetes.io/part-of=tramontane",
        )
    silent_s = now - clock.parse(renewed)
    if silent_s > _LEASE_STALE_S:
        return Finding(
            "leaders",
            Level.PROBLEM,
            f"{name}: {holder} must renew its Lease (got none for {silent_s:.0f} s)",
            "look at the component's log: tramontane support collects it",
        )
    return Finding("leaders", Level.OK, f"{name}: {holder} leads")


def _access(facts: Facts) -> Iterator[Finding]:
    if (lost := blind("access", facts.access)) is not None:
        yield lost
        return
    assert not isinstance(facts.access, Unreadable)
    wrong = {one for one, allowed in facts.access.items() if allowed is not one.wanted}
    for one in sorted(wrong, key=lambda one: (one.component, str(one))):
        must = "must be allowed to" if one.wanted else "must not be allowed to"
        yield Finding(
            "access",
            Level.PROBLEM if one.wanted else Level.WARNING,
            f"the {one.component} {must} {one}",
            "the chart's roles say what each needs: rbac.create=true, or compare them",
        )
    if facts.access and not wrong:
        yield Finding("access", Level.OK, f"{len(facts.access)} rights are as they must be")


def _policies(facts: Facts) -> Iterator[Finding]:
    if (lost := blind("policies", facts.policies)) is not None:
        yield lost
        return
    assert not isinstance(facts.policies, Unreadable)
    bound = [name for name in facts.policies if name.endswith(("-report", "-heartbeat"))]
    if bound:
        yield Finding("policies", Level.OK, f"agents are held to their own blade: {some(bound)}")
    else:
        yield Finding(
            "policies",
            Level.WARNING,
            "no admission policy holds an agent to its own blade",
            "install the chart with admissionPolicy.enabled=true",
        )


def _security(facts: Facts) -> Iterator[Finding]:
    """Look for a label that keeps repairs out; whoever may not read it is told at admission."""
    if facts.pod_security in _UNPRIVILEGED:
        yield Finding(
            "security",
            Level.WARNING,
            f"namespace {facts.namespace} must admit privileged pods "
            f"(got {POD_SECURITY}={facts.pod_security})",
            "pods that reset a GPU, and agents with agent.access=Host, are refused: "
            f"kubectl label --overwrite namespace {facts.namespace} {POD_SECURITY}=privileged",
        )


def _prometheus(facts: Facts) -> Iterator[Finding]:
    if (lost := blind("prometheus", facts.groups)) is not None:
        yield lost
    elif MONITORING_GROUP not in facts.groups:  # type: ignore[operator]  # not Unreadable here
        yield Finding(
            "prometheus",
            Level.WARNING,
            f"the Prometheus operator's kinds ({MONITORING_GROUP}) are not served",
            "without it, let a scraper find the Services: metrics.service.enabled=true",
        )
    elif (lost := blind("prometheus", facts.monitors)) is not None:
        yield lost
    elif not facts.monitors:
        yield Finding(
            "prometheus",
            Level.WARNING,
            f"no PodMonitor or ServiceMonitor of Tramontane in {facts.namespace}",
            "podMonitor.enabled=true, prometheusRule.enabled=true, dashboards.enabled=true",
        )
    else:
        assert not isinstance(facts.monitors, Unreadable)
        yield Finding("prometheus", Level.OK, f"watched by {some(list(facts.monitors))}")


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    _versions, _crds, _components, _access, _policies, _security, agents, clocks, nodes, pools,
    _prometheus,
)  # fmt: skip


def _fields(crd: Raw) -> set[str]:
    """Return the paths of all fields of the version that this project writes."""
    found: set[str] = set()

    def walk(schema: Raw, path: str) -> None:
        for name, below in (schema.get("properties") or {}).items():
            found.add(f"{path}{name}")
            walk(below, f"{path}{name}.")
        if isinstance(items := schema.get("items"), dict):
            walk(items, path)

    for version in crd["spec"]["versions"]:
        walk((version.get("schema") or {}).get("openAPIV3Schema") or {}, "")
    return found


def _leading_number(text: str) -> int:
    """Return the number at the front: some clouds say 32+."""
    digits = "".join(char for char in text if char.isdigit())
    return int(digits) if digits else 0
