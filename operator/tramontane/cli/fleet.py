"""`tramontane simulate fleet`: what a hall, its spares and its checkpoints are worth.

The controllers' own code decides, on a virtual clock; nothing is read from a cluster, and nothing
is written to one. Everything heavy is imported inside the command: `--help` answers at once.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tramontane.api.errors import InvalidValue, TramontaneError
from tramontane.api.quantity import INT_OR_PERCENT_PATTERN, parse_duration
from tramontane.cli import options

if TYPE_CHECKING:
    from tramontane.lab.sim.study import Case

AUTO = "auto"
POLICIES = ("in-place", "gang")
_MOST_BLADES = 20_000
_DAYS = re.compile(r"^(?P<days>[0-9]+(\.[0-9]+)?)d$")


def _seconds(_ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Return a duration in seconds: 30s, 10m, 2h30m, or whole days as 5d."""
    if (days := _DAYS.match(value)) is not None:
        return float(days["days"]) * 86_400
    try:
        return parse_duration(value)
    except InvalidValue:
        text = f'must be a duration such as 30s, 10m, 2h or 5d (got "{value}")'
        raise click.BadParameter(text, param=param) from None


def _interval(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    return None if value == AUTO else _seconds(ctx, param, value)


def _counts(_ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...] | None:
    """Return numbers with commas between them; None is `auto`."""
    if value == AUTO:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        text = f'must be {AUTO}, or numbers of at least 0 such as 2,4,8 (got "{value}")'
        raise click.BadParameter(text, param=param)
    return tuple(sorted({int(part) for part in parts}))


def _share(_ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Return a share from 0 to 1: of 8%, or 0.08."""
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        text = f'must be a share from 0% to 100% (got "{value}")'
        raise click.BadParameter(text, param=param)
    return share


def _unavailable(_ctx: click.Context, param: click.Parameter, value: str) -> str:
    if re.fullmatch(INT_OR_PERCENT_PATTERN, value) is None:
        raise click.BadParameter(f'must be a number or a percentage (got "{value}")', param=param)
    return value


@click.command()
@click.option(
    "--blades",
    type=click.IntRange(1, _MOST_BLADES),
    default=136,
    show_default=True,
    help="Blades of the hall, spares among them.",
)
@click.option(
    "--gpus-per-blade",
    "gpus",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="GPUs of each blade.",
)
@click.option(
    "--job-blades",
    type=click.IntRange(1, _MOST_BLADES),
    default=None,
    help="Blades that the job trains on (default: all but the spares).",
)
@click.option(
    "--spares",
    callback=_counts,
    metavar="N,...|auto",
    default=AUTO,
    show_default=True,
    help="Spares held for the job; several to compare. auto: 99 % of failures find one.",
)
@click.option(
    "--days", type=click.FloatRange(0, 366, min_open=True), default=30.0, show_default=True
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="The first seed."
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Runs of each case, for the spread; each has the next seed.",
)
@click.option(
    "--failure-rate",
    "rate",
    type=click.FloatRange(0, 10_000),
    default=6.5,
    show_default=True,
    help="Hardware failures per 1,000 blade-days (Meta RSC-1: 6.5, RSC-2: 2.34).",
)
@click.option(
    "--checkpoint",
    "save_s",
    callback=_seconds,
    metavar="DURATION",
    default="30s",
    show_default=True,
    help="What a checkpoint holds training up.",
)
@click.option(
    "--checkpoint-interval",
    "interval_s",
    default=AUTO,
    show_default=True,
    callback=_interval,
    metavar="DURATION|auto",
    help="Work between two checkpoints; auto: Young's.",
)
@click.option(
    "--step",
    "step_s",
    callback=_seconds,
    metavar="DURATION",
    default="5s",
    show_default=True,
    help="What a step takes.",
)
@click.option(
    "--reload",
    "reload_s",
    callback=_seconds,
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="From a replacement's pod to its first step: start, rendezvous, checkpoint.",
)
@click.option(
    "--detect",
    "detect_s",
    callback=_seconds,
    metavar="DURATION",
    default="1s",
    show_default=True,
    help="From a fault to its report; a node that dies is silent for 40s first.",
)
@click.option(
    "--repair-time",
    "repair_s",
    callback=_seconds,
    metavar="DURATION",
    default="2h12m",
    show_default=True,
    help="Mean time in which people bring a dead blade back (NCSA Delta: 2.2 h).",
)
@click.option(
    "--rma-time",
    "rma_s",
    callback=_seconds,
    metavar="DURATION",
    default="5d",
    show_default=True,
    help="Until new parts are in. Nobody publishes that: use your own.",
)
@click.option(
    "--parts",
    callback=_share,
    metavar="SHARE",
    default="8%",
    show_default=True,
    help="Share of faults that only new parts end.",
)
@click.option(
    "--max-unavailable",
    default="10%",
    show_default=True,
    callback=_unavailable,
    metavar="N|PERCENT",
    help="Blades that may be out at once (NodePool maxUnavailable).",
)
@click.option(
    "--infant",
    type=click.FloatRange(1, 1000),
    default=1.0,
    show_default=True,
    help="By how many times more blades fail on the first day; falls to 1 within some weeks.",
)
@click.option(
    "--lemons",
    callback=_share,
    metavar="SHARE",
    default="0%",
    show_default=True,
    help="Share of blades that fail ten times as often; the mean stays.",
)
@click.option(
    "--rack-rate",
    type=click.FloatRange(0, 1000),
    default=0.0,
    show_default=True,
    help="Failures of whole racks per 1,000 rack-days.",
)
@click.option(
    "--policy",
    "policies",
    default="in-place,gang",
    show_default=True,
    metavar="|".join(POLICIES) + ",...",
    help="in-place: one pod is replaced, the rest stay. gang: no spares, found late, all anew.",
)
@click.option(
    "--gang-detect",
    "gang_detect_s",
    callback=_seconds,
    metavar="DURATION",
    default="10m",
    show_default=True,
    help="Until the policy gang finds a fault.",
)
@click.option(
    "--slower-repair",
    "slower_by",
    type=click.FloatRange(1, 100),
    default=1.0,
    show_default=True,
    help="Also play the first case with repairs that take so many times as long.",
)
@click.option("--sweep", "sweeps", is_flag=True, help="Change one thing at a time: a table.")
@options.output
@click.option(
    "--plot", "plot", type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Draw where the time goes: FILE.svg, or FILE.png (needs matplotlib).",
)  # fmt: skip
def fleet(*, output: str, plot: Path | None, seed: int, seeds: int, **given: Any) -> None:
    """Say what a hall is worth: train for weeks on failing blades, on a virtual clock.

    Answers how many spares it takes, how often to save, what goodput to expect, and what slower
    repair costs. The controllers' own code decides; faults come at published rates, by seeds: the
    same seed brings the same faults to every policy.
    """
    from tramontane.cli import fleetview, tables  # noqa: PLC0415
    from tramontane.lab.sim import charts, study  # noqa: PLC0415

    if plot is not None:
        try:
            charts.check(plot)
        except TramontaneError as error:
            raise click.BadParameter(str(error), param_hint="--plot") from error
    cases = _cases(given)
    with fleetview.progress() as progress:
        answers = list(study.ask(cases, range(seed, seed + seeds), progress))
    if not tables.show_for_programs(output, lambda: fleetview.content(answers)):
        fleetview.show(answers)
    if plot is not None:
        charts.write(plot, answers)
        click.echo(f"{plot}: drawn", err=True)


def _cases(given: dict[str, Any]) -> "list[Case]":
    """Return what is to be played, or say what is wrong with what was asked for."""
    from tramontane.lab.sim import study  # noqa: PLC0415

    policies = tuple(part.strip() for part in given["policies"].split(","))
    if unknown := [one for one in policies if one not in POLICIES]:
        raise click.BadParameter(
            f"must be among {', '.join(POLICIES)} (got {', '.join(unknown)})", param_hint="--policy"
        )
    base = _base(given)
    spares = given["spares"]
    if spares is None:
        spares = (_auto_spares(base, given["job_blades"]),)
    found = [_with_spares(base, count, given["job_blades"]) for count in spares]
    if given["sweeps"]:
        return study.sweep(found[0])
    cases = found if "in-place" in policies else []
    if "gang" in policies:
        cases = [*cases, study.without_tramontane(found[0], given["gang_detect_s"])]
    if given["slower_by"] > 1:
        cases = [*cases, study.slower(found[0], given["slower_by"])]
    return cases


def _base(given: dict[str, Any]) -> "Case":
    from tramontane.lab.sim.faults import Model  # noqa: PLC0415
    from tramontane.lab.sim.iron import Times  # noqa: PLC0415
    from tramontane.lab.sim.study import Case  # noqa: PLC0415

    positive = {"step_s": "--step", "save_s": "--checkpoint", "interval_s": "--checkpoint-interval"}
    for name, option in positive.items():
        if given[name] is not None and given[name] <= 0:
            raise click.BadParameter("must be longer than 0s (got 0s)", param_hint=option)
    times = Times(
        detect_s=given["detect_s"],
        node_grace_s=max(Times().node_grace_s, given["detect_s"]),
        repair_s=given["repair_s"],
        rma_s=given["rma_s"],
    )
    model = Model(
        rate=given["rate"],
        parts=given["parts"],
        infant=given["infant"],
        lemons=given["lemons"],
        rack_rate=given["rack_rate"],
    )
    blades = given["blades"]
    names = ("days", "gpus", "save_s", "interval_s", "reload_s", "step_s", "max_unavailable")
    more = {name: given[name] for name in names}
    return Case("base", blades, given["job_blades"] or blades, 0, times=times, model=model, **more)


def _auto_spares(base: "Case", job_blades: int | None) -> int:
    """Return the spares for 99 % without a wait, as many as there is room for."""
    from tramontane.lab.sim import study  # noqa: PLC0415

    wanted = study.spares_for(base)
    room = base.blades - job_blades if job_blades is not None else base.blades - 1
    return max(0, min(wanted, room))


def _with_spares(base: "Case", spares: int, job_blades: int | None) -> "Case":
    from dataclasses import replace  # noqa: PLC0415

    if spares >= base.blades:
        raise click.BadParameter(
            f"must be fewer than the {base.blades} blades (got {spares})", param_hint="--spares"
        )
    job = base.blades - spares if job_blades is None else job_blades
    if job + spares > base.blades:
        raise click.BadParameter(
            f"{job} blades of the job and {spares} spares must fit into {base.blades} blades "
            f"(got {job + spares}); give more --blades",
            param_hint="--job-blades",
        )
    return replace(
        base,
        name=f"in-place, {spares} spare{'' if spares == 1 else 's'}",
        spares=spares,
        job_blades=job,
    )
