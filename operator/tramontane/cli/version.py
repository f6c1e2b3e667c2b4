"""`tramontane version`: which version this is, and which run in the cluster.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import platform
from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.kube.client import Client

_WAIT_S = 5.0


@click.command(epilog=options.examples("tramontane version", "tramontane version --client -o json"))
@click.option("--client", "alone", is_flag=True, help="Do not ask the cluster.")
@options.output
@options.cluster
def version(*, alone: bool, cluster: options.Cluster, output: str) -> None:
    """Say which version this is, and which run in the cluster.

    Where the cluster cannot be reached that is said, and is no error.
    """
    from tramontane.api.errors import TramontaneError  # noqa: PLC0415
    from tramontane.cli import session, tables  # noqa: PLC0415

    told: dict[str, Any] = {
        "client": {"version": metadata.version("tramontane"), "python": platform.python_version()}
    }
    if not alone:
        try:
            told["cluster"] = session.run(cluster, _ask)
        except (TramontaneError, TimeoutError) as error:
            click.echo(f"the cluster does not say: {error or 'no answer in time'}", err=True)

    tables.show_answer(output, lambda: told, lambda: (_lines(told), ()))


def _lines(told: dict[str, Any]) -> list[str]:
    from tramontane.cli import tables  # noqa: PLC0415

    there = told.get("cluster", {})
    client = told["client"]
    agents = ", ".join(f"{one} on {count} blades" for one, count in there.get("agents", {}).items())
    return tables.facts(
        [
            ("tramontane", f"{client['version']} (Python {client['python']})"),
            ("Kubernetes", there.get("kubernetes", "")),
            ("API", ", ".join(there.get("api", ()))),
            *sorted(there.get("components", {}).items()),
            ("agents", agents),
        ]
    )


async def _ask(client: "Client") -> dict[str, Any]:
    """Return what runs in the cluster, as far as one may look.

    Raises:
        Unreachable: it does not answer.
    """
    import asyncio  # noqa: PLC0415
    import json  # noqa: PLC0415

    async with asyncio.timeout(_WAIT_S):
        server = json.loads(await client.get_raw("/version"))
        return {
            "kubernetes": server.get("gitVersion", "not known"),
            "api": await _api(client),
            "components": await _components(client),
            "agents": await _agents(client),
        }


async def _api(client: "Client") -> list[str]:
    """Return the versions of our API that the server serves."""
    import json  # noqa: PLC0415

    from tramontane.api.names import GROUP  # noqa: PLC0415
    from tramontane.kube.client import ApiError  # noqa: PLC0415

    try:
        group = json.loads(await client.get_raw(f"/apis/{GROUP}"))
    except ApiError:
        return []
    return [one["groupVersion"] for one in group.get("versions", ())]


async def _components(client: "Client") -> dict[str, str]:
    """Return the version of each Deployment of the chart, by its component."""
    from tramontane.kube.client import ApiError  # noqa: PLC0415
    from tramontane.kube.resources import DEPLOYMENTS  # noqa: PLC0415

    try:
        found = await client.list_all(
            DEPLOYMENTS, label_selector="app.kubernetes.io/part-of=tramontane"
        )
    except ApiError:
        return {}
    told = {}
    for raw in found:
        labels = raw["metadata"].get("labels") or {}
        if labels.get("app.kubernetes.io/part-of") == "tramontane":
            name = labels.get("app.kubernetes.io/component", raw["metadata"]["name"])
            told[name] = labels.get("app.kubernetes.io/version", "not known")
    return told


async def _agents(client: "Client") -> dict[str, int]:
    """Return how many blades' agents report which version; of the first 500 blades."""
    from tramontane.kube.client import ApiError  # noqa: PLC0415
    from tramontane.kube.resources import BLADES  # noqa: PLC0415

    try:
        page = await client.list_page(BLADES)
    except ApiError:
        return {}
    versions = Counter(
        str(agent["version"])
        for raw in page.get("items") or ()
        if (agent := ((raw.get("status") or {}).get("report") or {}).get("agent") or {}).get(
            "version"
        )
    )
    return dict(versions.most_common())
