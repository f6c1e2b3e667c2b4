"""`tramontane doctor`: whether this cluster is fit, and what to do where it is not.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

import click

from tramontane.cli import options


@click.command(
    epilog="Exit status: 0 fit, 1 no answer, 3 there is a problem (with --strict, a warning or "
    "something unknown as well)."
)
@options.system_namespace
@click.option("--strict", is_flag=True, help="Warnings and what could not be looked at fail, too.")
@options.output
@options.cluster
def doctor(*, namespace: str, strict: bool, cluster: options.Cluster, output: str) -> None:
    """Say whether this cluster is fit: versions, CRDs, rights, agents, clocks, Prometheus."""
    from tramontane.cli import session, tables  # noqa: PLC0415
    from tramontane.cli.doctorask import look  # noqa: PLC0415
    from tramontane.cli.doctorchecks import examine  # noqa: PLC0415
    from tramontane.cli.doctorfacts import Level  # noqa: PLC0415
    from tramontane.cli.doctorview import lines  # noqa: PLC0415

    found = examine(session.run(cluster, lambda client: look(client, namespace)))
    tables.show_answer(output, lambda: [one.to_dict() for one in found], lambda: (lines(found), ()))
    bad = {Level.PROBLEM} if not strict else {Level.PROBLEM, Level.WARNING, Level.UNKNOWN}
    if any(one.level in bad for one in found):
        raise SystemExit(options.NO)
