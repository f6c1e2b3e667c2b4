"""Read the flags of llama-server from `common/arg.cpp`, as text, and of llama-cpp-python's server.

Each is one `add_opt(common_arg({"-c", "--ctx-size"}, "N", "help", handler).set_examples({...}))`.
The number of arguments says what the flag takes, `set_examples` whose it is.

| arguments of common_arg | the flag |
|---|---|
| names, help, handler | takes nothing |
| names, negated names, help, handler | takes nothing, and can be negated |
| names, hint, help, handler | takes one value |
| names, hint, hint, help, handler | takes two |

The server of llama-cpp-python has a flag for each setting, a bool too: `--cache true`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tramontane.controllers.inferencedeployment.engines.flagtable import Flag, Takes
from tramontane.controllers.inferencedeployment.engines.reading.pysource import (
    classes,
    fields,
    flag_calls,
    takes_of_hint,
    tree_of,
)

_OURS: Final = ("LLAMA_EXAMPLE_SERVER", "LLAMA_EXAMPLE_COMMON")
_OPEN: Final = "([{"
_CLOSE: Final = ")]}"
# Strings, character literals, raw strings and comments: what brackets in them mean nothing.
_OPAQUE: Final = re.compile(
    r'R"(?P<mark>[^(]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'|//[^\n]*|/\*.*?\*/',
    re.DOTALL,
)
_TEXT: Final = re.compile(r'"((?:\\.|[^"\\])*)"')
_SWITCH, _WITH_VALUE, _WITH_TWO = 3, 4, 5


def llama_server_flags(root: Path) -> Iterator[Flag]:
    """Yield the flags that llama-server takes; `root` has llama.cpp's sources somewhere in it."""
    source = _only(root, "common/arg.cpp").read_text()
    begin = source.index("common_params_context common_params_parser_init(")
    end = source.find("\n}\n", begin)
    body = source[begin : end if end > 0 else None]
    for found in re.finditer(r"add_opt\(common_arg\(", body):
        whole, _ = _inside(body, found.start() + len("add_opt"))
        arguments, tail = _inside(whole, len("common_arg"))
        if _is_ours(tail) and "set_preset_only" not in tail:
            yield from _flag(_split(arguments))


def settings_flags(root: Path) -> Iterator[Flag]:
    """Yield the flags of `python -m llama_cpp.server`."""
    settings = _only(root, "llama_cpp/server/settings.py")
    for node in classes(tree_of(settings)):
        if node.name in {"ModelSettings", "ServerSettings"}:
            for field, hint in fields(node):
                is_list = takes_of_hint(hint) is Takes.SOME
                yield Flag((f"--{field}",), Takes.ANY if is_list else Takes.ONE)
    for spellings, _ in flag_calls(tree_of(settings.with_name("__main__.py"))):
        yield Flag(spellings, Takes.ONE)


def _flag(arguments: list[str]) -> Iterator[Flag]:
    names = tuple(_TEXT.findall(arguments[0]))
    # The long name first: it is the one that people read.
    names = tuple(sorted(names, key=lambda name: not name.startswith("--")))
    match len(arguments):
        case n if n == _SWITCH:
            yield Flag(names)
        case n if n == _WITH_VALUE and arguments[1].lstrip().startswith("{"):
            yield Flag(names + tuple(_TEXT.findall(arguments[1])))
        case n if n == _WITH_VALUE:
            yield Flag(names, Takes.ONE)
        case n if n == _WITH_TWO:
            yield Flag(names, Takes.SOME)
        case n:
            raise ValueError(f"common_arg must have 3 to 5 arguments (got {n}: {names})")


def _is_ours(tail: str) -> bool:
    excluded = re.search(r"set_excludes\(\{([^}]*)\}", tail)
    if excluded and "LLAMA_EXAMPLE_SERVER" in excluded[1]:
        return False
    examples = re.search(r"set_examples\(\{([^}]*)\}", tail)
    return examples is None or any(name in examples[1] for name in _OURS)


def _inside(text: str, at: int) -> tuple[str, str]:
    """Return what is within the bracket that opens at or after `at`, and what follows it."""
    begin = text.index("(", at)
    depth = 0
    for position, sign in _signs(text, begin):
        depth += 1 if sign in _OPEN else -1 if sign in _CLOSE else 0
        if depth == 0:
            return text[begin + 1 : position], text[position + 1 :]
    raise ValueError(f"bracket at {begin} must be closed")


def _split(arguments: str) -> list[str]:
    """Return the arguments of a call, split at the commas that are outside of any bracket."""
    parts, last, depth = [], 0, 0
    for position, sign in _signs(arguments, 0):
        if sign == "," and depth == 0:
            parts.append(arguments[last:position])
            last = position + 1
        depth += 1 if sign in _OPEN else -1 if sign in _CLOSE else 0
    return [*parts, arguments[last:]]


def _signs(text: str, begin: int) -> Iterator[tuple[int, str]]:
    """Yield brackets and commas with their places, outside of strings and comments."""
    position = begin
    while position < len(text):
        if opaque := _OPAQUE.match(text, position):
            position = opaque.end()
            continue
        if text[position] in _OPEN + _CLOSE + ",":
            yield position, text[position]
        position += 1


def _only(root: Path, end: str) -> Path:
    found = sorted(root.rglob(end))
    if len(found) != 1:
        raise FileNotFoundError(f"{root} must have one {end} (got {len(found)})")
    return found[0]
