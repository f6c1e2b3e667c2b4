"""`tramontane plan`: how a model would be laid out over GPUs, by which arithmetic, offline.

It is the operator's own planner. Exit status: 0 for a model that fits, 3 for one that does not, 1
where there is no answer.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

from pathlib import Path

import click

from tramontane.api.errors import InvalidValue
from tramontane.cli import options


def _quantity(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    from tramontane.api.quantity import parse_quantity  # noqa: PLC0415

    try:
        if value is not None:
            parse_quantity(value)
    except InvalidValue as error:
        raise click.BadParameter(str(error)) from error
    return value


@click.command(
    epilog=options.examples(
        "tramontane plan -f model.yaml",
        "tramontane plan -f model.yaml --config config.json --gpu h200 --blades 2",
    )
)
@click.option(
    "-f",
    "--filename",
    "manifest",
    type=click.Path(dir_okay=False, exists=True, allow_dash=True),
    required=True,
    help="File with one InferenceDeployment, and its NodePool if you like; - reads standard input.",
)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The model's config.json or params.json (default: spec.model.config).",
)
@click.option(
    "--pool",
    "pool",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the NodePool.",
)
@click.option("--gpu", metavar="KIND", help="GPU instead of a pool's: h100, h200, b200, b300, ...")
@click.option(
    "--gpus-per-blade",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="GPUs per blade, with --gpu.",
)
@click.option(
    "--blades",
    type=click.IntRange(0, 100_000),
    default=0,
    help="Blades that there are (default: as many as it takes).",
)
@click.option(
    "--ram",
    metavar="QUANTITY",
    callback=_quantity,
    help="Memory of a host without GPUs, such as 8Gi.",
)
@options.output
@options.no_color
def plan(
    *,
    manifest: str,
    config: Path | None,
    pool: Path | None,
    gpu: str | None,
    gpus_per_blade: int,
    blades: int,
    ram: str | None,
    output: str,
) -> None:
    """Say how a model is laid out over GPUs, what it takes of their memory, or why it does not fit.

    Without a pool and without --gpu it is planned for each of H100, H200, B200 and B300.
    """
    if pool is not None and gpu is not None:
        raise click.UsageError("give --pool or --gpu, not both")
    from tramontane.cli import planask, tables  # noqa: PLC0415

    with click.open_file(manifest) as file:
        text = file.read()
    asked = planask.read(text, manifest, pool, config)
    try:
        pools = planask.places(asked, gpu, gpus_per_blade)
    except InvalidValue as error:
        raise click.BadParameter(str(error), param_hint="--gpu") from error
    plans = planask.plans(asked, pools, blades, ram)
    if not tables.show_for_programs(output, lambda: planask.to_dict(asked, plans)):
        planask.show(asked, plans)
    raise SystemExit(0 if any(one.fits for one in plans) else options.NO)
