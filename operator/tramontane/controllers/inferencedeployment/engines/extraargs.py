"""Refuse extra arguments that the engine would refuse, or that would undo what Tramontane set.

An engine that ends over a typing error costs a gang its place, minutes of loading and a restart
budget. Its flags are known per version, so the error is found before there is a pod.

| an argument | outcome |
|---|---|
| with a line break, or an unprintable sign | refused |
| a flag that this version does not know, or an abbreviation | refused, with the nearest it knows |
| a flag that Tramontane sets | refused, with the field to use |
| a flag with fewer or more values than it takes | refused |
| a value before any flag | refused |
| --flag=value | as --flag value; but llama-server does not read it so: refused |
| anything, with engine custom | accepted: nothing is known of it |
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from tramontane.controllers.inferencedeployment.engines.catalogue import EngineData, knowing
from tramontane.controllers.inferencedeployment.engines.flagtable import Flag, Takes
from tramontane.controllers.inferencedeployment.engines.managed import MANAGED

_FIELD: Final = "spec.engine.extraArgs"
_NUMBER: Final = re.compile(r"-(\d+|\d*\.\d+)([eE][-+]?\d+)?")
_LEVEL: Final = re.compile(r"-O=?\w+")
# They take `_` for `-` in the names of flags, too.
_FORGIVING: Final = frozenset({"vllm", "llamacpp"})
# Its parser compares whole words, and the word after a flag is its value, whatever it begins with.
_WHOLE_WORDS: Final = frozenset({"llamacpp"})
_AMOUNTS: Final[Mapping[Takes, str]] = {
    Takes.NOTHING: "no value",
    Takes.MAYBE_ONE: "one value at most",
    Takes.ONE: "one value",
    Takes.SOME: "one value or more",
    Takes.ANY: "any number of values",
}


@dataclass(frozen=True, slots=True)
class _Use:
    """Hold a flag as it was written, with the values that follow it; no word: values alone."""

    word: str
    values: tuple[str, ...]
    is_inline: bool = False


def check(engine: EngineData, extra_args: Sequence[str]) -> str | None:
    """Return why the arguments are refused, the first reason only; None where they are accepted."""
    for argument in extra_args:
        if not argument.isprintable():
            return _refused("must be printable and on one line", argument, "leave that out")
    if engine.kind == "custom":
        return None
    return next(filter(None, (_wrong(engine, use) for use in _uses(engine, extra_args))), None)


def _wrong(engine: EngineData, use: _Use) -> str | None:
    """Return what is wrong with one flag and its values."""
    if not use.word:
        return _refused("must begin with a flag", use.values[0], "write the flag before it")
    flag = _flag(engine, use.word)
    if flag is None:
        return _unknown(engine, use.word)
    if remedy := MANAGED[engine.kind].get(flag.name):
        return _refused("must not have what Tramontane sets itself", use.word, remedy)
    if use.is_inline and engine.kind in _WHOLE_WORDS:
        written = f"{use.word}={use.values[0]}"
        return _refused(f"must have values apart with {engine}", written, "make it two arguments")
    most, got = flag.takes.most, len(use.values)
    if got < flag.takes.least or (most is not None and got > most):
        return _refused(f"must give {flag.name} {_AMOUNTS[flag.takes]}", " ".join(use.values))
    return None


def _uses(engine: EngineData, extra_args: Sequence[str]) -> Iterator[_Use]:
    """Yield the flags with their values, as the engine's own parser would part them."""
    uses: list[_Use] = []
    for argument in extra_args:
        last = uses[-1] if uses else None
        if _is_value(engine, argument, last):
            word, values = (last.word, last.values) if last else ("", ())
            uses[-1:] = [_Use(word, (*values, argument), last is not None and last.is_inline)]
        else:
            name, equals, value = argument.partition("=")
            uses.append(_Use(name, (value,) if equals else (), bool(equals)))
    yield from uses


def _is_value(engine: EngineData, argument: str, last: _Use | None) -> bool:
    """Return whether an argument belongs to the flag before it.

    | argument | llama-server | the others, with argparse |
    |---|---|---|
    | not like a flag, or a negative number | value | value |
    | like a flag, after one that lacks its value | value | flag |
    | like a flag | flag | flag |
    """
    if not argument.startswith("-") or argument == "-" or _NUMBER.fullmatch(argument):
        return True
    if engine.kind not in _WHOLE_WORDS or last is None:
        return False
    before = _flag(engine, last.word)
    return before is not None and len(last.values) < before.takes.least


def _flag(engine: EngineData, name: str) -> Flag | None:
    """Return the flag that a word names, in whatever way the engine lets it be written."""
    found = engine.flags.get(name)
    if found is not None or engine.kind not in _FORGIVING:
        return found
    if name.startswith("--"):
        # vLLM: --kv-transfer-config.kv_role is a key of that flag's JSON.
        name = name.partition(".")[0] if engine.kind == "vllm" else name
        return engine.flags.get(name.replace("_", "-"))
    if engine.kind == "vllm" and _LEVEL.fullmatch(name):
        level = engine.flags.get("--optimization-level")
        return Flag(level.spellings) if level else None
    return None


def _unknown(engine: EngineData, word: str) -> str:
    others = [f"{engine.kind} {version}" for version in knowing(engine.kind, word)]
    near = get_close_matches(word, list(engine.flags), n=1)
    if others:
        remedy = f"known to {', '.join(others)}"
    else:
        remedy = f"did you mean {near[0]}?" if near else "leave it out"
    return _refused(f"must have only flags that {engine} knows", word, remedy)


def _refused(must: str, got: str, remedy: str = "") -> str:
    text = f'{_FIELD} {must} (got "{_escaped(got)}")'
    return f"{text}; {remedy}" if remedy else text


def _escaped(text: str) -> str:
    """Return a text on one line, whatever is in it."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
