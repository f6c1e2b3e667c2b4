"""Patch raw objects without changing them: JSON Merge Patch and JSON Patch, pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tramontane.kube.errors import Invalid

Raw = dict[str, Any]


def merge_patched(target: Any, patch: Any) -> Any:
    """Return `target` with a merge patch (RFC 7386): None removes, lists are replaced whole."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), value)
    return result


def json_patched(target: Raw, patch: Sequence[Mapping[str, Any]]) -> Raw:
    """Return `target` after the operations of a JSON patch (RFC 6902): test, add, replace, remove.

    Raises:
        Invalid: a test or a path does not fit; nothing was done then.
    """
    for operation in patch:
        steps = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        target = _operated(target, steps, operation, operation["path"])
    return target


def _operated(at: Any, steps: list[str], operation: Mapping[str, Any], path: str) -> Any:
    """Return `at` with the operation done at the end of the steps."""
    step, rest = steps[0], steps[1:]
    if not isinstance(at, (dict, list)):
        raise _nothing_at(path)
    index: Any = step if isinstance(at, dict) else len(at) if step == "-" else int(step)
    there = index in at if isinstance(at, dict) else index < len(at)
    if not rest:
        return _done(at, index, operation, is_there=there)
    if not there:
        raise _nothing_at(path)
    return _with(at, index, _operated(at[index], rest, operation, path))


def _done(at: Any, index: Any, operation: Mapping[str, Any], *, is_there: bool) -> Any:
    kind, value = operation["op"], operation.get("value")
    if kind == "add":
        return [*at[:index], value, *at[index:]] if isinstance(at, list) else {**at, index: value}
    # As the server's library has it: what is not there is null, to a test.
    if kind == "test":
        if (at[index] if is_there else None) != value:
            raise Invalid(422, "Invalid", f"testing value {operation['path']} failed")
        return at
    if not is_there or kind not in {"replace", "remove"}:
        raise _nothing_at(operation["path"])
    if kind == "replace":
        return _with(at, index, value)
    result = at.copy()
    del result[index]
    return result


def _with(at: Any, index: Any, value: Any) -> Any:
    result = at.copy()
    result[index] = value
    return result


def _nothing_at(path: str) -> Invalid:
    return Invalid(422, "Invalid", f"the server rejected our request: {path} is not there")
