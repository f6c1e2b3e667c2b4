"""Remember what has happened, as a watch shows it."""

from dataclasses import dataclass
from typing import Any

from tramontane.kube.resources import Resource
from tramontane.lab.sim.selecting import Test

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One change: the object before and after; None where there was or is none."""

    version: int
    resource: Resource
    key: str
    before: Raw | None
    after: Raw | None

    def shown(self, test: Test, namespace: str | None) -> tuple[str, Raw] | None:
        """Return the event as a watch with these selectors shows it, or None: not at all."""
        old = self._seen(self.before, test, namespace)
        new = self._seen(self.after, test, namespace)
        if new is not None:
            return ("ADDED" if old is None else "MODIFIED"), new
        if old is None:
            return None
        # As there: the object as it was last seen, at the version of what took it out of sight.
        meta = {**old["metadata"], "resourceVersion": str(self.version)}
        return "DELETED", {**old, "metadata": meta}

    @staticmethod
    def _seen(raw: Raw | None, test: Test, namespace: str | None) -> Raw | None:
        if raw is None or (namespace and raw["metadata"].get("namespace") != namespace):
            return None
        return raw if test(raw) else None
