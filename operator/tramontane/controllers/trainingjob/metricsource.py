"""Read progress from the Prometheus endpoint of rank 0, where a job names one instead of patterns.

The endpoint is the user's: its answer is bounded in size and time, and only the lines of the two
metrics asked for are parsed, because a large answer would hold the event loop up.
"""

import asyncio
import math
from collections.abc import Iterator

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from tramontane.api.trainingjob import MetricsSource

EVERY_S = 5.0
TIMEOUT_S = 2.0
MAX_BODY_B = 2**22
_OK = 200
_LARGEST_STEP = 10**18


class NoMetrics(Exception):  # noqa: N818 - errors are named for what was found
    """Say that the endpoint gave no answer that can be read."""


async def fetch(session: aiohttp.ClientSession, address: str, source: MetricsSource) -> bytes:
    """Return the endpoint's answer.

    Raises:
        NoMetrics: it is no success, too large, or did not come in time.
    """
    # Appended, not joined: `//elsewhere/metrics` would be another host.
    base = URL.build(scheme="http", host=address, port=source.port)
    url = URL(str(base).rstrip("/") + source.path)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
            if answer.status != _OK:
                raise NoMetrics(f"{url}: must answer with 200 (got {answer.status})")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_B:
                    raise NoMetrics(
                        f"{url}: must answer with {MAX_BODY_B} bytes at most (got more)"
                    )
            return bytes(body)
    except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
        raise NoMetrics(f"{url}: must answer (got {str(error) or type(error).__name__})") from error


def read(body: bytes, source: MetricsSource) -> tuple[int | None, float | None]:
    """Return step and loss; None for what is not there or no finite number.

    Of several samples of the step's metric (one per local rank, say) the largest counts, of the
    loss's the first.
    """
    steps = [value for value in _values(body, source.step) if 0 <= value < _LARGEST_STEP]
    losses = list(_values(body, source.loss)) if source.loss else []
    return int(max(steps)) if steps else None, losses[0] if losses else None


def _values(body: bytes, name: str) -> Iterator[float]:
    wanted = name.encode()
    ends = (b"{", b" ", b"\t")
    lines = [
        line
        for line in body.split(b"\n")
        if line.startswith(wanted) and line[len(wanted) : len(wanted) + 1] in ends
    ]
    for line in lines:
        try:
            families = list(text_string_to_metric_families(line.decode() + "\n"))
        except ValueError:
            continue
        for family in families:
            yield from (one.value for one in family.samples if math.isfinite(one.value))
