"""Define what the API server, or the way to it, can say.

TramontaneError
├── ApiError                 the API server answered with a Status that is no success
│   ├── Unauthorized         401
│   ├── Forbidden            403
│   ├── NotFound             404
│   ├── AlreadyExists        409, reason AlreadyExists
│   ├── Conflict             409, any other reason
│   ├── Gone                 410: the resourceVersion or continue token is too old
│   ├── Invalid              422
│   └── TooManyRequests      429, after the retries inside the client
├── Unreachable              no answer, or one that broke off: the request may have been done
│   └── Silent               a stream on which nothing came for too long
└── LeadershipLost           somebody else leads, or may lead by now
"""

# ruff: noqa: N818 - errors are named for what was found

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tramontane.api.errors import TramontaneError

_ALREADY_EXISTS = "AlreadyExists"
_SHOWN_BODY = 200


class ApiError(TramontaneError):
    """Say that the API server refused a request.

    Attributes:
        status: the HTTP status, or the code of a watch's ERROR event.
        reason: the Status reason, e.g. `NotFound`; the HTTP reason where there is no Status.
        message: what the server said.
        body: the whole Status object, or None where the answer was none.
        subject: what was asked, e.g. `get pods ml/llama-0`; empty where nobody knows.
        retry_after_s: what the server's Retry-After asked for, or None.
    """

    remedy: ClassVar[str] = ""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        body: Mapping[str, Any] | None = None,
        *,
        subject: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.body = body
        self.subject = subject
        self.retry_after_s = retry_after_s
        text = f"{subject or 'request'}: must succeed (got {status} {reason}: {message})"
        super().__init__(f"{text}; {self.remedy}" if self.remedy else text)


class Unauthorized(ApiError):
    """401: the credentials are not (or no longer) valid."""

    remedy = "check the credentials in the kubeconfig or the service account's token"


class Forbidden(ApiError):
    """403: the credentials are valid and do not suffice."""

    remedy = "grant this verb to whoever asked"


class NotFound(ApiError):
    """404: there is no such object, or no such kind."""


class AlreadyExists(ApiError):
    """409 AlreadyExists: a create met an object of that name."""


class Conflict(ApiError):
    """409: the object has changed since it was read, or another manager owns a field."""

    remedy = "read it again"


class Gone(ApiError):
    """410: the resourceVersion or the continue token is too old."""

    remedy = "list again"


class Invalid(ApiError):
    """422: the object breaks its schema or a rule."""


class TooManyRequests(ApiError):
    """429: the server is overloaded, or a disruption budget forbids the eviction."""

    remedy = "try again later"


class Unreachable(TramontaneError):
    """Say that no (complete) answer came: a write may or may not have been done."""


class Silent(Unreachable):
    """Say that a stream brought nothing, not even a bookmark, for too long."""


class LeadershipLost(TramontaneError):
    """Say that this process must stop at once: it does not hold the Lease any more."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def from_status(
    code: int, body: Mapping[str, Any], *, subject: str = "", retry_after_s: float | None = None
) -> ApiError:
    """Return the error for a Status object (of an answer, or of a watch's ERROR event)."""
    reason = str(body.get("reason") or "")
    kind = AlreadyExists if reason == _ALREADY_EXISTS else _BY_STATUS.get(code, ApiError)
    return kind(
        code,
        reason or "Unknown",
        str(body.get("message") or "no message"),
        body,
        subject=subject,
        retry_after_s=retry_after_s,
    )


def from_answer(
    code: int, raw: bytes, *, subject: str, http_reason: str = "", retry_after: str | None = None
) -> ApiError:
    """Return the error for an HTTP answer, whether or not its body is a Status."""
    retry_after_s = seconds(retry_after)
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("kind") == "Status":
        return from_status(code, body, subject=subject, retry_after_s=retry_after_s)
    text = raw[:_SHOWN_BODY].decode(errors="replace").strip() or "empty answer"
    return _BY_STATUS.get(code, ApiError)(
        code, http_reason or "Unknown", text, None, subject=subject, retry_after_s=retry_after_s
    )


def seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None where it is absent or a date."""
    if retry_after is None or not retry_after.strip().isdecimal():
        return None
    return float(retry_after)
