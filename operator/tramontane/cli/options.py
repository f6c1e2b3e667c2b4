"""Options that many commands share, and what their exit status means.

| status | what it says                                                              |
|--------|---------------------------------------------------------------------------|
| 0      | done; or the answer is yes                                                |
| 1      | it failed: the cluster, a file, an object that is not there               |
| 2      | what was asked makes no sense, or nobody is there to confirm a change     |
| 3      | the answer is no: it waits, it does not fit, it is not what it should be  |

Nothing but click and names is imported: `--help` answers at once.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from tramontane.api.names import SYSTEM_NAMESPACE

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)

FAILED = 1
USAGE = 2
NO = 3
FORMATS = ("table", "wide", "json", "yaml")
# Of a person's name, as in the CRD.
MOST_CHARS = 253

_PLAIN = "tramontane.plain"
# Longer than any sentence.
_WHOLE = 1000


@dataclass(frozen=True, slots=True)
class Cluster:
    """Say which cluster is meant; None is what kubectl would take."""

    kubeconfig: Path | None = None
    context: str | None = None


class Group(click.Group):
    """A group that lists its commands with all of their first sentence: click cuts it off."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(_WHOLE)) for name, one in found if one is not None]
            )


def cluster(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--kubeconfig`, `--context` and `--no-color`; it is called with `cluster`."""

    @functools.wraps(function)
    def called(*arguments: Any, kubeconfig: Path | None, context: str | None, **more: Any) -> Any:
        return function(*arguments, cluster=Cluster(kubeconfig, context), **more)

    return _kubeconfig(_context(no_color(called)))


def complete(kind: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """Return what completes the names of objects: a resource's name, or `any`."""

    def names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
        from tramontane.cli import complete as completing  # noqa: PLC0415

        return completing.names(kind, ctx.params, incomplete)

    return names


def no_format(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    """Return the file that -o names; refuse `-o json`, which is a format with other commands."""
    if value is not None and str(value) in FORMATS:
        raise click.BadParameter(f'must name a file (got the format "{value}")')
    return value


def _known(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Return who asks; longer than a user's name can be, it is none."""
    if value is not None and len(value.strip()) > MOST_CHARS:
        text = f"must have at most {MOST_CHARS} characters (got {len(value.strip())})"
        raise click.BadParameter(text)
    return value


_kubeconfig = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Kubeconfig of the cluster (default: $KUBECONFIG, or ~/.kube/config).",
)
_context = click.option(
    "--context", metavar="NAME", help="Context of the kubeconfig (default: the current one)."
)
namespace = click.option(
    "-n",
    "--namespace",
    metavar="NAME",
    help="Namespace (default: the context's, else the one that has the name).",
    shell_complete=complete("namespaces"),
)
system_namespace = click.option(
    "-n",
    "--namespace",
    metavar="NAME",
    default=SYSTEM_NAMESPACE,
    show_default=True,
    help="Namespace of the components.",
    shell_complete=complete("namespaces"),
)
all_namespaces = click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
pool = click.option(
    "--pool", metavar="NAME", help="Only this pool.", shell_complete=complete("nodepools")
)
output = click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="wide: more, where there is more; json, yaml: all of it, for programs.",
)
by = click.option(
    "--by",
    metavar="NAME",
    default=None,
    callback=_known,
    help="Who asks (default: the user of your kubeconfig, or $USER).",
)
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask; needed without a terminal.")
_dry_run = click.option("--dry-run", is_flag=True, help="Show the plan, and write nothing.")


def changing(function: FC) -> FC:
    """Give a command that writes `--yes`, `--dry-run` and `--output`."""
    return _yes(_dry_run(output(function)))


def no_color(function: FC) -> FC:
    """Give a command `--no-color`, which is `NO_COLOR` in the environment, too."""

    def off(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[_PLAIN] = True

    return click.option(
        "--no-color",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=off,
        help="No colours; so does NO_COLOR in the environment.",
    )(function)


def wants_color() -> bool:
    """Return whether colours are welcome, were there a terminal."""
    ctx = click.get_current_context(silent=True)
    return not os.environ.get("NO_COLOR") and not (ctx is not None and ctx.meta.get(_PLAIN))


def reason(*, required: bool) -> Callable[[FC], FC]:
    """Return the option for what people want to remember of this; 1,024 characters at most."""
    return click.option(
        "--reason",
        metavar="TEXT",
        required=required,
        callback=_short,
        help="Why; it is kept with the object.",
    )


def _short(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not 0 < len(value.strip()) <= 1024:  # noqa: PLR2004 - as in the CRD
        raise click.BadParameter(f"must have 1 to 1024 characters (got {len(value.strip())})")
    return value.strip() if value is not None else None


def examples(*lines: str) -> str:
    """Return an epilog that shows how a command is called, a line for each."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
