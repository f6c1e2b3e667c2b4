"""Say what each reason means and what the way out is, as docs/reasons.md has it.

The page is the one place where that is written; a wheel and the images carry it beside this file.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tramontane.api.errors import TramontaneError

_WAY_OUT: Final = "**Way out:**"
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class NoManual(TramontaneError):  # noqa: N818 - named for what was found
    """Say that the page of reasons is not there."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Hold what a reason means, of what it is one (a heading of the page), and the way out."""

    word: str
    of: str
    text: str
    way_out: str

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "word": self.word,
            "of": self.of,
            "meaning": self.text,
            "wayOut": self.way_out,
        }


@lru_cache(maxsize=1)
def reasons() -> tuple[Meaning, ...]:
    """Return all reasons as the manual explains them; read once.

    Raises:
        NoManual: the page is not there.
    """
    found = []
    for section in re.split(r"^## ", _page(), flags=re.MULTILINE)[1:]:
        of, _, body = section.partition("\n")
        for entry in re.split(r"^### ", body, flags=re.MULTILINE)[1:]:
            word, _, text = entry.partition("\n")
            meaning, _, way_out = text.partition(_WAY_OUT)
            found.append(Meaning(word.strip(), of.strip(), _plain(meaning), _plain(way_out)))
    return tuple(found)


def _page() -> str:
    """Return the page: the wheel's, or the source tree's."""
    here = Path(__file__).resolve()
    for path in (here.parent / "reasons.md", here.parents[3] / "docs" / "reasons.md"):
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise NoManual(f"{here.parent / 'reasons.md'}: must be there (got nothing); install anew")


def _plain(text: str) -> str:
    """Return Markdown as words on one line."""
    return " ".join(_LINK.sub(r"\1", text).replace("*Not given yet.*", "(not given yet)").split())
