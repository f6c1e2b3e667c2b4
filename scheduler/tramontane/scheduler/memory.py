"""Remember what gangs are known to say, while the informer and the API server catch up.

Three things can be known of a gang, and the newest counts:

| what | until |
|---|---|
| *seen*: what the informer or the answer to our own write said last | the next one |
| *hoped*: a write without an answer; its seats count as given | the gang is seen anew |
| *remembered*: the placement last known to be right, against edits by hand | the gang is gone |

Nothing here outlives the process: a new one sees the gangs, and begins to remember anew.
"""

from collections.abc import Iterator, Mapping

from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.integrity import Finding, Remembered, put_back


class Memory:
    """Hold the gangs as the next pass shall see them."""

    def __init__(self) -> None:
        self._seen: dict[str, GangRecord] = {}
        self._hoped: dict[str, GangRecord] = {}
        self._remembered: dict[str, Remembered] = {}

    @property
    def seen(self) -> Mapping[str, GangRecord]:
        """Return the newest version of each gang that is known to be stored."""
        return self._seen

    def unsure(self, key: str) -> bool:
        """Return whether a write of this gang was never answered."""
        return key in self._hoped

    def observe(self, key: str, record: GangRecord | None) -> bool:
        """Take what the informer says; return whether it is news, and no echo of our own write."""
        if record is None:
            self._hoped.pop(key, None)
            self._remembered.pop(key, None)
            return self._seen.pop(key, None) is not None
        known = self._seen.get(key)
        if known is not None and known.uid == record.uid and record.version <= known.version:
            return False
        self._seen[key] = record
        hoped = self._hoped.pop(key, None)
        if hoped is not None and (hoped.uid, hoped.placement) == (record.uid, record.placement):
            self._remember(record)
        return True

    def wrote(self, record: GangRecord, *, trusted: bool = True) -> None:
        """Take the answer to our own write; a placement that is not trusted is not put back."""
        self._hoped.pop(record.key, None)
        if trusted:
            self._remember(record)
        known = self._seen.get(record.key)
        if known is None or known.uid != record.uid or known.version < record.version:
            self._seen[record.key] = record

    def hope(self, record: GangRecord) -> None:
        """Take what was written without an answer: it may be there, so its seats are taken."""
        if record.key in self._seen:
            self._hoped[record.key] = record

    def give_up(self, key: str) -> None:
        """Forget a write that is known not to have been done."""
        self._hoped.pop(key, None)

    def adopt(self, key: str) -> None:
        """Remember a gang as it is seen, if nothing is remembered of it yet."""
        known = self._remembered.get(key)
        record = self._seen[key]
        if known is None or known.uid != record.uid:
            self._remember(record)

    def gangs(self) -> tuple[dict[str, GangRecord], dict[str, Finding]]:
        """Return the gangs for a pass: hopes included, edits by hand put back, and which."""
        gangs: dict[str, GangRecord] = {}
        findings: dict[str, Finding] = {}
        for key, record, finding in self._effective():
            gangs[key] = record
            if finding is not None:
                findings[key] = finding
        return gangs, findings

    def _effective(self) -> Iterator[tuple[str, GangRecord, Finding | None]]:
        for key, record in self._seen.items():
            hoped = self._hoped.get(key)
            if hoped is not None:
                yield key, hoped, None
            else:
                yield key, *put_back(record, self._remembered.get(key))

    def _remember(self, record: GangRecord) -> None:
        self._remembered[record.key] = Remembered(record.uid, record.told.epoch, record.placement)
