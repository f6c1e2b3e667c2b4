"""`tramontane why`, `simulate`, `snapshot`, `replay`: what the scheduler decides, and what if.

They decide here, with the scheduler's own code, on the cluster as it is or on a saved snapshot;
nothing is written to the cluster. Exit status: 0 for a gang that has a place or would get one, 1
for one that has to wait, 2 where there is no answer.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tramontane.api.errors import TramontaneError
from tramontane.cli import options
from tramontane.cli.fleet import fleet

if TYPE_CHECKING:
    from tramontane.scheduler.saved import Saved

WAITS = 1
NO_ANSWER = 2

saved = click.option(
    "--snapshot",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Decide on a file that `tramontane snapshot` wrote, not on the cluster.",
)
namespace = click.option(
    "-n", "--namespace", metavar="NAME", help="Namespace (default: the one that has the name)."
)
output = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="json and yaml: all of the answer, for programs.",
)


class Unanswered(click.ClickException):
    """Say why there is no answer: 1 already means that a gang has to wait."""

    exit_code = NO_ANSWER


class Asking(click.Command):
    """A command whose exit status says how the answer is, so that 2 is for having none."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TramontaneError as error:
            raise Unanswered(str(error)) from error


class AskingGroup(Asking, click.Group):
    """The same, with further commands beneath it."""


@click.command(cls=Asking)
@click.argument("name", metavar="GANG_OR_JOB")
@namespace
@saved
@options.kubeconfig
@output
def why(
    *, name: str, namespace: str | None, path: Path | None, kubeconfig: Path | None, output: str
) -> None:
    """Say why a gang waits, for what, until when, and what would let it run.

    GANG_OR_JOB is the name of a Gang, or of the TrainingJob that owns it; also NAMESPACE/NAME.
    """
    from tramontane.cli import queueask, queueview  # noqa: PLC0415

    world = _world(path, kubeconfig)
    key = queueask.find(world, name, namespace)
    answer = queueask.explain(world, key)
    _show(output, answer.to_dict, lambda: queueview.why(answer))
    raise SystemExit(0 if answer.placed else WAITS)


@click.group(cls=AskingGroup, invoke_without_command=True)
@click.option(
    "-f",
    "--filename",
    "manifest",
    type=click.File("r"),
    help="File with one TrainingJob or Gang that need not exist; - reads standard input.",
)
@namespace
@saved
@options.kubeconfig
@output
@click.pass_context
def simulate(
    ctx: click.Context,
    *,
    manifest: Any,
    namespace: str | None,
    path: Path | None,
    kubeconfig: Path | None,
    output: str,
) -> None:
    """Say where a job would go if it were submitted now, or why it would wait.

    Also who would give way to it, and who would wait longer because of it. `simulate fleet` plays
    a hall for weeks instead, and needs no cluster.
    """
    if ctx.invoked_subcommand is not None:
        return
    if manifest is None:
        raise click.MissingParameter(ctx=ctx, param=ctx.command.params[0])
    from tramontane.cli import queueask, queuejob, queueview  # noqa: PLC0415

    submitted = queuejob.read(manifest.read(), manifest.name, namespace)
    world = _world(path, kubeconfig)
    answer = queueask.submit(world, queuejob.gang(world, submitted))
    _show(output, answer.to_dict, lambda: queueview.simulation(answer))
    raise SystemExit(0 if answer.placed else WAITS)


simulate.add_command(fleet)


@click.command(cls=Asking)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write (default: standard output).",
)
@options.kubeconfig
def snapshot(*, path: Path | None, kubeconfig: Path | None) -> None:
    """Save what the scheduler decides upon: for why, simulate, replay, or a bug report.

    No image, command, environment, volume or secret is in it.
    """
    from tramontane.scheduler.saved import dump  # noqa: PLC0415

    text = dump(_world(None, kubeconfig))
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise Unanswered(f"{path}: must be writable ({error.strerror})") from error
    click.echo(f"{path}: {len(text):,} bytes", err=True)


@click.command(cls=Asking)
@click.argument(
    "path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@output
def replay(*, path: Path, output: str) -> None:
    """Decide again on a saved snapshot: the same file gives the same plan, byte for byte."""
    from tramontane.cli import queueview  # noqa: PLC0415
    from tramontane.scheduler import saved  # noqa: PLC0415

    plan = saved.replay(saved.load(path))
    _show(output, lambda: plan, lambda: queueview.plan(plan))


def _world(path: Path | None, kubeconfig: Path | None) -> "Saved":
    from tramontane.cli import queueask, session  # noqa: PLC0415
    from tramontane.scheduler import saved  # noqa: PLC0415

    return saved.load(path) if path else session.run(kubeconfig, queueask.capture)


def _show(
    output: str, content: Callable[[], dict[str, Any]], view: Callable[[], tuple[list[str], Any]]
) -> None:
    """Print an answer: for programs as it is, for people as lines and tables after them."""
    from tramontane.cli import tables  # noqa: PLC0415

    if output == "json":
        tables.show_json(content())
    elif output == "yaml":
        import yaml  # noqa: PLC0415

        click.echo(yaml.safe_dump(content(), sort_keys=False, allow_unicode=True), nl=False)
    else:
        lines, more = view()
        click.echo("\n".join(lines))
        for one in more:
            click.echo()
            tables.show(one)
