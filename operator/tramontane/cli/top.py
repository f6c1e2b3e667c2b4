"""`tramontane top`: what goes on in a hall, for as long as one looks.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import contextlib
import sys
import time

import click

from tramontane.cli import options


@click.command(
    epilog=options.examples("tramontane top", "tramontane top -n research --once -o json")
)
@click.option(
    "-n",
    "--namespace",
    metavar="NAME",
    help="Only this namespace (default: all).",
    shell_complete=options.complete("namespaces"),
)
@options.all_namespaces
@click.option("--once", is_flag=True, help="Print it once; so without a terminal.")
@options.output
@options.cluster
def top(
    *,
    namespace: str | None,
    all_namespaces: bool,
    once: bool,
    output: str,
    cluster: options.Cluster,
) -> None:
    """Watch pools, jobs, the queue and the last events; q or Ctrl-C leaves.

    It follows the cluster by watches. All namespaces are shown unless one is named.
    """
    from tramontane.cli import session, tables, topask, topview  # noqa: PLC0415

    if namespace is not None and all_namespaces:
        raise click.UsageError("give --namespace or --all-namespaces, not both")
    if once or output in {"json", "yaml"} or not sys.stdout.isatty():
        seen = session.run(cluster, lambda client: topask.once(client, namespace))
        tables.show_answer(
            output,
            lambda: topview.content(seen),
            lambda: (topview.lines(seen, time.time()), ()),
        )
        return
    with contextlib.suppress(KeyboardInterrupt):
        session.run(cluster, lambda client: topask.live(client, namespace))
