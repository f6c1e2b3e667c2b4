"""Read label and field selectors as the API server does, as far as Tramontane writes them.

| written | means |
|---|---|
| `key` | has the label |
| `!key` | has it not |
| `key=v`, `key==v` | has it, with this value |
| `key!=v` | has it not, or with another value |
| `key in (a,b)`, `key notin (a,b)` | one of the values, or none of them |

Field selectors know `=`, `==` and `!=`; a field that is absent is empty.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tramontane.api.errors import InvalidValue

Raw = Mapping[str, Any]
Test = Callable[[Raw], bool]

_SET = re.compile(r"^(?P<key>[^\s!=]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")
_PAIR = re.compile(r"^(?P<key>[^!=\s]+)\s*(?P<op>!=|==|=)\s*(?P<value>.*)$")
_KEY = re.compile(r"^(?P<no>!?)(?P<key>[^!=\s,]+)$")
_COMMAS = re.compile(r",(?![^(]*\))")


@lru_cache(maxsize=256)
def selects(labels: str | None, fields: str | None) -> Test:
    """Return the test of an object for both selectors; None selects everything.

    Raises:
        InvalidValue: a selector cannot be read.
    """
    tests = [_label(part) for part in _parts(labels)] + [_field(part) for part in _parts(fields)]
    if len(tests) == 1:
        return tests[0]
    return lambda raw: all(test(raw) for test in tests)


def _parts(selector: str | None) -> list[str]:
    return [part.strip() for part in _COMMAS.split(selector)] if selector else []


def _labels(raw: Raw) -> Mapping[str, str]:
    return raw["metadata"].get("labels") or {}


def _label(part: str) -> Test:
    if found := _SET.match(part):
        key, values = found["key"], frozenset(one.strip() for one in found["values"].split(","))
        if found["op"] == "in":
            return lambda raw: _labels(raw).get(key) in values
        return lambda raw: _labels(raw).get(key) not in values
    if found := _PAIR.match(part):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda raw: _labels(raw).get(key) != value
        return lambda raw: _labels(raw).get(key) == value
    if found := _KEY.match(part):
        key = found["key"]
        if found["no"]:
            return lambda raw: key not in _labels(raw)
        return lambda raw: key in _labels(raw)
    raise InvalidValue("a label selector must be `key`, `!key`, `key=v` or `key in (v)`", part)


def _field(part: str) -> Test:
    found = _PAIR.match(part)
    if found is None:
        raise InvalidValue("a field selector must be `field=value` or `field!=value`", part)
    path, value, differs = found["key"].split("."), found["value"], found["op"] == "!="

    def test(raw: Raw) -> bool:
        at: Any = raw
        for name in path:
            at = at.get(name) if isinstance(at, Mapping) else None
        return (str(at or "") != value) is differs

    return test
