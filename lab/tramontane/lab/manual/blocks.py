"""Read the commands of a page, and make one script of them that stops at the first failure.

A comment before a block of commands says what becomes of it:

    <!-- run -->                the commands are run, in the order of the page, in one shell
    <!-- run: exit 3 -->        the same, and the last of them must end with this status
    <!-- not run: why -->       they are not, for this reason
    <!-- first: command -->     run as well, and not shown: what a reader has done already
    <!-- output -->             before a ```text block: what the block before it prints

What is shown need not be what comes to the digit (`differs`): numbers, ages and hashes are never
the same twice.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

_BLOCK: Final = re.compile(
    r"^<!-- first: (?P<first>[^\n]*?) -->$"
    r"|(?:^<!-- (?P<said>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_MARK: Final = "@@ block"
_RUN: Final = re.compile(r"run(?:: exit (\d+))?")
_NOT_RUN: Final = "not run: "
# What a name ends with that is made anew each time: digits, and the hashes of pods and revisions.
_VARIES: Final = re.compile(r"\d[\d.,:]*")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands.

    Attributes:
        line: where it begins, from 1.
        status: the exit status of its last command.
        why_not: why it is not run; empty: it is run, unless it is `unsaid`.
        output: what the page shows of what it prints; empty: nothing.
    """

    line: int
    text: str
    status: int = 0
    why_not: str = ""
    unsaid: bool = False
    output: tuple[str, ...] = field(default=())

    @property
    def runs(self) -> bool:
        """Return whether the tests run it."""
        return not self.why_not and not self.unsaid


def blocks(page: str) -> list[Block]:
    """Return the ```console blocks of a page, each with the output shown after it."""
    found: list[Block] = []
    for match in _BLOCK.finditer(page):
        if match["first"]:
            found.append(Block(page.count("\n", 0, match.start()) + 1, f"{match['first']}\n"))
            continue
        line = page.count("\n", 0, match.start("language")) + 1
        said, body = match["said"] or "", match["body"]
        if match["language"] == "console":
            found.append(_block(line, said, body))
        elif said == "output" and found:
            last = found.pop()
            found.append(Block(last.line, last.text, last.status, output=tuple(body.splitlines())))
    return found


def _block(line: int, said: str, body: str) -> Block:
    if run := _RUN.fullmatch(said):
        return Block(line, body, status=int(run[1] or 0))
    if said.startswith(_NOT_RUN):
        return Block(line, body, why_not=said.removeprefix(_NOT_RUN))
    return Block(line, body, unsaid=True)


def script(found: Sequence[Block]) -> str:
    """Return a bash script that runs the blocks, each behind a line that names it."""
    return "\n".join(["set -euo pipefail", *_lines(found)]) + "\n"


def _lines(found: Sequence[Block]) -> Iterator[str]:
    for block in found:
        if not block.runs:
            continue
        yield f'echo "{_MARK} {block.line}"'
        if block.status:
            yield f"set +e\n{block.text}status=$?; set -e"
            yield (
                f'[ "$status" = {block.status} ] || {{ echo "line {block.line}: exit status must'
                f' be {block.status} (got $status)"; exit 1; }}'
            )
        else:
            yield block.text


def printed(output: str) -> dict[int, list[str]]:
    """Return what each block printed, by its line."""
    result: dict[int, list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if line.startswith(_MARK):
            current = result.setdefault(int(line.removeprefix(_MARK)), [])
        else:
            current.append(line)
    return result


def differs(shown: Sequence[str], came: Sequence[str]) -> str:
    """Return the first shown line that did not come after the ones before it; empty: all did.

    A number stands for any number, and `…` for anything; blanks and rules count as one blank.
    """
    rest = iter([_plain(line) for line in came])
    for line in shown:
        if not _plain(line):
            continue
        wanted = _pattern(line)
        if not any(wanted.fullmatch(one) for one in rest):
            return line
    return ""


def _plain(line: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", line).split())


def _pattern(line: str) -> re.Pattern[str]:
    pieces = (
        _VARIES.sub(lambda _: r"\d[\d.,:]*", re.escape(piece).replace(r"\ ", " "))
        for piece in _plain(line).split("…")
    )
    return re.compile(".*".join(pieces))
