"""Name the kinds of objects that Tramontane reads and writes, and their paths."""

from dataclasses import dataclass
from urllib.parse import quote

from tramontane.api.errors import InvalidValue
from tramontane.api.names import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API: what is needed to write a path and an apiVersion."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """Return the `apiVersion` of an object of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> str:
        """Return the URL path of the collection, or of one object or its subresource.

        Without a namespace the collection of a namespaced kind is that of all namespaces. The
        namespace of a cluster-scoped kind is ignored, so that callers need not tell them apart.

        Raises:
            InvalidValue: one object of a namespaced kind without its namespace.
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced:
            if namespace:
                parts += ["namespaces", quote(namespace, safe="")]
            elif name is not None:
                raise InvalidValue(f"{self.kind} {name}: a namespace must be given", namespace)
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SERVICES = Resource("", "v1", "services", "Service", namespaced=True)
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
JOBS = Resource("batch", "v1", "jobs", "Job", namespaced=True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
CONTROLLERREVISIONS = Resource(
    "apps", "v1", "controllerrevisions", "ControllerRevision", namespaced=True
)
NETWORKPOLICIES = Resource(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", namespaced=True
)
ENDPOINTSLICES = Resource(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True
)
HTTPROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute", namespaced=True)
PRIORITYCLASSES = Resource(
    "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False
)
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
NODEPOOLS = Resource(GROUP, VERSION, "nodepools", "NodePool", namespaced=False)
BLADES = Resource(GROUP, VERSION, "blades", "Blade", namespaced=False)
GANGS = Resource(GROUP, VERSION, "gangs", "Gang", namespaced=True)
TRAININGJOBS = Resource(GROUP, VERSION, "trainingjobs", "TrainingJob", namespaced=True)
INFERENCEDEPLOYMENTS = Resource(
    GROUP, VERSION, "inferencedeployments", "InferenceDeployment", namespaced=True
)
