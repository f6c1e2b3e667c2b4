"""Read the flags of `sglang.launch_server`: fields that say all in their type, and some calls."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tramontane.controllers.inferencedeployment.engines.flagtable import Flag, Takes
from tramontane.controllers.inferencedeployment.engines.reading.pysource import (
    classes,
    dashed,
    fields,
    flag_calls,
    is_constant,
    keywords,
    name_of,
    strings,
    takes_of_call,
    takes_of_hint,
    tree_of,
)


def sglang_flags(root: Path) -> Iterator[Flag]:
    """Yield the flags; `root` is an unpacked wheel."""
    folder = root / "sglang/srt"
    for path in sorted((folder / "arg_groups/fields").glob("*.py")):
        for node in classes(tree_of(path)):
            for field, annotation in fields(node):
                yield from _from_field(field, annotation)
    for spellings, call in flag_calls(tree_of(folder / "server_args.py")):
        yield Flag(spellings, takes_of_call(call) or Takes.ONE)


def _from_field(field: str, annotation: ast.expr) -> Iterator[Flag]:
    """Yield the flag of `A[type, "help"]` or `A[type, Arg(...)]`; nothing where there is none."""
    if not (isinstance(annotation, ast.Subscript) and name_of(annotation.value) == "A"):
        return
    if not isinstance(annotation.slice, ast.Tuple):
        return
    hint, *rest = annotation.slice.elts
    # Derived(...) and the like say how a field comes about without the command line.
    if all(isinstance(one, ast.Call) and name_of(one.func) != "Arg" for one in rest):
        return
    name, takes = dashed(field), takes_of_hint(hint)
    spellings: tuple[str, ...] = (name,)
    for detail in rest:
        if not (isinstance(detail, ast.Call) and name_of(detail.func) == "Arg"):
            continue
        given = keywords(detail)
        if is_constant(given.get("no_cli"), value=True):
            return
        aliases = given.get("aliases")
        named = strings([given["cli_name"]]) if "cli_name" in given else ()
        also = strings(aliases.elts) if isinstance(aliases, ast.List) else ()
        spellings = (*(named or (name,)), *also)
        if "type_parser" in given and takes is not Takes.NOTHING:
            takes = Takes.ONE
        takes = takes_of_call(detail) or takes
    yield Flag(spellings, takes)
