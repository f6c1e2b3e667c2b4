"""Cut a stream of chunks into lines of any length.

aiohttp's `readline` raises on lines longer than its buffer (aiohttp #4453), and a watch has one
object per line; so lines are cut here, from the chunks as they come.
"""

from collections.abc import AsyncIterable, AsyncIterator


async def split_lines(
    chunks: AsyncIterable[bytes], *, keep_tail: bool = False
) -> AsyncIterator[bytes]:
    """Yield the complete lines of `chunks`, without their newlines, empty ones left out.

    What follows the last newline is half an object of a watch and is dropped; with `keep_tail`
    it is the last line of a log and is yielded. O(bytes), also for a line of many chunks.
    """
    parts: list[bytes] = []
    async for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        parts.append(first)
        if not rest:
            continue
        if line := b"".join(parts):
            yield line
        for line in rest[:-1]:
            if line:
                yield line
        parts = [rest[-1]]
    if keep_tail and (line := b"".join(parts)):
        yield line
