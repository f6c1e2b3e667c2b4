"""Hold the flags that one version of an engine knows.

They are data: one text file per engine and version in `flags/`, read from the engine's own source
by `readflags`. A line is one flag: all its spellings, then what it takes.

| end of the line | takes |
|---|---|
| (nothing) | no value: a switch |
| [VALUE] | at most one |
| VALUE | one |
| VALUE... | one or more |
| [VALUE...] | any number |
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Takes(Enum):
    """Say how many values follow a flag; the value is how a line of the file says it."""

    NOTHING = ""
    MAYBE_ONE = "[VALUE]"
    ONE = "VALUE"
    SOME = "VALUE..."
    ANY = "[VALUE...]"

    @property
    def least(self) -> int:
        """Return how many values there must be."""
        return 1 if self in {Takes.ONE, Takes.SOME} else 0

    @property
    def most(self) -> int | None:
        """Return how many values there may be; None for any number."""
        match self:
            case Takes.NOTHING:
                return 0
            case Takes.ONE | Takes.MAYBE_ONE:
                return 1
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Flag:
    """Hold one flag: its spellings, the first as its name, and what it takes."""

    spellings: tuple[str, ...]
    takes: Takes = Takes.NOTHING

    @property
    def name(self) -> str:
        """Return the spelling by which it is known."""
        return self.spellings[0]

    def __str__(self) -> str:
        return " ".join(part for part in (*self.spellings, self.takes.value) if part)


def parsed(text: str) -> dict[str, Flag]:
    """Return the flags of a file by every spelling; lines that begin with `#` are for people."""
    table: dict[str, Flag] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        takes = Takes.NOTHING
        if not words[-1].startswith("-"):
            takes = Takes(words.pop())
        flag = Flag(tuple(words), takes)
        table.update(dict.fromkeys(flag.spellings, flag))
    return table


def merged(flags: Iterable[Flag]) -> list[Flag]:
    """Return the flags in order of their names, each once, with all its spellings."""
    by_name: dict[str, Flag] = {}
    for flag in flags:
        known = by_name.get(flag.name, Flag((), flag.takes))
        spellings = dict.fromkeys((*known.spellings, *flag.spellings))
        by_name[flag.name] = Flag(tuple(spellings), flag.takes)
    return [by_name[name] for name in sorted(by_name)]
