"""`tramontane explain`: what a state means: its evidence, what it blocks, what ends it.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.cli.explainview import Explained


@click.command(
    epilog=options.examples(
        "tramontane explain blade/gpu-0417",
        "tramontane explain tj/llama",
        "tramontane explain TopologyPlacementFailed",
        "tramontane explain xid-79",
    )
)
@click.argument("what", metavar="OBJECT|REASON|CODE", shell_complete=options.complete("explained"))
@options.namespace
@options.output
@options.cluster
def explain(*, what: str, namespace: str | None, cluster: options.Cluster, output: str) -> None:
    """Say what a state means: its evidence, what it blocks, what ends it.

    Of an object (blade/NAME, tj/NAME, inf/NAME, gang/NAME, np/NAME) as it is now; of a reason, such
    as WaitingForQuota, or of a fault's code, such as xid-79, 79 or RowRemapPending, without any
    cluster.
    """
    from tramontane.cli import dictionary, tables  # noqa: PLC0415

    if "/" not in what and (meanings := _in_dictionary(what)):

        def told() -> Any:
            whole = [one.to_dict() for one in meanings]
            return whole[0] if len(whole) == 1 else tables.list_of(whole)

        def view() -> tuple[list[str], tuple[()]]:
            lines = [line for one in meanings for line in (*dictionary.lines(one), "")]
            return lines[:-1], ()

        tables.show_answer(output, told, view)
        return
    from tramontane.api.errors import TramontaneError  # noqa: PLC0415
    from tramontane.cli import explainview, objects  # noqa: PLC0415

    try:
        found = _look(what, namespace, cluster)
    except TramontaneError as error:
        if "/" in what:
            raise
        # It is no word of ours: say which was probably meant. It is no object either only where
        # the cluster said so.
        try:
            dictionary.look_up(what)
        except dictionary.NoSuchWord as word:
            if isinstance(error, objects.Missing):
                raise
            raise objects.Missing(f"{error}. Without the cluster: {word}") from error
        raise
    now = time.time()
    tables.show_answer(
        output,
        lambda: explainview.content(found),
        lambda: explainview.story(found, now),
    )


def _in_dictionary(word: str) -> "list[Any]":
    """Return what a word means; nothing where it is none, and so an object's name."""
    from tramontane.cli import dictionary  # noqa: PLC0415

    try:
        return list(dictionary.look_up(word))
    except dictionary.NoSuchWord:
        return []


def _look(what: str, namespace: str | None, cluster: options.Cluster) -> "Explained":
    from tramontane.cli import explainask, session  # noqa: PLC0415

    near = session.namespace_of(cluster)
    return session.run(cluster, lambda client: explainask.read(client, what, namespace, near))
