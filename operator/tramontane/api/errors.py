"""Define the exceptions that cross a package's border.

    TramontaneError
    ├── InvalidValue            a value is not what it must be (also a ValueError)
    ├── Refused                 a plan does not exist, with a reason of the closed lists
    └── (tramontane.kube)       what the API server or the way to it says

A message says what must be, what was given and, where there is one, the way out:
`must be a duration (got "10 min"); write it as 10m`.
"""

from typing import Final

_NOT_GIVEN: Final = object()


class TramontaneError(Exception):
    """Be the root of all exceptions that Tramontane raises on purpose."""


class InvalidValue(TramontaneError, ValueError):  # noqa: N818 - named for the finding
    """Say that a value is not what it must be.

    Being a ValueError, it becomes a validation error with a field path inside a pydantic model.

    Attributes:
        must: what the value must be, e.g. `must be at least 1`.
        got: the value that was given; absent where the message already says it.
        remedy: what to do about it, or None.
    """

    def __init__(self, must: str, got: object = _NOT_GIVEN, remedy: str | None = None) -> None:
        self.must = must
        self.got = None if got is _NOT_GIVEN else got
        self.remedy = remedy
        text = must if got is _NOT_GIVEN else f"{must} (got {_shown(got)})"
        super().__init__(f"{text}; {remedy}" if remedy else text)


class Refused(TramontaneError):  # noqa: N818 - the word for a plan that does not exist
    """Say that something cannot be done, with a reason of the closed lists in `reasons`.

    Attributes:
        reason: CamelCase; condition reason, metric label and documentation anchor at once.
        message: for people, with numbers.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(f"{reason}: {message}")


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
