"""Read the time stamps that a kubelet puts before a log's lines.

Pure. Three things are made of them: when a line was printed; where reading goes on after a stream
broke, so that nothing is read twice and nothing left out; and by how much the node's clock is off
against ours, because hangs are found by comparing the two.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tramontane.api import clock
from tramontane.api.errors import InvalidValue

# A fresh line is this old at most (s): further off, it is the clock that is.
TRUSTED_S: Final = 2.0
# Two fresh lines in a row must agree so well (s), and the offset must differ so much to change.
_AGREED_S: Final = 1.0
_SECOND = 19  # length of 2026-11-24T15:02:07


def split(line: bytes) -> tuple[float | None, bytes]:
    """Return when a line was printed (Unix s) and its text; None and the line without a stamp."""
    stamp, _, text = line.partition(b" ")
    at = _parsed(stamp)
    return (None, line) if at is None else (at, text)


def _parsed(stamp: bytes) -> float | None:
    # Thousands of lines a second have the same second: only the fraction is read for each.
    fraction, zone = stamp[_SECOND + 1 : -1], stamp[-1:]
    if zone == b"Z" and stamp[_SECOND : _SECOND + 1] == b"." and fraction.isdigit():
        second = _whole(stamp[:_SECOND] + b"Z")
        return None if second is None else second + int(fraction) / 10 ** len(fraction)
    return _whole(stamp)


@lru_cache(maxsize=4096)
def _whole(stamp: bytes) -> float | None:
    try:
        return clock.parse(stamp.decode("ascii"))
    except (InvalidValue, UnicodeDecodeError):
        return None


@dataclass(slots=True)
class Cursor:
    """Know which lines of a log have been read, by stamps that may repeat or go back.

    Attributes:
        at: stamp of the last line that was read (Unix s); None: none was.
    """

    at: float | None = None
    _same: int = 0  # lines in a row that had it
    _skips: bool = False
    _skipped: int = 0

    def reopened(self) -> None:
        """Say that the log is read again, from `at` or before."""
        self._skips, self._skipped = self.at is not None, 0

    def is_new(self, at: float) -> bool:
        """Take the stamp of the next line; return whether the line has not been read before.

        A clock that goes back while a stream lasts makes no line an old one.
        """
        if self._skips and self.at is not None:
            if at < self.at:
                return False
            if at == self.at and self._skipped < self._same:
                self._skipped += 1
                return False
            self._skips = False
        self._same = self._same + 1 if at == self.at else 1
        self.at = at
        return True


@dataclass(slots=True)
class Skew:
    """Estimate what must be added to a node's stamps to have our time (s).

    | two fresh lines in a row are | offset |
    |---|---|
    | both within 2 s of now | 0 |
    | both further off, alike within 1 s | as the second one is |
    | unlike | as it was: they were not fresh, but of a log that is being caught up with |
    """

    offset_s: float = 0.0
    _last_s: float | None = None

    def fresh(self, at: float, now: float) -> float:
        """Take the stamp of a line that has just been printed; return the offset's change (s)."""
        off_s, last_s = now - at, self._last_s
        self._last_s = off_s
        if last_s is None or abs(off_s - last_s) > _AGREED_S:
            return 0.0
        wanted_s = off_s if abs(off_s) > TRUSTED_S else 0.0
        change_s = wanted_s - self.offset_s
        if abs(change_s) <= _AGREED_S:
            return 0.0
        self.offset_s = wanted_s
        return change_s
