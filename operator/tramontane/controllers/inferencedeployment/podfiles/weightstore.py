"""Speak with an object store: signed requests, listings, patience. `weightfetch` fetches with it.

Requests are GETs, path-style (`endpoint/bucket/key`), signed with Signature Version 4, or not at
all where there is no key.

Environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or
AWS_DEFAULT_REGION (`us-east-1`), AWS_CA_BUNDLE (a hall's own certificate authority).
Standard library only, Python 3.8 or later.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import random
import ssl
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

if TYPE_CHECKING or __package__:
    from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
        FetchFailed,
        Mismatch,
        Missing,
        say,
    )
else:
    from weightfiles import FetchFailed, Mismatch, Missing, say

TIMEOUT_S = 60.0
# Tries without a byte of progress, and the pauses between them.
TRIES = 8
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 20.0
MAX_ANSWER_B = 64 << 20
MAX_KEYS = 100_000

OK, PARTIAL = 200, 206
_FORBIDDEN, _NOT_FOUND, _CHANGED = 403, 404, 412
_SERVER = 500
_AGAIN = (408, 425, 429)
_NOTHING = hashlib.sha256(b"").hexdigest()


class Item(NamedTuple):
    """Hold one object of a listing."""

    path: str
    key: str
    size: int
    etag: str


class Again(Exception):  # noqa: N818 - never leaves these two files
    """Say that the same request may succeed later."""


class Signer(NamedTuple):
    """Sign requests with the key of somebody.

    Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header".
    """

    region: str
    key: str
    secret: str
    token: str = ""

    def headers(self, host: str, path: str, query: str, now: float) -> dict[str, str]:
        """Return the headers that sign a GET of `path?query`, both already quoted."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        headers = {"host": host, "x-amz-content-sha256": _NOTHING, "x-amz-date": stamp}
        if self.token:
            headers["x-amz-security-token"] = self.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
        ordered = "&".join(sorted(query.split("&"), key=lambda word: word.split("=")))
        request = f"GET\n{path}\n{ordered}\n{lines}\n{names}\n{_NOTHING}"
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        hashed = hashlib.sha256(request.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
        key = ("AWS4" + self.secret).encode()
        for word in scope.split("/"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers


class Store:
    """Speak with one bucket; each thread has a connection of its own."""

    def __init__(self, endpoint: str, bucket: str, environ: Mapping[str, str]) -> None:
        url = urlsplit(endpoint)
        self._host = url.netloc.rsplit("@", 1)[-1]  # never a password: names go into messages
        if url.scheme not in ("http", "https") or not url.hostname or not bucket:
            raise FetchFailed(f"endpoint and bucket must be given (got {self._host!r}, {bucket!r})")
        self.name = f"{url.scheme}://{self._host}{url.path.rstrip('/')}/{bucket}"
        self._base = url.path.rstrip("/") + "/" + quote(bucket, safe="-_.~")
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        token = environ.get("AWS_SESSION_TOKEN", "")
        self._signer = Signer(region, key, secret, token) if key and secret else None
        self._context: ssl.SSLContext | None = None
        if url.scheme == "https":
            self._context = ssl.create_default_context(cafile=environ.get("AWS_CA_BUNDLE") or None)
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()

    def get(
        self, key: str = "", query: str = "", extra: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Return the answer to one GET, its head read.

        Raises:
            Again: the way there or the store failed for now.
            Missing: there is no such bucket or object.
            FetchFailed: the store refuses.
        """
        path = self._base + ("/" + quote(key, safe="-_.~/") if key else "")
        headers = {"host": self._host}
        if self._signer is not None:
            headers = self._signer.headers(self._host, path, query, time.time())
        headers.update(extra or {})
        try:
            connection = self._connection()
            connection.request("GET", path + ("?" + query if query else ""), headers=headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.drop()
            raise Again(
                f"{self.name}: must answer (got {error or type(error).__name__})"
            ) from error
        if answer.status in (OK, PARTIAL):
            return answer
        self._refused(answer, f"{self.name}/{key}" if key else self.name)
        raise AssertionError

    def _refused(self, answer: http.client.HTTPResponse, what: str) -> None:
        try:
            said = answer.read(4096).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        self.drop()
        code = said.partition("<Code>")[2].partition("</Code>")[0] or answer.reason
        got = f"got {answer.status} {code}"
        if answer.status == _NOT_FOUND:
            raise Missing(f"{what}: must exist ({got})")
        if answer.status == _CHANGED:
            raise FetchFailed(f"{what}: must not change while it is fetched ({got})")
        if answer.status >= _SERVER or answer.status in _AGAIN:
            raise Again(f"{what}: must answer ({got})")
        hint = "; look at the secret's keys and the clock" if answer.status == _FORBIDDEN else ""
        raise FetchFailed(f"{what}: must be readable ({got}{hint})")

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            if self._context is None:
                found = http.client.HTTPConnection(self._host, timeout=TIMEOUT_S)
            else:
                found = http.client.HTTPSConnection(
                    self._host, timeout=TIMEOUT_S, context=self._context
                )
            self._local.connection = found
            self._open.append(found)
        return found

    def drop(self) -> None:
        """Close this thread's connection, as the rest of an answer is not wanted."""
        found = getattr(self._local, "connection", None)
        if found is not None:
            found.close()
            self._open.remove(found)
            self._local.connection = None


class Patience:
    """Wait longer from try to try, and give up after so many without progress."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._tried = 0

    def progressed(self) -> None:
        """Start counting anew."""
        self._tried = 0

    def after(self, error: Again) -> None:
        """Wait before the next try.

        Raises:
            FetchFailed: there is none.
        """
        self._tried += 1
        if self._tried >= TRIES or self._stop.is_set():
            raise FetchFailed(f"{error}, {self._tried} times") from error
        pause_s: float = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self._tried - 1))
        say("retry", why=json.dumps(str(error)), after_s=round(pause_s, 1))
        self._stop.wait(pause_s * random.uniform(0.5, 1.0))


def listing(store: Store, prefix: str) -> list[Item]:
    """Return the objects of a directory; hidden ones and folder marks are left out.

    Raises:
        Missing: there is none.
        Mismatch: a key would be written outside the directory.
        FetchFailed: the store cannot be read.
    """
    start = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    found: list[Item] = []
    token = ""
    patience = Patience(threading.Event())
    while True:
        words = {"encoding-type": "url", "list-type": "2", "prefix": start}
        if token:
            words["continuation-token"] = token
        query = "&".join(f"{name}={quote(words[name], safe='-_.~')}" for name in sorted(words))
        try:
            answer = store.get(query=query)
            page = _page(_whole(answer, store), start)
        except Again as error:
            patience.after(error)
            continue
        patience.progressed()
        found += page[0]
        token = page[1]
        if len(found) > MAX_KEYS:
            raise Mismatch(f"{store.name}/{start}: must have at most {MAX_KEYS} objects")
        if not token:
            break
    if not found:
        raise Missing(f"{store.name}/{start}: must have objects (got none)")
    return sorted(found)


def _whole(answer: http.client.HTTPResponse, store: Store) -> bytes:
    try:
        data = answer.read(MAX_ANSWER_B + 1)
    except (OSError, http.client.HTTPException) as error:
        store.drop()
        raise Again(
            f"{store.name}: must answer whole (got {error or type(error).__name__})"
        ) from error
    if len(data) > MAX_ANSWER_B:
        store.drop()
        raise FetchFailed(f"{store.name}: listing must be at most {MAX_ANSWER_B} bytes a page")
    return data


def _page(data: bytes, start: str) -> tuple[list[Item], str]:
    tree = _tree(data)
    is_quoted = _text(tree, "EncodingType") == "url"
    try:
        items = [
            _item(child, start, is_quoted)
            for child in tree
            if child.tag.rpartition("}")[2] == "Contents"
        ]
    except ValueError as error:
        raise Again(f"listing must have the size of each object (got {error})") from error
    more = _text(tree, "IsTruncated") == "true"
    token = _text(tree, "NextContinuationToken")
    if more and not token:
        raise FetchFailed("listing must have NextContinuationToken when IsTruncated")
    return [item for item in items if _is_wanted(item)], token if more else ""


def _tree(data: bytes) -> ET.Element:
    try:
        tree = None if b"<!DOCTYPE" in data else ET.fromstring(data)  # noqa: S314 - has no DTD
    except ET.ParseError:
        tree = None
    if tree is None or not tree.tag.endswith("ListBucketResult"):
        raise Again(f"listing must be a ListBucketResult (got {data[:64]!r})")
    return tree


def _text(element: ET.Element, name: str) -> str:
    for child in element:
        if child.tag.rpartition("}")[2] == name:
            return child.text or ""
    return ""


def _item(entry: ET.Element, start: str, is_quoted: bool) -> Item:
    key = _text(entry, "Key")
    key = unquote(key.replace("+", " ")) if is_quoted else key
    if not key.startswith(start):
        raise Mismatch(f"{key!r}: must begin with {start!r}")
    return Item(key[len(start) :], key, int(_text(entry, "Size")), _text(entry, "ETag"))


def _is_wanted(item: Item) -> bool:
    if not item.path or item.path.endswith("/"):
        return False
    parts = item.path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in item.path:
        raise Mismatch(f"{item.key!r}: must be a plain path below the prefix")
    return not any(part.startswith(".") for part in parts)
