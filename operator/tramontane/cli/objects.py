"""Find the object that a person means: `tj/llama`, `blade/gpu-0417`, `inf/ml/claims`, or a name.

| said            | means                                                                    |
|-----------------|--------------------------------------------------------------------------|
| kind/name       | that of `-n`, else of the context's namespace, else the only one so named |
| kind/space/name | that one                                                                 |
| space/name      | the one of these kinds that is there                                     |
| name            | the same, in whatever namespace, or in none                              |
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from tramontane.api.errors import TramontaneError
from tramontane.cli import session
from tramontane.kube.client import Client, Forbidden, NotFound
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    TRAININGJOBS,
    Resource,
)

Raw = dict[str, Any]

# The first of each is what we write ourselves; a Node and its blade have the same name.
_WORDS: dict[Resource, tuple[str, ...]] = {
    TRAININGJOBS: ("tj", "trainingjob", "trainingjobs", "job"),
    INFERENCEDEPLOYMENTS: ("inf", "inferencedeployment", "inferencedeployments"),
    BLADES: ("blade", "blades", "node"),
    GANGS: ("gang", "gangs"),
    NODEPOOLS: ("np", "nodepool", "nodepools", "pool"),
}
# What a name alone may be, in the order of a guess.
KINDS = (TRAININGJOBS, INFERENCEDEPLOYMENTS, GANGS, BLADES, NODEPOOLS)
_ALIKE = 0.75
_BY_WORD = {word: resource for resource, words in _WORDS.items() for word in words}


class Ambiguous(TramontaneError):  # noqa: N818 - named for what was found
    """Say that several objects have the name."""


class Missing(TramontaneError):  # noqa: N818 - named for what was found
    """Say that no object of several kinds has the name."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Hold what a person said: of which kinds it may be, its name, and its namespace if told."""

    kinds: tuple[Resource, ...]
    name: str
    namespace: str | None = None


def short(resource: Resource) -> str:
    """Return the word that we write for a kind."""
    return _WORDS[resource][0]


def parse(said: str, kinds: Sequence[Resource], namespace: str | None = None) -> Ref:
    """Return what is meant by a word on the command line.

    Raises:
        click.BadParameter: it is no name of these kinds.
    """
    head, *rest = said.split("/")
    words = ", ".join(f"{short(kind)}/NAME" for kind in kinds)
    if not all((head, *rest)) or len(rest) > 2:  # noqa: PLR2004 - kind, namespace, name
        raise click.BadParameter(f'must be one of {words} (got "{said}")')
    kind = _BY_WORD.get(head.lower())
    if not rest:
        return Ref(tuple(kinds), head, namespace)
    spaced = tuple(one for one in kinds if one.namespaced)
    if kind is None and len(rest) == 1 and spaced:
        return Ref(spaced, rest[0], head)
    if kind is None or kind not in kinds:
        raise click.BadParameter(f'must be one of {words} (got "{said}")')
    return Ref((kind,), rest[-1], rest[0] if len(rest) > 1 else namespace)


async def find(client: Client, ref: Ref, near: str | None = None) -> tuple[Resource, Raw]:
    """Return the object that is meant; `near` is the namespace where one is looked for first.

    Raises:
        NoSuchObject: there is none; the message names the nearest.
        Ambiguous: there are several.
    """
    found = [(kind, raw) for kind in ref.kinds for raw in await _of_kind(client, kind, ref, near)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(said_of(kind, raw) for kind, raw in found)
        raise Ambiguous(f"{ref.name}: must be one object (got {names}); name it so")
    raise await _missing(client, ref)


async def find_any(
    client: Client, said: str, namespace: str | None, near: str | None
) -> tuple[Resource, Raw]:
    """Return the object of any kind that is meant; of a job and its gang, the job.

    Raises:
        NoSuchObject, Missing: there is none; the message names the nearest.
        Ambiguous: there are several.
    """
    ref = parse(said, KINDS, namespace)
    try:
        return await find(client, ref, near)
    except Ambiguous:
        # A job's gang has its name; the job says more, and is told with its gang.
        return await find(client, without(ref, GANGS), near)


async def _missing(client: Client, ref: Ref) -> TramontaneError:
    """Return what to say of an object that is not there, with what was probably meant."""
    if len(ref.kinds) == 1:
        kind = ref.kinds[0]
        names = [raw["metadata"]["name"] for raw in await _listed(client, kind, ref.namespace)]
        return session.NoSuchObject(kind, ref.name, names)
    kinds = ", ".join(kind.kind for kind in ref.kinds)
    text = f"{ref.name}: must be the name of an object (got no {kinds})"
    if word := difflib.get_close_matches(ref.namespace or "", _BY_WORD, n=1, cutoff=_ALIKE):
        return Missing(f'{text}; did you mean "{word[0]}/{ref.name}"?')
    every = {
        raw["metadata"]["name"]: kind
        for kind in reversed(ref.kinds)  # a job's gang has its name: the job is meant
        for raw in await _listed(client, kind, ref.namespace if kind.namespaced else None)
    }
    close = difflib.get_close_matches(ref.name, every, n=1)
    if close:
        return Missing(f'{text}; did you mean "{short(every[close[0]])}/{close[0]}"?')
    return Missing(f"{text}; name it {', '.join(f'{short(kind)}/NAME' for kind in ref.kinds)}")


def without(ref: Ref, kind: Resource) -> Ref:
    """Return the same name, of the other kinds."""
    return replace(ref, kinds=tuple(one for one in ref.kinds if one is not kind))


def said_of(kind: Resource, raw: Mapping[str, Any]) -> str:
    """Return how a person would name an object."""
    meta = raw["metadata"]
    return "/".join(filter(None, (short(kind), meta.get("namespace"), meta["name"])))


async def _of_kind(client: Client, kind: Resource, ref: Ref, near: str | None) -> list[Raw]:
    """Return the objects of a kind that may be meant."""
    if not kind.namespaced:
        return await _one(client, kind, ref.name, None) if ref.namespace is None else []
    if ref.namespace is not None:
        return await _one(client, kind, ref.name, ref.namespace)
    if near is not None and (found := await _one(client, kind, ref.name, near)):
        return found
    try:
        fields = f"metadata.name={ref.name}"
        found = await session.every(client, kind, fields=fields)
    except Forbidden:
        if near is None:
            raise
        return []
    return [raw for raw in found if raw["metadata"]["name"] == ref.name]


async def _one(client: Client, kind: Resource, name: str, namespace: str | None) -> list[Raw]:
    try:
        raw = await client.get(kind, name, namespace)
    except NotFound:
        return []
    raw["metadata"].pop("managedFields", None)
    return [raw]


async def _listed(client: Client, kind: Resource, namespace: str | None) -> list[Raw]:
    try:
        return await client.list_all(kind, namespace, metadata_only=True)
    except Forbidden:
        return []
    except NotFound:
        raise session.NotInstalled(kind) from None
