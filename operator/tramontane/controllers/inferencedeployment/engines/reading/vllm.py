"""Read the flags of `vllm serve`.

Most calls to add_argument take their details from the fields of the classes in `vllm/config`
(`**parallel_kwargs["nnodes"]`), and each field of the front end's classes is a flag by itself.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from tramontane.controllers.inferencedeployment.engines.flagtable import Flag, Takes
from tramontane.controllers.inferencedeployment.engines.reading.pysource import (
    classes,
    dashed,
    fields,
    flag_calls,
    is_constant,
    name_of,
    takes_of_call,
    takes_of_hint,
    tree_of,
)

Hints = Mapping[str, ast.expr]


def vllm_flags(root: Path) -> Iterator[Flag]:
    """Yield the flags; `root` is an unpacked wheel."""
    folder = root / "vllm"
    pairs_enable_with_disable = _has_class(folder, "EnableDisableAction")
    for flag in _as_written(folder):
        yield _with_opposites(flag) if pairs_enable_with_disable else flag


def _as_written(folder: Path) -> Iterator[Flag]:
    hints = {
        node.name: dict(fields(node))
        for path in folder.rglob("config/**/*.py")
        for node in classes(tree_of(path))
    }
    engine = tree_of(folder / "engine/arg_utils.py")
    details = {name: hints.get(config, {}) for name, config in _configs(engine).items()}
    frontends = [
        tree
        for tree in map(tree_of, sorted(folder.glob("entrypoints/**/cli_args.py")))
        if any(node.name == "FrontendArgs" for node in classes(tree))
    ]
    if not frontends:
        raise FileNotFoundError(f"{folder}/entrypoints must have a cli_args.py with FrontendArgs")
    for tree in (engine, *frontends):
        for spellings, call in flag_calls(tree):
            yield _from_call(spellings, call, details)
    for tree in frontends:
        single = _single_valued(tree)
        for node in classes(tree):
            if node.name.endswith("FrontendArgs"):
                for field, hint in fields(node):
                    takes = Takes.ONE if field in single else takes_of_hint(hint)
                    yield _negatable((dashed(field),), takes)


def _from_call(spellings: tuple[str, ...], call: ast.Call, details: Mapping[str, Hints]) -> Flag:
    takes = takes_of_call(call)
    if takes is None:
        hint = _hint(call, details)
        return _negatable(spellings, Takes.ONE if hint is None else takes_of_hint(hint))
    is_optional = any(
        name_of(keyword.value) == "BooleanOptionalAction" for keyword in call.keywords
    )
    return _negatable(spellings, takes) if is_optional else Flag(spellings, takes)


def _hint(call: ast.Call, details: Mapping[str, Hints]) -> ast.expr | None:
    """Return the type of the field that a call takes its details from, None where it is unknown."""
    for node in ast.walk(call):
        if isinstance(node, ast.Subscript) and name_of(node.value) in details:
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            return details[name_of(node.value)].get(str(key))
    return None


def _negatable(spellings: tuple[str, ...], takes: Takes) -> Flag:
    # argparse.BooleanOptionalAction, which vLLM uses for every field that may be a bool.
    negated = (f"--no-{spellings[0][2:]}",) if takes is Takes.NOTHING else ()
    return Flag((*spellings, *negated), takes)


def _with_opposites(flag: Flag) -> Flag:
    """Return a flag that can be negated with `--disable-x` for `--enable-x`, or vice versa."""
    if not any(spelling.startswith("--no-") for spelling in flag.spellings):
        return flag
    pairs = (("--enable-", "--disable-"), ("--disable-", "--enable-"))
    opposites = [
        theirs + flag.name.removeprefix(ours)
        for ours, theirs in pairs
        if flag.name.startswith(ours)
    ]
    return Flag((*flag.spellings, *opposites), flag.takes)


def _configs(tree: ast.Module) -> dict[str, str]:
    """Return the class by the name of the variable that `get_kwargs(Class)` is assigned to."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call = node.value
            if name_of(call.func) == "get_kwargs" and call.args:
                found[name_of(node.targets[0])] = name_of(call.args[0])
    return found


def _single_valued(tree: ast.Module) -> set[str]:
    """Return the list fields that take one value after all: `nargs` deleted, or appended to."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Delete):
            found.update(key for target in node.targets for key in _keys(target))
        if isinstance(node, ast.Assign) and is_constant(node.value, "append"):
            found.update(_keys(node.targets[0]))
    return found


def _keys(target: ast.expr) -> Iterator[str]:
    while isinstance(target, ast.Subscript):
        if isinstance(target.slice, ast.Constant):
            yield str(target.slice.value)
        target = target.value


def _has_class(folder: Path, name: str) -> bool:
    path = folder / "utils/argparse_utils.py"
    return path.exists() and any(node.name == name for node in classes(tree_of(path)))
