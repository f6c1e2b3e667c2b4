"""Give tests one complete object of each kind; together the documents name every field."""

import functools
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

CRD_DIR = Path(__file__).parents[3] / "crds"


@functools.cache
def _documents(kind: str) -> tuple[dict[str, Any], ...]:
    text = (Path(__file__).parent / f"{kind.lower()}.yaml").read_text()
    return tuple(yaml.safe_load_all(text))


def examples(kind: str) -> list[dict[str, Any]]:
    """Return fresh copies of all examples of a kind, the most complete one first."""
    return [deepcopy(document) for document in _documents(kind)]


def example(kind: str) -> dict[str, Any]:
    """Return a fresh copy of the most complete example of a kind."""
    return examples(kind)[0]


@functools.cache
def crd_schema(kind: str) -> dict[str, Any]:
    """Return the committed schema of a kind; not to be changed."""
    for path in CRD_DIR.glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())
        if crd["spec"]["names"]["kind"] == kind:
            schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return schema
    raise LookupError(kind)
