"""Be an API server in memory: objects, versions, owners of fields, deletion, watches.

It does what the real one does with what Tramontane sends, and was held against it
(tests/plane/test_sim_conformance.py): the same script gives the same transcript on both.

| of the real one | here |
|---|---|
| resourceVersion, Conflict, uid preconditions, AlreadyExists, NotFound | as there |
| status subresource, generation | as there |
| server-side apply, ownership by field | as there (owning.py) |
| deletion with grace, finalizers, garbage collection by owner | as there |
| lists in pages, watches with selectors, 410 after compaction | as there |
| defaults | one: a container requests what it is limited to |
| admission, CEL, validation, RBAC, managedFields in answers | none |

No I/O and no clock: whoever calls says what time it is.
"""

from collections.abc import Mapping
from typing import Any

from tramontane.api import clock
from tramontane.kube.errors import AlreadyExists, Conflict
from tramontane.kube.resources import Resource
from tramontane.lab.sim import owning
from tramontane.lab.sim.endpoints import check, of_endpoint, only, with_requests
from tramontane.lab.sim.kinds import Kind, kind_of
from tramontane.lab.sim.owning import Owner, Owners
from tramontane.lab.sim.patching import json_patched, merge_patched
from tramontane.lab.sim.store import Objects, Stored, key_of, not_found

Raw = dict[str, Any]

DEFAULT_GRACE_S = 30
_FINISHED = frozenset({"Succeeded", "Failed"})


class ApiServer(Objects):
    """All objects of one cluster, and all ways to write them. `now`: Unix seconds, for stamps."""

    def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str | None, by: str
    ) -> Raw:
        """Create an object.

        Raises:
            AlreadyExists: there is one of that name.
        """
        kind, meta = kind_of(resource), body["metadata"]
        name = meta["name"]
        namespace = namespace or meta.get("namespace")
        key = key_of(resource, name, namespace)
        if key in self._objects[resource]:
            raise AlreadyExists(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
        raw = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        if kind.has_status and not kind.keeps_status:
            raw.pop("status", None)
        if kind.first_status:
            raw["status"] = dict(kind.first_status)
        if kind.has_spec:
            raw["spec"] = with_requests(raw.get("spec") or {})
        raw["metadata"] = {
            **{k: v for k, v in meta.items() if k not in {"resourceVersion", "uid", "generation"}},
            "uid": f"00000000-0000-4000-8000-{next(self._uids):012x}",
            "creationTimestamp": clock.utc(self._now()),
        }
        if resource.namespaced:
            raw["metadata"]["namespace"] = namespace
        if kind.counts:
            raw["metadata"]["generation"] = 1
        owner = Owner(by, applies=False)
        owners = owning.written({}, raw, {}, owner, kind.schema)
        return self.put(resource, key, None, raw, owners)

    def replace(
        self, resource: Resource, body: Mapping[str, Any], subresource: str | None, by: str
    ) -> Raw:
        """Replace an object, or its status.

        Raises:
            Conflict: it is not at the resourceVersion of `body`, or has another uid.
        """
        meta = body["metadata"]
        stored = self.stored(resource, meta["name"], meta.get("namespace"))
        if (uid := meta.get("uid")) and uid != stored.raw["metadata"]["uid"]:
            raise Conflict(409, "Conflict", f"the UID in the precondition ({uid}) does not match")
        return self._write(resource, stored, dict(body), subresource, by)

    def merge_patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        patch: Mapping[str, Any],
        *,
        subresource: str | None,
        by: str,
    ) -> Raw:
        """Merge a patch into an object or its status (RFC 7386)."""
        stored = self.stored(resource, name, namespace)
        return self._write(resource, stored, merge_patched(stored.raw, patch), subresource, by)

    def json_patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        subresource: str | None,
        by: str,
    ) -> Raw:
        """Run the operations of a patch (RFC 6902), all or none.

        Raises:
            Invalid: a `test` or a path does not fit.
        """
        stored = self.stored(resource, name, namespace)
        return self._write(resource, stored, json_patched(stored.raw, patch), subresource, by)

    def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        manager: str,
        subresource: str | None,
        *,
        force: bool,
    ) -> Raw:
        """Apply what `manager` wants to own; makes the object where there is none.

        Raises:
            Conflict: another manager owns a field and `force` is false; or the uid is another's.
            NotFound: there is none, and `body` is of a subresource.
        """
        kind, meta = kind_of(resource), body["metadata"]
        name, namespace = meta["name"], meta.get("namespace")
        key = key_of(resource, name, namespace)
        stored = self._objects[resource].get(key)
        owner = Owner(manager, applies=True, subresource=subresource or "")
        body = of_endpoint(dict(body), kind, subresource)
        if stored is None:
            if subresource is not None:
                raise not_found(resource, name)
            if meta.get("uid"):
                raise Conflict(409, "Conflict", f"{resource.plural} {name}: no object of that uid")
            raw = self.create(resource, body, namespace, manager)
            owned = {owner: owning.paths_of(body, kind.schema)}
            self._objects[resource][key].owners = owned
            return raw
        check(kind, stored.raw, meta, subresource)
        done = owning.applied(stored.raw, stored.owners, body, owner, kind.schema)
        if done.conflicts and not force:
            who, path = done.conflicts[0]
            raise Conflict(409, "Conflict", f'conflict with "{who}": {path}')
        return self._change(resource, key, stored, done.raw, done.owners)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        grace_s: int | None,
        uid: str | None,
    ) -> Raw:
        """Delete an object, or ask for it where it has a grace or finalizers.

        A second request can only shorten the first one's grace.

        Raises:
            NotFound: there is none.
            Conflict: there is one with another uid.
        """
        stored = self.stored(resource, name, namespace)
        raw = stored.raw
        if uid is not None and raw["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", f"the UID in the precondition ({uid}) does not match")
        kind, key = kind_of(resource), key_of(resource, name, namespace)
        grace_s = self._grace_s(kind, raw, grace_s)
        meta = raw["metadata"]
        if grace_s == 0 and not meta.get("finalizers"):
            return self.remove(resource, key)
        asked_s = meta.get("deletionGracePeriodSeconds")
        if asked_s is not None and asked_s <= grace_s:
            return raw
        until = clock.utc(self._now() + grace_s)
        more: Raw = {"deletionTimestamp": until, "deletionGracePeriodSeconds": grace_s}
        return self._change(
            resource, key, stored, {**raw, "metadata": {**meta, **more}}, stored.owners
        )

    def _write(
        self, resource: Resource, stored: Stored, body: Raw, subresource: str | None, by: str
    ) -> Raw:
        kind, old = kind_of(resource), stored.raw
        check(kind, old, body["metadata"], subresource)
        raw = only(old, body, kind, subresource)
        owner = Owner(by, applies=False, subresource=subresource or "")
        owners = owning.written(old, raw, stored.owners, owner, kind.schema)
        meta = old["metadata"]
        return self._change(
            resource, key_of(resource, meta["name"], meta.get("namespace")), stored, raw, owners
        )

    def _change(
        self, resource: Resource, key: str, stored: Stored, raw: Raw, owners: Owners
    ) -> Raw:
        old = stored.raw
        if raw == old:
            stored.owners = owners
            return old
        if kind_of(resource).counts and _counted(raw) != _counted(old):
            generation = old["metadata"].get("generation", 0) + 1
            raw = {**raw, "metadata": {**raw["metadata"], "generation": generation}}
        meta = raw["metadata"]
        if (
            meta.get("deletionTimestamp")
            and not meta.get("finalizers")
            and not (kind_of(resource).has_grace and meta.get("deletionGracePeriodSeconds"))
        ):
            self.put(resource, key, old, raw, owners)
            return self.remove(resource, key)
        return self.put(resource, key, old, raw, owners)

    @staticmethod
    def _grace_s(kind: Kind, raw: Raw, asked_s: int | None) -> int:
        """Return the grace of a deletion: none for a pod that no kubelet has, or that has ended."""
        if not kind.has_grace:
            return 0
        spec = raw.get("spec") or {}
        ended = (raw.get("status") or {}).get("phase") in _FINISHED
        if not spec.get("nodeName") or ended:
            return 0
        default = int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S))
        return default if asked_s is None else asked_s


def _counted(raw: Raw) -> Raw:
    return {k: v for k, v in raw.items() if k not in {"metadata", "status"}}
