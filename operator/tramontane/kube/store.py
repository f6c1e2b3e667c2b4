"""Keep the views of one kind by key, with indexes, and tell listeners what changed.

The store knows no I/O: it is told the whole truth (`replace`) or one change (`put`, `drop`).
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Called with (key, old, new); old is None for a new object, new for a deleted one.
Listener = Callable[[str, T | None, T | None], None]
Index = Callable[[T], Iterable[str]]


class Store(Generic[T]):
    """A cache that is read synchronously and changed by one informer.

    Attributes:
        cache: a live, read-only view; the keys are `namespace/name`, or `name`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._objects: dict[str, T] = {}
        self.cache: Mapping[str, T] = MappingProxyType(self._objects)
        self._indexes: dict[str, tuple[Index[T], dict[str, dict[str, None]]]] = {}
        self._listeners: list[Listener[T]] = []

    def add_index(self, name: str, function: Index[T]) -> None:
        """Index all objects, present and to come, by the strings that `function` returns.

        `function` must be pure: it is called again with the old object to remove its entries.
        """
        table: dict[str, dict[str, None]] = {}
        self._indexes[name] = (function, table)
        for key, value in self._objects.items():
            self._enter(name, function, table, key, value)

    def by_index(self, name: str, value: str) -> list[T]:
        """Return the objects that have `value` in index `name`. O(their number)."""
        return [self._objects[key] for key in self._indexes[name][1].get(value, ())]

    def add_listener(self, listener: Listener[T]) -> None:
        """Have `listener` called on each change from now on, and now once per object."""
        self._listeners.append(listener)
        for key, value in list(self._objects.items()):
            self._tell(listener, key, None, value)

    def put(self, key: str, new: T) -> None:
        """Add or change one object; an equal one changes nothing and is told to nobody."""
        old = self._objects.get(key)
        if old == new:
            return
        self._objects[key] = new
        for name, (function, table) in self._indexes.items():
            if old is not None:
                self._leave(name, function, table, key, old)
            self._enter(name, function, table, key, new)
        for listener in self._listeners:
            self._tell(listener, key, old, new)

    def drop(self, key: str) -> None:
        """Remove one object, if it is there."""
        old = self._objects.pop(key, None)
        if old is None:
            return
        for name, (function, table) in self._indexes.items():
            self._leave(name, function, table, key, old)
        for listener in self._listeners:
            self._tell(listener, key, old, None)

    def replace(self, fresh: Mapping[str, T]) -> None:
        """Make the store equal to `fresh`: deletions first, then what is new or different."""
        for key in [key for key in self._objects if key not in fresh]:
            self.drop(key)
        for key, value in fresh.items():
            self.put(key, value)

    def _enter(
        self, name: str, function: Index[T], table: dict[str, dict[str, None]], key: str, value: T
    ) -> None:
        for entry in self._entries(name, function, key, value):
            table.setdefault(entry, {})[key] = None

    def _leave(
        self, name: str, function: Index[T], table: dict[str, dict[str, None]], key: str, value: T
    ) -> None:
        for entry in self._entries(name, function, key, value):
            keys = table.get(entry)
            if keys is None:
                continue
            keys.pop(key, None)
            if not keys:
                del table[entry]

    def _entries(self, name: str, function: Index[T], key: str, value: T) -> Iterable[str]:
        try:
            return tuple(function(value))
        except Exception:
            # One odd object must not stop the informer; it is in no row of this index.
            log.exception("index failed resource=%s index=%s key=%s", self.what, name, key)
            return ()

    def _tell(self, listener: Listener[T], key: str, old: T | None, new: T | None) -> None:
        try:
            listener(key, old, new)
        except Exception:
            # Nor must one listener keep the others from hearing of it.
            log.exception("listener failed resource=%s key=%s", self.what, key)
