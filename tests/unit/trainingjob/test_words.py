"""The last words of a pod."""

import pytest

from tramontane.controllers.trainingjob.progress import Exited
from tramontane.controllers.trainingjob.words import (
    MAX_LENGTH,
    MAX_LINES,
    LastWords,
    last_words,
)
from unit.trainingjob.builders import NOW
from unit.trainingjob.logs import line

STARTED = "tramontane-agent event=started attempt=2 pid=7"
EXITED = "tramontane-agent event=exited attempt=2 code=139 waits=60s"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param([], LastWords(True), id="nothing"),
        pytest.param(["Traceback", "boom"], LastWords(True, ("Traceback", "boom")), id="lines"),
        pytest.param(
            [STARTED, "boom", EXITED],
            LastWords(True, ("boom",), Exited(2, 139, NOW + 2)),
            id="it ended",
        ),
        pytest.param([EXITED, STARTED], LastWords(True), id="it goes again"),
        pytest.param([EXITED], LastWords(True, (), Exited(2, 139, NOW)), id="its start is far off"),
    ],
)
def test_words(said: list[str], words: LastWords) -> None:
    lines = [line(NOW + number, text) for number, text in enumerate(said)]
    assert last_words(lines, 0.0) == words


def test_an_unstamped_end_was_now() -> None:
    assert last_words([EXITED.encode()], NOW).exited == Exited(2, 139, NOW)


def test_words_are_bounded() -> None:
    words = last_words([b"%d " % number + b"x" * 4000 for number in range(999)], NOW)
    assert len(words.lines) == MAX_LINES
    assert {len(one) for one in words.lines} == {MAX_LENGTH}
    assert words.lines[-1].startswith("998 ")
