"""Complete the names of objects, and answer kubectl when it completes `kubectl tramontane`.

A shell waits for us at every press of the key: after `LIMIT_S` what has come so far is shown, and
a cluster that does not answer shows nothing. Names are asked for without the objects' contents.
Nothing is printed that is no completion, whatever goes wrong.
"""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from click.shell_completion import CompletionItem, ShellComplete

if TYPE_CHECKING:
    from tramontane.kube.client import Client
    from tramontane.kube.resources import Resource

LIMIT_S: Final = 1.5
# As kubectl's own completion protocol has it: no file names after ours.
_NO_FILES: Final = 4
_MOST: Final = 5000
_ANSWER_S: Final = 10.0


def names(
    kind: str, params: Mapping[str, Any], incomplete: str, limit_s: float = LIMIT_S
) -> list[CompletionItem]:
    """Return the names that begin so.

    `kind` is a resource's plural; `any`, all of ours as kind/name; `gangs`, what owns gangs, so;
    `explained`, also the reasons.
    """
    found: list[str] = []
    try:
        _within_limit(kind, params, incomplete, found, limit_s)
    except Exception:  # noqa: BLE001 - a traceback in the middle of a command line helps nobody
        return []
    # The thread may still be adding to it.
    return [CompletionItem(one) for one in sorted(set(found[:])) if one.startswith(incomplete)]


def kubectl() -> None:
    """Answer `kubectl tramontane <TAB>`: the entry point `kubectl_complete-tramontane`.

    kubectl gives the words so far, the last one to be completed, and wants a line for each
    completion with its help after a tab, and a number that says what else to complete.
    """
    from tramontane.cli.main import COMPLETE_VAR, main  # noqa: PLC0415

    *before, incomplete = sys.argv[1:] or [""]
    asked = ShellComplete(main, {}, "tramontane", COMPLETE_VAR)
    for one in asked.get_completions(before, incomplete):
        if one.type == "plain":
            sys.stdout.write(f"{one.value}\t{one.help}\n" if one.help else f"{one.value}\n")
    sys.stdout.write(f":{_NO_FILES}\n")


def _within_limit(
    kind: str, params: Mapping[str, Any], incomplete: str, found: list[str], limit_s: float
) -> None:
    """Fill `found` for as long as there is time; the rest of the work ends with the process."""
    if kind == "explained" and incomplete and "/" not in incomplete:
        from tramontane.cli import dictionary  # noqa: PLC0415

        found += [word for word in dictionary.words() if word.startswith(incomplete)]
        if found:
            return
    if not _is_configured(params):
        return
    # A thread, because resolving a name or a credential plugin may block the loop.
    work = threading.Thread(target=_ask, args=(kind, dict(params), incomplete, found), daemon=True)
    work.start()
    work.join(limit_s)


def _is_configured(params: Mapping[str, Any]) -> bool:
    """Return whether there is a cluster to ask at all; cheap, for most machines have none."""
    import os  # noqa: PLC0415

    if params.get("kubeconfig") or os.environ.get("KUBERNETES_SERVICE_HOST"):
        return True
    named = os.environ.get("KUBECONFIG")
    paths = named.split(os.pathsep) if named else [str(Path.home() / ".kube" / "config")]
    return any(Path(path).is_file() for path in paths if path)


def _ask(kind: str, params: Mapping[str, Any], incomplete: str, found: list[str]) -> None:
    import asyncio  # noqa: PLC0415
    import contextlib  # noqa: PLC0415

    with contextlib.suppress(Exception):
        asyncio.run(_list(kind, params, incomplete, found))


async def _list(kind: str, params: Mapping[str, Any], incomplete: str, found: list[str]) -> None:
    from tramontane.cli import objects, session  # noqa: PLC0415
    from tramontane.cli.options import Cluster  # noqa: PLC0415

    namespace = params.get("namespace")
    cluster = Cluster(params.get("kubeconfig"), params.get("context"))
    async with await session.connect(cluster, timeout_s=_ANSWER_S) as client:
        for resource in _resources(kind, incomplete):
            is_plain = kind in {"blades", "nodepools", "namespaces"}
            prefix = "" if is_plain else f"{objects.short(resource)}/"
            await _names(client, resource, namespace, prefix, incomplete=incomplete, found=found)


def _resources(kind: str, incomplete: str) -> "list[Resource]":
    """Return what to list: of kinds written before a slash only the one that is begun."""
    from tramontane.cli import objects  # noqa: PLC0415
    from tramontane.kube.resources import (  # noqa: PLC0415
        BLADES,
        GANGS,
        INFERENCEDEPLOYMENTS,
        NAMESPACES,
        NODEPOOLS,
        TRAININGJOBS,
    )

    plain = {"blades": BLADES, "nodepools": NODEPOOLS, "namespaces": NAMESPACES}
    if kind in plain:
        return [plain[kind]]
    owners = (TRAININGJOBS, INFERENCEDEPLOYMENTS, GANGS)
    kinds = owners if kind == "gangs" else objects.KINDS
    head = incomplete.partition("/")[0]
    begun = [one for one in kinds if objects.short(one).startswith(head)]
    return begun if head else list(kinds)


async def _names(
    client: "Client",
    resource: "Resource",
    namespace: str | None,
    prefix: str,
    *,
    incomplete: str,
    found: list[str],
) -> None:
    """Add the names of a kind that begin so, a page at a time."""
    continue_ = None
    while len(found) < _MOST:
        page = await client.list_page(
            resource,
            namespace if resource.namespaced else None,
            continue_=continue_,
            metadata_only=True,
        )
        names = (f"{prefix}{one['metadata']['name']}" for one in page.get("items") or ())
        found += [name for name in names if name.startswith(incomplete)]
        continue_ = page["metadata"].get("continue")
        if not continue_:
            return
