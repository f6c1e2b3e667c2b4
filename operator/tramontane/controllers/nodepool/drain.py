"""Ask pods to leave a blade whose own controllers do not know that it drains.

A TrainingJob's pods leave by its controller, which reads Blade and `remediation.drain`. Whoever
else made a pod reads neither. When `drain.timeout` is over:

| fault    | what follows                                                                        |
|----------|-------------------------------------------------------------------------------------|
| Fatal    | the pods are evicted: their owners' disruption budgets and grace periods hold       |
|          | one that may not be evicted is named in an event, and asked for again               |
| Degraded | an event names them: it harms nobody that they stay, but the repair waits for them  |

Nothing is deleted by force: these pods are not ours.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping

from tramontane.kube.client import ApiError, Client, NotFound
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import PODS

log = logging.getLogger(__name__)

_ACTION = "Drain"


class Drains:
    """The drains of one cluster that take too long; remembers only what it has said."""

    def __init__(self, client: Client, recorder: EventRecorder) -> None:
        self._client = client
        self._recorder = recorder
        self._said: defaultdict[str, set[str]] = defaultdict(set)

    async def ensure(
        self, blade: Mapping[str, str], reason: str, pods: Iterable[str], *, fatal: bool
    ) -> None:
        """Do what the module's table says.

        Args:
            blade: whom the events regard.
            reason: of the blade.
            pods: that should have left, as `namespace/name`; none: forget what was said.
            fatal: the fault's severity is Fatal.
        """
        name = blade["name"]
        pods = tuple(pods)
        if not pods:
            self._said.pop(name, None)
            return
        if not fatal:
            text = f"drain.timeout is over, and {', '.join(pods)} keep it from its repair"
            self._say(blade, reason, f"{text}; delete them, or wait")
            return
        for pod in pods:
            self._say(blade, reason, f"drain.timeout is over: {pod} is evicted")
            if (refusal := await self._evict(pod)) is not None:
                self._say(blade, reason, f"{pod} may not be evicted ({refusal}); delete it")

    async def _evict(self, pod: str) -> str | None:
        """Ask the API server to evict a pod; return why it does not, or None."""
        namespace, _, name = pod.partition("/")
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        try:
            await self._client.create(PODS, body, namespace, name=name, subresource="eviction")
        except NotFound:
            return None
        except ApiError as error:
            log.info("eviction refused pod=%s error=%r", pod, error.message)
            return error.message
        log.info("pod evicted pod=%s", pod)
        return None

    def _say(self, blade: Mapping[str, str], reason: str, text: str) -> None:
        said = self._said[blade["name"]]
        if text not in said:
            said.add(text)
            self._recorder.record(blade, "Warning", reason, text, _ACTION)
