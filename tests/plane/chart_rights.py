"""What each account of the chart may do, and some of what it may not, as tables for people."""

from collections.abc import Iterator

from chart.helm import Object
from plane.chart_cluster import Cluster

ALLOWED = {
    "tramontane-operator": """
        list watch                 tramontane.dev/nodepools
        patch                      tramontane.dev/nodepools/status
        get list watch delete      tramontane.dev/trainingjobs
        patch                      tramontane.dev/trainingjobs/status
        update                     tramontane.dev/trainingjobs/finalizers
        get list watch             tramontane.dev/inferencedeployments
        patch                      tramontane.dev/inferencedeployments/status
        update                     tramontane.dev/inferencedeployments/finalizers
        list watch create patch delete    tramontane.dev/blades
        patch                      tramontane.dev/blades/status
        list watch create patch delete    tramontane.dev/gangs
        get list watch patch       nodes
        patch                      nodes/status
        get list watch create patch delete    pods
        get                        pods/log
        create                     pods/eviction
        get create patch delete    services
        get create patch           configmaps
        get list create patch delete    apps/controllerrevisions
        get create patch           apps/deployments
        get create patch           networking.k8s.io/networkpolicies
        get create patch delete    discovery.k8s.io/endpointslices
        get create patch           gateway.networking.k8s.io/httproutes
        get                        scheduling.k8s.io/priorityclasses
        create patch               events.k8s.io/events
        create list watch          coordination.k8s.io/leases@tramontane-system
        get update                 coordination.k8s.io/leases@tramontane-system/tramontane-operator
        list                       coordination.k8s.io/leases@kube-node-lease
    """,
    "tramontane-scheduler": """
        list watch                 tramontane.dev/nodepools
        list watch                 tramontane.dev/blades
        list watch                 tramontane.dev/gangs
        patch                      tramontane.dev/gangs/status
        list watch                 nodes
        get list watch             pods
        create                     pods/binding
        patch                      pods/status
        create patch               events.k8s.io/events
        get list watch             scheduling.k8s.io/podgroups
        get list watch             scheduling.k8s.io/workloads
        get list watch             scheduling.volcano.sh/podgroups
        get list watch             scheduling.x-k8s.io/podgroups
        get list watch             jobset.x-k8s.io/jobsets
        create                     coordination.k8s.io/leases@tramontane-system
        get update                 coordination.k8s.io/leases@tramontane-system/tramontane-scheduler
    """,
    "tramontane-agent": """
        get                        tramontane.dev/blades
        patch                      tramontane.dev/blades/status
        create patch               coordination.k8s.io/leases@tramontane-system
    """,
    "tramontane-doctor": """
        list                       tramontane.dev/nodepools
        list                       tramontane.dev/blades
        list                       nodes
        list                       apiextensions.k8s.io/customresourcedefinitions
        list                       admissionregistration.k8s.io/validatingadmissionpolicybindings
        create                     authorization.k8s.io/subjectaccessreviews
        get                        namespaces@tramontane-system/tramontane-system
        list                       apps/deployments@tramontane-system
        list                       apps/daemonsets@tramontane-system
        list                       coordination.k8s.io/leases@tramontane-system
        list                       monitoring.coreos.com/podmonitors@tramontane-system
        list                       monitoring.coreos.com/servicemonitors@tramontane-system
    """,
}
REFUSED = {
    "tramontane-operator": """
        get list watch             secrets
        create patch update        tramontane.dev/trainingjobs
        create patch delete        tramontane.dev/nodepools
        patch update               tramontane.dev/gangs/status
        create                     pods/exec
        create delete              nodes
        update                     coordination.k8s.io/leases@tramontane-system/tramontane-scheduler
        update                     coordination.k8s.io/leases@tramontane-system/blade-gpu-1
        update                     coordination.k8s.io/leases@kube-node-lease
        create                     rbac.authorization.k8s.io/clusterroles
        impersonate                users
    """,
    "tramontane-scheduler": """
        get list watch             secrets
        create delete patch        pods
        patch                      nodes
        create patch delete        tramontane.dev/gangs
        patch                      tramontane.dev/blades/status
        patch                      tramontane.dev/trainingjobs/status
        update                     coordination.k8s.io/leases@tramontane-system/tramontane-operator
    """,
    "tramontane-agent": """
        get list watch             secrets
        list watch                 pods
        get list patch             nodes
        patch                      nodes/status
        list watch create patch update delete    tramontane.dev/blades
        get list                   tramontane.dev/nodepools
        patch                      tramontane.dev/gangs/status
        get update delete          coordination.k8s.io/leases@tramontane-system
        get                        coordination.k8s.io/leases@kube-node-lease
    """,
    "tramontane-doctor": """
        get list watch             secrets
        get list watch             secrets@tramontane-system
        get list create delete     pods@tramontane-system
        create patch update delete tramontane.dev/blades
        patch                      tramontane.dev/blades/status
        create patch delete        tramontane.dev/nodepools
        patch                      nodes
        list                       apps/deployments
        create patch update delete apps/deployments@tramontane-system
        update                     coordination.k8s.io/leases@tramontane-system
        create patch               apiextensions.k8s.io/customresourcedefinitions
        impersonate                users
    """,
}

# What the roles for people allow, whoever is bound to them.
VIEWER = """
    get list watch             tramontane.dev/nodepools
    get list watch             tramontane.dev/blades
    get list watch             tramontane.dev/gangs
    get list watch             tramontane.dev/trainingjobs
    get list watch             tramontane.dev/inferencedeployments
    list watch                 events.k8s.io/events
    list                       nodes
    list                       pods
    list                       scheduling.k8s.io/priorityclasses
"""
PEOPLE_ALLOWED = {
    "tramontane-viewer": VIEWER,
    "tramontane-oncall": VIEWER
    + """
    patch                      tramontane.dev/blades
    patch                      tramontane.dev/nodepools
    get                        pods
    get                        pods/log
    get                        namespaces@tramontane-system/tramontane-system
    list                       apps/deployments
    list                       apps/daemonsets
    list                       coordination.k8s.io/leases
    list                       monitoring.coreos.com/podmonitors
    list                       monitoring.coreos.com/servicemonitors
    list                       apiextensions.k8s.io/customresourcedefinitions
    list                       admissionregistration.k8s.io/validatingadmissionpolicybindings
    create                     authorization.k8s.io/subjectaccessreviews
""",
}
PEOPLE_REFUSED = {
    "tramontane-viewer": """
        get list watch             secrets
        get list watch             configmaps
        get                        pods/log
        create patch update delete tramontane.dev/blades
        create patch update delete tramontane.dev/nodepools
        create patch update delete tramontane.dev/trainingjobs
        list                       apps/deployments
    """,
    "tramontane-oncall": """
        get list watch             secrets
        get list watch             configmaps
        create delete              tramontane.dev/blades
        create delete              tramontane.dev/nodepools
        patch                      tramontane.dev/blades/status
        patch                      tramontane.dev/nodepools/status
        create patch update delete tramontane.dev/trainingjobs
        create patch delete        pods
        create                     pods/exec
        patch                      nodes
        get                        namespaces@research/research
        patch                      apps/deployments
        patch update               coordination.k8s.io/leases
        impersonate                users
    """,
}


def questions(table: str) -> Iterator[Object]:
    """Yield the resourceAttributes of each `verb… group/resource[/sub][@namespace[/name]]`."""
    for words in filter(None, map(str.split, table.splitlines())):
        *verbs, subject = words
        what, _, where = subject.partition("@")
        parts = what.split("/")
        group = parts.pop(0) if "." in parts[0] or parts[0] == "apps" else ""
        namespace, _, name = where.partition("/")
        for verb in verbs:
            yield {
                "verb": verb,
                "group": group,
                "resource": parts[0],
                "subresource": parts[1] if len(parts) > 1 else "",
                "namespace": namespace or "research",
                "name": name,
            }


def named(table: str) -> set[tuple[str, str, str]]:
    """Return what a table names as (verb, group, resource[/sub]), wherever it is allowed."""
    return {
        (one["verb"], one["group"], "/".join(filter(None, (one["resource"], one["subresource"]))))
        for one in questions(table)
    }


def may(installed: Cluster, user: str, attributes: Object) -> bool:
    """Ask the API server what somebody may do."""
    review = installed.admin.create(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": attributes,
            },
        },
    )
    return bool(review["status"]["allowed"])
