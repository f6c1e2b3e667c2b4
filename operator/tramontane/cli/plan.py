"""`tramontane plan`: how a model would be laid out over GPUs, by which arithmetic, offline.

It is the operator's own planner. Exit status: 0 for a model that fits, 1 for one that does not, 2
where there is no answer.

Everything heavy is imported inside the command, so that `--help` answers at once.
"""

from pathlib import Path

import click

from tramontane.cli.queue import Asking, output

DOES_NOT_FIT = 1


@click.command(cls=Asking)
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
@click.option("--ram", metavar="QUANTITY", help="Memory of a host without GPUs, such as 8Gi.")
@output
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
    plans = planask.plans(asked, planask.places(asked, gpu, gpus_per_blade), blades, ram)
    if output == "json":
        tables.show_json(planask.to_dict(asked, plans))
    elif output == "yaml":
        import yaml  # noqa: PLC0415

        content = planask.to_dict(asked, plans)
        click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), nl=False)
    else:
        planask.show(asked, plans)
    raise SystemExit(0 if any(one.fits for one in plans) else DOES_NOT_FIT)
