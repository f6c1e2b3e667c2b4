"""`tramontane timeline`: what happened to one object, a line for each happening.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.kube.client import Client


@click.command(
    epilog=options.examples(
        "tramontane timeline tj/llama",
        "tramontane timeline inf/claims -n insurer-a",
        "tramontane timeline blade/gpu-0417 -o json",
    )
)
@click.argument("name", metavar="OBJECT", shell_complete=options.complete("any"))
@options.namespace
@options.output
@options.cluster
def timeline(*, name: str, namespace: str | None, cluster: options.Cluster, output: str) -> None:
    """Say what happened to a job, a deployment, a gang, a blade or a pool, line by line.

    OBJECT is tj/NAME, inf/NAME, gang/NAME, blade/NAME, np/NAME or a name alone. Merged from the
    object's status and its Events (the API server keeps those for an hour); a TrainingJob's ends
    with its goodput and what the rest of its time was lost to.
    """
    from tramontane.cli import happenings, session, tables, timelineask  # noqa: PLC0415

    found = session.run(
        cluster, lambda client: _read(client, name, namespace, session.namespace_of(cluster))
    )
    happened = happenings.in_order(timelineask.told(found))
    end = timelineask.end_of(found, time.time())

    def content() -> dict[str, Any]:
        whole: dict[str, Any] = {
            "object": timelineask.name_of(found),
            "happened": [one.to_dict() for one in happened],
        }
        goodput = (found.raw.get("status") or {}).get("goodput")
        return whole | ({"goodput": goodput} if goodput else {})

    def view() -> tuple[list[str], tuple[()]]:
        lines = happenings.lines(happened) or ["nothing is known of it yet"]
        return [*lines, *end], ()

    tables.show_answer(output, content, view)


async def _read(client: "Client", name: str, namespace: str | None, near: str | None) -> Any:
    from tramontane.cli import timelineask  # noqa: PLC0415

    return await timelineask.read(client, name, namespace, near)
