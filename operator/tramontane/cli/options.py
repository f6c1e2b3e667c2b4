"""Options that many commands share. Nothing but click is imported: `--help` answers at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)

kubeconfig = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Kubeconfig of the cluster (default: $KUBECONFIG, or ~/.kube/config).",
)
by = click.option(
    "--by",
    metavar="NAME",
    default=None,
    help="Who asks (default: the user of your kubeconfig, or $USER).",
)
as_list = click.option(
    "-o",
    "--output",
    type=click.Choice(["wide", "json"]),
    help="wide: more columns; json: the objects, as kubectl prints them.",
)
as_one = click.option(
    "-o", "--output", type=click.Choice(["json"]), help="json: the object, as kubectl prints it."
)


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
