"""Own fields, manager by manager, as server-side apply has it: pure.

An object's fields are named by paths. What is between two managers is decided per path:

| a manager applies | then |
|---|---|
| a field that nobody owns, or with the value that it has | it owns the field, with the others |
| a field of somebody else with another value, forced | it owns the field alone |
| the same, not forced | conflict |
| not any more what it owned | it is given up, and removed if nobody else owns it |

A plain write (create, patch, replace) takes what it changes from everybody else.

Maps are owned key by key. A list is owned as a whole, unless its schema says that its items have
keys: then item by item. Source: KEP-555 and the structured-merge-diff library; the list schemas of
our kinds are read from their CRDs, those of the core kinds are the few that we touch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]
# A step is a key of a map, or (values of an item's keys) in parentheses for an item of a list.
Step = str | tuple[Any, ...]
Path = tuple[Step, ...]
Paths = frozenset[Path]

_ITEM = "*"


@dataclass(frozen=True, slots=True)
class Schema:
    """Say which lists have keys, and which maps are owned as a whole, by path.

    Attributes:
        keys: path with `*` for any item or free key → names of the keys; `()` for a set.
        whole: paths of maps that are atomic.
        known: all paths that lead to one of these.
    """

    keys: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    whole: frozenset[tuple[str, ...]] = frozenset()
    known: frozenset[tuple[str, ...]] = frozenset()


# Every kind has these.
_META_KEYS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("metadata", "finalizers"): (),
}
_UNOWNED = frozenset(
    {
        ("apiVersion",),
        ("kind",),
        *(
            ("metadata", name)
            for name in (
                "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
                "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields",
            )
        ),
    }
)  # fmt: skip


def schema_of(openapi: Mapping[str, Any] | None = None, **more: Any) -> Schema:
    """Return the schema of a kind: of its CRD's openAPIV3Schema, and with `keys` given by hand."""
    keys: dict[tuple[str, ...], tuple[str, ...]] = dict(_META_KEYS)
    keys.update(more.get("keys", {}))
    whole: set[tuple[str, ...]] = set(more.get("whole", ()))
    if openapi is not None:
        _read(openapi, (), keys, whole)
    known = {one[:depth] for one in (*keys, *whole) for depth in range(1, len(one) + 1)}
    return Schema(keys, frozenset(whole), frozenset(known))


def _read(
    schema: Mapping[str, Any],
    at: tuple[str, ...],
    keys: dict[tuple[str, ...], tuple[str, ...]],
    whole: set[tuple[str, ...]],
) -> None:
    if schema.get("x-kubernetes-map-type") == "atomic":
        whole.add(at)
    if schema.get("x-kubernetes-list-type") == "map":
        keys[at] = tuple(schema["x-kubernetes-list-map-keys"])
    elif schema.get("x-kubernetes-list-type") == "set":
        keys[at] = ()
    for name, one in (schema.get("properties") or {}).items():
        _read(one, (*at, name), keys, whole)
    for free in ("items", "additionalProperties"):
        if isinstance(one := schema.get(free), Mapping):
            _read(one, (*at, _ITEM), keys, whole)


def paths_of(body: Mapping[str, Any], schema: Schema) -> Paths:
    """Return the fields that a body names, without those that nobody owns."""
    return frozenset(
        path for path in _leaves(body, (), (), schema) if path and path not in _UNOWNED
    )


def _leaves(value: Any, path: Path, at: tuple[str, ...], schema: Schema) -> Iterator[Path]:
    if isinstance(value, dict) and value and at not in schema.whole:
        for name, one in value.items():
            yield from _leaves(one, (*path, name), _below(at, name, schema), schema)
        return
    names = schema.keys.get(at) if isinstance(value, (list, tuple)) else None
    if names is None:
        yield path
        return
    for one in value:
        item = (*path, _step(one, names))
        yield item
        if names:
            for name, part in one.items():
                yield from _leaves(part, (*item, name), (*at, _ITEM, name), schema)


def _below(at: tuple[str, ...], name: str, schema: Schema) -> tuple[str, ...]:
    """Return the schema's path of a key: its own where the schema knows it, else any key's."""
    named = (*at, name)
    if named in schema.known:
        return named
    free = (*at, _ITEM)
    return free if free in schema.known else named


def _step(item: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(name) for name in names) if names else (item,)


_ABSENT = object()


def value_at(raw: Any, path: Path, schema: Schema) -> Any:
    """Return the value of a field; a mark of its own where there is none."""
    at: tuple[str, ...] = ()
    for step in path:
        if isinstance(step, str):
            if not isinstance(raw, dict) or step not in raw:
                return _ABSENT
            at = _below(at, step, schema)
            raw = raw[step]
        else:
            names = schema.keys.get(at, ())
            found = (one for one in raw or () if _step(one, names) == step)
            raw = next(found, _ABSENT)
            if raw is _ABSENT:
                return _ABSENT
            at = (*at, _ITEM)
    return raw


def merged(live: Any, body: Any, schema: Schema, at: tuple[str, ...] = ()) -> Any:
    """Return `live` with what `body` names; what it does not name stays."""
    if isinstance(body, dict) and isinstance(live, dict) and at not in schema.whole:
        result = dict(live)
        for name, one in body.items():
            below = _below(at, name, schema)
            result[name] = merged(live[name], one, schema, below) if name in live else one
        return result
    names = schema.keys.get(at) if isinstance(body, (list, tuple)) else None
    if names is None or not isinstance(live, (list, tuple)):
        return body
    fresh = {_step(one, names): one for one in body}
    items = []
    for one in live:
        new = fresh.pop(_step(one, names), _ABSENT)
        items.append(one if new is _ABSENT else merged(one, new, schema, (*at, _ITEM)))
    return [*items, *fresh.values()]


def without(raw: Raw, paths: Iterable[Path], schema: Schema) -> Raw:
    """Return the object without these fields; a map or list that is empty then goes, too."""
    gone = frozenset(paths)
    # An item of a list that goes takes its fields with it, and is found by them until then.
    whole = [
        path for path in gone if not any(path[:depth] in gone for depth in range(1, len(path)))
    ]
    for path in sorted(whole, key=len, reverse=True):
        left = _drop(raw, path, (), schema)
        raw = left if isinstance(left, dict) else {}
    return raw


def _drop(value: Any, path: Path, at: tuple[str, ...], schema: Schema) -> Any:
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        if not isinstance(value, dict) or step not in value:
            return value
        result = dict(value)
        below = _below(at, step, schema)
        left = _drop(value[step], rest, below, schema) if rest else _ABSENT
        if left is _ABSENT or (rest and not left and left != value[step]):
            del result[step]
        else:
            result[step] = left
        return result
    names = schema.keys.get(at, ())
    items = []
    for one in value or ():
        if _step(one, names) != step:
            items.append(one)
        elif rest:
            items.append(_drop(one, rest, (*at, _ITEM), schema))
    return items


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns: a manager, by applying or by plain writes, through an endpoint of its own."""

    manager: str
    applies: bool
    subresource: str = ""


Owners = Mapping[Owner, Paths]


@dataclass(frozen=True, slots=True)
class Applied:
    """What comes of an apply: the object, its owners, and who was in the way."""

    raw: Raw
    owners: Owners
    conflicts: tuple[tuple[str, Path], ...] = ()


def applied(live: Raw, owners: Owners, body: Raw, owner: Owner, schema: Schema) -> Applied:
    """Return the object after an apply, as the module's first table says."""
    wanted = paths_of(body, schema)
    before = owners.get(owner, frozenset())
    changed = {
        path for path in wanted if value_at(live, path, schema) != value_at(body, path, schema)
    }
    # An item of a keyed list is there or not; its fields differ by themselves.
    changed -= {
        path
        for path in changed
        if not isinstance(path[-1], str) and value_at(live, path, schema) is not _ABSENT
    }
    others = {one: paths for one, paths in owners.items() if one != owner}
    conflicts = tuple(
        (one.manager, path)
        for one, paths in others.items()
        for path in sorted(paths & changed, key=str)
    )
    raw = merged(live, body, schema)
    taken = {one: paths - changed for one, paths in others.items()}
    held = frozenset().union(*taken.values()) if taken else frozenset()
    raw = without(raw, _orphans(before - wanted, held, wanted), schema)
    after = {one: paths for one, paths in taken.items() if paths}
    if wanted:
        after[owner] = wanted
    return Applied(raw, after, conflicts)


def _orphans(given_up: Paths, held: Paths, wanted: Paths) -> list[Path]:
    """Return the fields that nobody owns any more, nor anything within them."""
    kept = {path[:depth] for path in (*held, *wanted) for depth in range(1, len(path) + 1)}
    return [path for path in given_up if path not in kept]


def written(before: Raw, after: Raw, owners: Owners, owner: Owner, schema: Schema) -> Owners:
    """Return the owners after a plain write: it owns what it changed, and nobody owns what went."""
    old, new = paths_of(before, schema), paths_of(after, schema)
    changed = frozenset(
        path
        for path in new
        if path not in old or value_at(before, path, schema) != value_at(after, path, schema)
    )
    changed = frozenset(p for p in changed if isinstance(p[-1], str) or p not in old)
    result = {
        one: (paths & new) - (changed if one != owner else frozenset())
        for one, paths in owners.items()
    }
    if changed:
        result[owner] = result.get(owner, frozenset()) | changed
    return {one: paths for one, paths in result.items() if paths}
