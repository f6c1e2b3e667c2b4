"""Cut a container's log into lines, whatever the container prints.

A log is not ours: it may be one line without an end, binary noise, or a million lines a second.
So lines are cut to a length, what is beyond is dropped as it comes, and reading is *paced*: after
each read we wait a moment, the lines of that moment come with one wake-up instead of one each, and
a log that is faster than we read fills the sockets' buffers and not our memory.
"""

import asyncio
import asyncio.sslproto
from collections.abc import AsyncIterator, Callable

from tramontane.kube.errors import Silent

# What of a line is kept (bytes).
MAX_LINE_B = 4096
# aiohttp stops reading from the socket at twice this.
READ_BUFFER_B = 2**15
# So much at once: there is more, and the next read need not wait for it to gather.
_MUCH_B = 2**14
_MORE_S = 0.01
# asyncio gives each TLS connection a buffer of 256 KiB: 500 MB for 2,000 logs that are followed.
# A TLS record has 16 KiB.
_TLS_BUFFER_B = 2**15


def keep_tls_buffers_small() -> None:
    """Have the TLS connections that are made from now on share out their memory sparingly."""
    protocol = asyncio.sslproto.SSLProtocol
    protocol.max_size = min(protocol.max_size, _TLS_BUFFER_B)


async def bounded_lines(
    chunks: AsyncIterator[bytes], most_b: int = MAX_LINE_B
) -> AsyncIterator[bytes]:
    """Yield the lines of `chunks` without newlines, cut to `most_b`, empty ones left out.

    The last line need not have a newline. Memory: one chunk and `most_b`.
    """
    begun = b""
    async for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        if len(begun) < most_b:
            begun += first[: most_b - len(begun)]
        if not rest:
            continue
        if begun:
            yield begun
        last = rest.pop()
        for line in rest:
            if line:
                yield line[:most_b]
        begun = last[:most_b]
    if begun:
        yield begun


async def paced(
    chunks: AsyncIterator[bytes], pause: Callable[[], float], silence_s: float | None, subject: str
) -> AsyncIterator[bytes]:
    """Yield the chunks and wait `pause()` seconds after each, less where there is much to read.

    Raises:
        Silent: nothing came for `silence_s`.
    """
    while True:
        try:
            async with asyncio.timeout(silence_s):
                chunk = await anext(chunks, b"")
        except TimeoutError:
            raise Silent(f"{subject}: something must come (got silence)") from None
        if not chunk:
            return
        yield chunk
        await asyncio.sleep(_MORE_S if len(chunk) >= _MUCH_B else pause())
