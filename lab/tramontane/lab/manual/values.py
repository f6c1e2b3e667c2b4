"""Write the reference of the chart's values, from the comments in values.yaml.

A comment `# -- text` stands above its key and belongs to it; the lines after it that begin with
`#` go on with it. A key whose value is a map without a comment is a heading for what is below.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tramontane.lab.manual.markdown import cell, code, page, table

VALUES = Path(__file__).resolve().parents[4] / "charts" / "tramontane" / "values.yaml"
_KEY = re.compile(r"^( *)([A-Za-z][\w-]*):")


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its path, its default as YAML in one line, and what its comment says."""

    path: str
    default: str
    text: str


def comments(text: str) -> Iterator[tuple[str, str]]:
    """Yield path and comment of each key that has one, in their order."""
    above: list[tuple[int, str]] = []
    collected: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            collected = [stripped.removeprefix("# --").strip()]
        elif stripped.startswith("#"):
            if collected:
                collected.append(stripped.removeprefix("#").strip())
        elif found := _KEY.match(line):
            depth = len(found[1])
            above = [*(one for one in above if one[0] < depth), (depth, found[2])]
            if collected:
                yield ".".join(name for _, name in above), " ".join(collected)
            collected = []
        else:
            collected = []


def values(text: str) -> list[Value]:
    """Return all described values of a values.yaml."""
    tree = yaml.safe_load(text)
    return [Value(path, _default(tree, path), said) for path, said in comments(text)]


def _default(tree: Any, path: str) -> str:
    for name in path.split("."):
        tree = tree[name]
    if tree == "":
        return '""'
    line = yaml.safe_dump(tree, default_flow_style=True, width=10_000, sort_keys=False)
    return line.removesuffix("\n...\n").strip()


def render(text: str | None = None) -> str:
    """Return the page."""
    found = values(VALUES.read_text(encoding="utf-8") if text is None else text)
    parts: list[str] = []
    groups = {value.path: value.path.rpartition(".")[0].split(".")[0] for value in found}
    for group in sorted(set(groups.values())):
        mine = [value for value in found if groups[value.path] == group]
        rows = [(code(one.path), code(one.default), cell(one.text)) for one in mine]
        parts += [f"## {group or 'General'}", table(("Value", "Default", "What it is"), rows)]
    return page(
        "Values of the chart",
        "What `helm install --set` and a values file may say. A key that is not here is refused by"
        " the chart's schema. The same comments are in `charts/tramontane/values.yaml`;"
        " [installing](../install.md) names those that matter first.",
        *parts,
    )
