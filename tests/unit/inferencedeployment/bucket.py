"""Serve a bucket over real HTTP, checking each signature with botocore's own code."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "to/ken+="
REGION = "eu-test-1"
SIGNED_ENV = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": REGION,
}


class Bucket:
    """Objects of one bucket, what was asked, and faults to come.

    Attributes:
        faults: what happens to the next requests for objects, in order: `500`, `403`, `cut` (half
            the answer), `drop` (no answer), `whole` (200 without a range), `other` (the object is
            replaced first), `gone`.
        page: keys per page of a listing.
        is_open: whether requests need no signature.
    """

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = dict(objects)
        self.faults: list[str] = []
        self.page = 1000
        self.is_open = False
        self.is_quoting = True
        self.listings = 0
        self.ranges: list[tuple[str, str]] = []
        self.paths: list[str] = []
        self.problems: list[str] = []
        self.gate: threading.Event | None = None
        self.lock = threading.Lock()
        self.url = ""

    @property
    def fetched_b(self) -> int:
        return sum(
            int(last) - int(first) + 1
            for _, span in self.ranges
            for first, last in [span.removeprefix("bytes=").split("-")]
        )


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def problem_of(method: str, url: str, headers: dict[str, str]) -> str:
    """Return what botocore would have signed differently; empty where it agrees."""
    given = headers.get("authorization", "")
    if not given:
        return "no signature"
    fields = dict(part.strip().split("=", 1) for part in given.split(" ", 1)[1].split(","))
    key, _, region, service, _ = fields["Credential"].split("/")
    if (key, region, service) != (KEY, REGION, "s3"):
        return f"credential {fields['Credential']}"
    signed = {name: headers[name] for name in fields["SignedHeaders"].split(";")}
    request = AWSRequest(method=method, url=url, headers=signed)
    request.context["timestamp"] = signed["x-amz-date"]
    auth = S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    right = auth.signature(text, request)
    return "" if fields["Signature"] == right else f"signature {fields['Signature']}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    bucket: ClassVar[Bucket]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        bucket = self.bucket
        bucket.paths.append(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not bucket.is_open:
            problem = problem_of("GET", f"http://{headers['host']}{self.path}", headers)
            if problem:
                bucket.problems.append(f"{self.path}: {problem}")
                self._refuse(403, "SignatureDoesNotMatch")
                return
        url = urlsplit(self.path)
        name, _, key = unquote(url.path).lstrip("/").partition("/")
        if name != "models":
            self._refuse(404, "NoSuchBucket")
        elif key:
            self._object(key, headers)
        else:
            self._list({name: values[0] for name, values in parse_qs(url.query).items()})

    def _object(self, key: str, headers: dict[str, str]) -> None:
        bucket = self.bucket
        if bucket.gate is not None:
            assert bucket.gate.wait(10)
        with bucket.lock:
            fault = bucket.faults.pop(0) if bucket.faults else ""
            bucket.ranges.append((key, headers["range"]))
        if fault.isdigit():
            self._refuse(int(fault), "SlowDown")
            return
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "gone":
            bucket.objects.pop(key)
        if fault == "other":
            bucket.objects[key] = bytes(len(bucket.objects[key]))
        if key not in bucket.objects:
            self._refuse(404, "NoSuchKey")
            return
        data = bucket.objects[key]
        if headers.get("if-match") not in (None, etag(data)):
            self._refuse(412, "PreconditionFailed")
            return
        first, last = (int(part) for part in headers["range"].removeprefix("bytes=").split("-"))
        part = data if fault == "whole" else data[first : last + 1]
        self.send_response(200 if fault == "whole" else 206)
        self.send_header("Content-Length", str(len(part)))
        if fault != "whole":
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if fault == "cut":
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
        else:
            self.wfile.write(part)

    def _list(self, query: dict[str, str]) -> None:
        bucket = self.bucket
        bucket.listings += 1
        assert query["list-type"] == "2"
        keys = sorted(key for key in bucket.objects if key.startswith(query.get("prefix", "")))
        start = int(query.get("continuation-token", "page 0").removeprefix("page "))
        more = len(keys) > start + bucket.page
        body = "".join(
            f"<Contents><Key>{self._shown(key)}</Key><Size>{len(bucket.objects[key])}</Size>"
            f"<ETag>{escape(etag(bucket.objects[key]))}</ETag></Contents>"
            for key in keys[start : start + bucket.page]
        )
        encoding = "<EncodingType>url</EncodingType>" if bucket.is_quoting else ""
        token = (
            f"<NextContinuationToken>page {start + bucket.page}</NextContinuationToken>"
            if more
            else ""
        )
        self._send(
            200,
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{encoding}{token}{body}"
            "</ListBucketResult>",
        )

    def _shown(self, key: str) -> str:
        return quote(key) if self.bucket.is_quoting else escape(key)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code></Error>")

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Say nothing: who was stopped hangs up."""


@contextmanager
def serving(objects: dict[str, bytes]) -> Iterator[Bucket]:
    """Serve objects under keys like `claims/v7/config.json` of the bucket `models`."""
    bucket = Bucket(objects)
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = _Server(("127.0.0.1", 0), handler)
    bucket.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
