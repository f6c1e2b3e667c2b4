"""`tramontane why`, `simulate`, `snapshot`, `replay`: what the scheduler decides, and what if.

They decide here, with the scheduler's own code, on the cluster as it is or on a saved snapshot;
nothing is written to the cluster. Exit status: 0 for a gang that has a place or would get one, 3
for one that has to wait, 1 where there is no answer.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tramontane.cli import options
from tramontane.cli.fleet import fleet

if TYPE_CHECKING:
    from tramontane.cli.queueask import Answer
    from tramontane.scheduler.saved import Saved

saved = click.option(
    "--snapshot",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Decide on a file that `tramontane snapshot` wrote, not on the cluster.",
)


@click.command(
    epilog=options.examples(
        "tramontane why tj/llama",
        "tramontane why inf/claims -n insurer-a",
        "tramontane why ml/llama --snapshot hall.json -o json",
    )
)
@click.argument("name", metavar="OBJECT", shell_complete=options.complete("gangs"))
@options.namespace
@saved
@options.output
@options.cluster
def why(
    *,
    name: str,
    namespace: str | None,
    path: Path | None,
    cluster: options.Cluster,
    output: str,
) -> None:
    """Say why a gang waits, for what, until when, and what would let it run.

    OBJECT is a Gang, or what owns gangs: a TrainingJob has one of its name, an InferenceDeployment
    one for each replica. Named tj/NAME, inf/NAME, gang/NAME, NAMESPACE/NAME or NAME.
    """
    from tramontane.cli import queueask, queueview, tables  # noqa: PLC0415
    from tramontane.kube.errors import Forbidden  # noqa: PLC0415

    ref = queueask.parse(name, namespace)
    try:
        world = _world(path, cluster)
    except Forbidden as error:
        # What the scheduler wrote into the object may be read with a right on that alone.
        raise click.ClickException(
            f"{error}. To decide anew takes the right to read all that the scheduler reads; what "
            f"it last said is told by: tramontane explain {name}"
        ) from error
    answers = [queueask.explain(world, key) for key in queueask.find(world, ref)]

    def content() -> Any:
        told = [one.to_dict() for one in answers]
        return told[0] if len(told) == 1 else tables.list_of(told)

    if not tables.show_for_programs(output, content):
        for number, one in enumerate(answers):
            if number:
                click.echo()
            tables.show_answer(output, one.to_dict, functools.partial(queueview.why, one))
    raise SystemExit(_status(answers))


@click.group(
    cls=options.Group,
    invoke_without_command=True,
    epilog=options.examples(
        "tramontane simulate -f job.yaml",
        "tramontane simulate fleet --blades 136 --days 30",
    ),
)
@click.option(
    "-f",
    "--filename",
    "manifest",
    type=click.File("r"),
    help="File with one TrainingJob or Gang that need not exist; - reads standard input.",
)
@options.namespace
@saved
@options.output
@options.cluster
@click.pass_context
def simulate(
    ctx: click.Context,
    *,
    manifest: Any,
    namespace: str | None,
    path: Path | None,
    cluster: options.Cluster,
    output: str,
) -> None:
    """Say where a job would go if it were submitted now, or why it would wait.

    Also who would give way to it, and who would wait longer because of it. `simulate fleet` plays
    a hall for weeks instead, and needs no cluster.
    """
    if ctx.invoked_subcommand is not None:
        return
    if manifest is None:
        raise click.MissingParameter(
            ctx=ctx, param=next(one for one in ctx.command.params if one.name == "manifest")
        )
    from tramontane.cli import queueask, queuejob, queueview, tables  # noqa: PLC0415

    submitted = queuejob.read(manifest.read(), manifest.name, namespace)
    world = _world(path, cluster)
    answer = queueask.submit(world, queuejob.gang(world, submitted))
    tables.show_answer(output, answer.to_dict, lambda: queueview.simulation(answer))
    raise SystemExit(_status([answer]))


simulate.add_command(fleet)


@click.command(epilog=options.examples("tramontane snapshot -o hall.json"))
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=options.no_format,
    help="File to write (default: standard output).",
)
@options.cluster
def snapshot(*, path: Path | None, cluster: options.Cluster) -> None:
    """Save what the scheduler decides upon: for why, simulate, replay, or a bug report.

    No image, command, environment, volume or secret is in it.
    """
    from tramontane.scheduler.saved import dump  # noqa: PLC0415

    text = dump(_world(None, cluster))
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"{path}: must be writable ({error.strerror})") from error
    click.echo(f"{path}: {len(text):,} bytes", err=True)


@click.command(epilog=options.examples("tramontane replay hall.json -o json"))
@click.argument(
    "path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@options.output
@options.no_color
def replay(*, path: Path, output: str) -> None:
    """Decide again on a saved snapshot: the same file gives the same plan, byte for byte."""
    from tramontane.cli import queueview, tables  # noqa: PLC0415
    from tramontane.scheduler import saved  # noqa: PLC0415

    plan = saved.replay(saved.load(path))
    tables.show_answer(output, lambda: plan, lambda: queueview.plan(plan))


def _status(answers: "list[Answer]") -> int:
    return 0 if all(one.placed for one in answers) else options.NO


def _world(path: Path | None, cluster: options.Cluster) -> "Saved":
    from tramontane.cli import queueask, session  # noqa: PLC0415
    from tramontane.scheduler import saved  # noqa: PLC0415

    return saved.load(path) if path else session.run(cluster, queueask.capture)
