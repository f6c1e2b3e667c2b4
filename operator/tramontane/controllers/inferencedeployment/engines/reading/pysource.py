"""Look at Python as a syntax tree: fields of classes, calls to add_argument, what they take."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tramontane.controllers.inferencedeployment.engines.flagtable import Takes

_BY_NARGS: Final = {"?": Takes.MAYBE_ONE, "+": Takes.SOME, "*": Takes.ANY}
_LISTS: Final = frozenset({"list", "List", "tuple", "set", "Sequence"})


def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


def classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """Yield all classes."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield the annotated fields of a class, with what they are annotated with."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            yield line.target.id, line.annotation


def flag_calls(tree: ast.Module) -> Iterator[tuple[tuple[str, ...], ast.Call]]:
    """Yield the calls to add_argument that name a flag, with its spellings."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        spellings = strings(node.args)
        if node.func.attr == "add_argument" and spellings and spellings[0].startswith("-"):
            yield spellings, node


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """Return the keyword arguments of a call that are given by name."""
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def strings(nodes: list[ast.expr]) -> tuple[str, ...]:
    """Return the literal texts among nodes."""
    return tuple(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


def name_of(node: ast.expr | None) -> str:
    """Return the last part of a dotted name, empty for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_constant(node: ast.expr | None, value: object) -> bool:
    """Return whether a node is that literal."""
    return isinstance(node, ast.Constant) and node.value == value


def dashed(field: str) -> str:
    """Return the flag of a field, by argparse's custom."""
    return "--" + field.replace("_", "-")


def takes_of_call(call: ast.Call) -> Takes | None:
    """Return what the flag takes by `nargs` or `action`; None where they say nothing."""
    given = keywords(call)
    nargs, action = given.get("nargs"), given.get("action")
    if isinstance(nargs, ast.Constant) and isinstance(nargs.value, str):
        return _BY_NARGS[nargs.value]
    if is_constant(action, "store_true") or is_constant(action, "store_false"):
        return Takes.NOTHING
    said = name_of(action)
    if "StoreTrue" in said or "BooleanOptional" in said:
        return Takes.NOTHING
    # Actions of the engine's own that turn name=path pairs into adapters.
    return Takes.ANY if "LoRA" in said else None


def takes_of_hint(hint: ast.expr) -> Takes:
    """Return what the flag of a field of that type takes.

    | type | takes |
    |---|---|
    | bool and str | at most one value |
    | bool, perhaps None | nothing |
    | a list, a tuple or a set | one or more |
    | anything else | one |
    """
    names = set(_type_names(hint))
    if names >= {"bool", "str"}:
        return Takes.MAYBE_ONE
    if "bool" in names:
        return Takes.NOTHING
    return Takes.SOME if names & _LISTS else Takes.ONE


def _type_names(hint: ast.expr) -> Iterator[str]:
    match hint:
        case ast.BinOp():
            yield from _type_names(hint.left)
            yield from _type_names(hint.right)
        case ast.Subscript() if name_of(hint.value) in {"Optional", "Union", "Annotated"}:
            inner = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
            for part in inner[:1] if name_of(hint.value) == "Annotated" else inner:
                yield from _type_names(part)
        case ast.Subscript():
            yield name_of(hint.value)
        case ast.Constant(value=str(text)):
            yield from _type_names(ast.parse(text, mode="eval").body)
        case _:
            yield name_of(hint)
