"""Read a required node affinity, and say whether a node's labels satisfy it, as Kubernetes does."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tramontane.api.errors import InvalidValue

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Requirement:
    """Hold one condition on a label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether a node with these labels satisfies it."""
        return _OPERATORS[self.operator](labels.get(self.key), self.values)


# All requirements of a term must hold; of several terms one must.
Term = tuple[Requirement, ...]


def _compares(value: str | None, bounds: tuple[str, ...], sign: int) -> bool:
    try:
        return (int(value or "") - int(bounds[0])) * sign > 0
    except ValueError:
        return False


_OPERATORS: Final[Mapping[str, Callable[[str | None, tuple[str, ...]], bool]]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: _compares(value, values, 1),
    "Lt": lambda value, values: _compares(value, values, -1),
}
_ONE_VALUE: Final = frozenset({"Gt", "Lt"})


def decode_terms(terms: Iterable[Raw]) -> tuple[Term, ...]:
    """Return `nodeSelectorTerms`.

    Raises:
        InvalidValue: a term has no expression over labels, or an operator is none of Kubernetes'.
    """
    decoded = []
    for term in terms:
        if term.get("matchFields") or not term.get("matchExpressions"):
            raise InvalidValue(
                f"a term of node affinity must have expressions over labels (got {dict(term)})",
                remedy="use matchExpressions",
            )
        requirements = []
        for one in term["matchExpressions"]:
            operator, values = one.get("operator"), tuple(one.get("values") or ())
            if operator not in _OPERATORS or (operator in _ONE_VALUE and len(values) != 1):
                known = ", ".join(_OPERATORS)
                raise InvalidValue(
                    f"node affinity on {one.get('key')} must use {known}, Gt and Lt with one value "
                    f"(got {operator} with {len(values)})"
                )
            requirements.append(Requirement(one["key"], operator, values))
        decoded.append(tuple(requirements))
    return tuple(decoded)


def satisfies(labels: Mapping[str, str], terms: tuple[Term, ...]) -> bool:
    """Return whether a node with these labels may be used; without terms any may."""
    return not terms or any(all(one.holds(labels) for one in term) for term in terms)
