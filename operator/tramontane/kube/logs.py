"""Write logs as single lines: a time, a level, a logger, an event and its key=value pairs.

    log.info("lease acquired lease=%s identity=%s", name, identity)

becomes `2026-11-24T15:02:07.123Z level=info logger=tramontane.kube.lease lease acquired …`.
A traceback follows as one more pair, so that a line stays a line.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_NOISY = ("asyncio", "aiohttp.access", "kubernetes", "urllib3")


class LineFormatter(logging.Formatter):
    """Format a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"
        line = (
            f"{stamp} level={record.levelname.lower()} logger={record.name} {record.getMessage()}"
        )
        if record.exc_info:
            line += f" traceback={self.formatException(record.exc_info)!r}"
        return line.replace("\n", "\\n")


def set_up_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error) as lines.

    Raises:
        ValueError: there is no such level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
