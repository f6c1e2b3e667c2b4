"""Write CEL rules whose refusals say what must be and what was given.

The API server shows `messageExpression`, and falls back to `message` should it fail to evaluate.
A rule is checked where an object is applied: no webhook that could be down.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

KEY = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """Hold one CEL rule.

    Attributes:
        rule: CEL; `self` is the value, `oldSelf` its former value (then it holds on updates only).
        must: what must be, in words, e.g. `minReplicas must not exceed maxReplicas`.
        got: what was given, as a format with `%d` and `%s`, e.g. `%d over %d`. CEL's `format`
            has a bounded estimated cost; adding strings made of numbers has none.
        args: CEL for the values of the format.
        remedy: what to do about it, or None.
    """

    rule: str
    must: str
    got: str
    args: tuple[str, ...] = ()
    remedy: str | None = None

    def to_schema(self) -> dict[str, str]:
        """Return the entry of `x-kubernetes-validations`."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        if not self.args:
            return {"rule": self.rule, "message": f"{self.must} (got {self.got}){remedy}"}
        must, end = (
            text.replace("\\", "\\\\").replace("'", "\\'").replace("%", "%%")
            for text in (self.must, remedy)
        )
        return {
            "rule": self.rule,
            "message": self.must + remedy,
            "messageExpression": f"'{must} (got {self.got}){end}'.format([{', '.join(self.args)}])",
        }


def rules(*given: Rule) -> dict[str, Any]:
    """Return the schema key that carries these rules; for `about(extra=…)` and `checked`."""
    return {KEY: [rule.to_schema() for rule in given]}


def immutable(name: str) -> Rule:
    """Return the rule that a field keeps its value for the life of its object."""
    return Rule(
        "self == oldSelf",
        f"{name} must not change after creation",
        '"%s" after "%s"',
        ("self", "oldSelf"),
    )


def checked(*given: Rule) -> ConfigDict:
    """Return the `model_config` of a model whose objects must meet these rules."""
    return ConfigDict(json_schema_extra=rules(*given))
