"""Show what the simulator found: tables and bars for people, JSON for programs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from tramontane.api.quantity import format_duration
from tramontane.cli.tables import Table, facts
from tramontane.cli.tables import show as show_table

if TYPE_CHECKING:
    from tramontane.lab.sim.study import Answer

_BAR = 40
_MOST_MEDIANS = 2.5
_MARKS = (
    ("checkpoint", "▒"),
    ("rework", "▚"),
    ("restart", "░"),
    ("hang", "h"),
)


@contextmanager
def progress() -> Iterator[Callable[[float], None]]:
    """Yield what is to be called with the share that is done; a bar where a person looks on."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import; only for a terminal
    from rich.progress import Progress  # noqa: PLC0415 - the same

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulating", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def show(answers: Sequence["Answer"]) -> None:
    """Print the answers for people."""
    click.echo("\n".join(summary(answers[0])))
    click.echo()
    show_table(table(answers))
    click.echo()
    click.echo("\n".join(bars(answers)))


def content(answers: Sequence["Answer"]) -> dict[str, Any]:
    """Return all figures; shares from 0 to 1, times in seconds."""
    from tramontane.lab.sim.study import spares_for  # noqa: PLC0415

    case = answers[0].case
    return {
        "mttfSeconds": _finite(case.plan.mttf_s),
        "bestIntervalSeconds": _finite(case.plan.every_s),
        "sparesFor99": spares_for(case),
        "awaySeconds": round(case.away_s, 1),
        "cases": [one.to_dict() for one in answers],
    }


def summary(answer: "Answer") -> list[str]:
    """Return the planner's answers in words."""
    from tramontane.lab.sim import formula, study  # noqa: PLC0415

    case, plan = answer.case, answer.case.plan
    best_s = formula.young_s(case.save_s, plan.mttf_s)
    is_best = case.interval_s is None
    least, most = answer.spread
    spread = f" (from {least:.2%} to {most:.2%} among {len(answer.outcomes)} seeds)"
    twice = formula.spares_needed(case.job_blades, case.model.rate, 2 * case.away_s)
    return facts(
        [
            ("job", f"{case.job_blades} blades, {case.job_blades * case.gpus:,} GPUs"),
            ("a failure every", _time(plan.mttf_s)),
            (
                "save every",
                f"{_time(best_s)} (Young)" + ("" if is_best else f"; here {_time(plan.every_s)}"),
            ),
            (
                "expected goodput",
                f"{answer.ettr:.2%}" + (spread if len(answer.outcomes) > 1 else ""),
            ),
            ("a blade is away", f"{_time(case.away_s)} on average"),
            ("spares for 99 %", f"{study.spares_for(case)}; with repairs twice as slow {twice}"),
        ]
    )


def table(answers: Sequence["Answer"]) -> Table:
    """Return a row for each case."""
    rows = []
    for one in answers:
        case, plan, lost = one.case, one.case.plan, one.lost
        rows.append(
            (
                case.name,
                f"{one.ettr:.4f}",
                f"{one.ledger:.4f}",
                f"{plan.ettr:.4f}" if plan.is_valid else "",
                _time(plan.every_s),
                f"{one.interruptions:.1f}",
                f"{one.stood_s:.0f}s",
                f"{one.waited:.1%}",
                *(f"{lost[cause]:.2%}" for cause in ("checkpoint", "rework", "restart")),
            )
        )
    headings = (
        "CASE", "ETTR", "LEDGER", "FORMULA", "INTERVAL", "FAILURES", "STOOD", "WAITED",
        "CHECKPOINT", "REWORK", "RESTART",
    )  # fmt: skip
    return Table(headings, rows)


def bars(answers: Sequence["Answer"]) -> list[str]:
    """Return a bar for each case, of the time that is lost; the longest are cut."""
    width = max(len(one.case.name) for one in answers)
    losses = [1 - one.ettr for one in answers]
    # One case that stands for days must not hide what tells the others apart.
    most = min(max(losses), _MOST_MEDIANS * median(losses)) or 1.0
    lines = [f"lost time ({', '.join(f'{mark} {name}' for name, mark in _MARKS)}):"]
    for one, loss in zip(answers, losses, strict=True):
        bar = "".join(mark * round(one.lost[name] / most * _BAR) for name, mark in _MARKS)
        cut = bar if len(bar) <= _BAR else f"{bar[:_BAR]}…"
        lines.append(f"{one.case.name:<{width}}  {loss:6.2%}  {cut}".rstrip())
    return lines


def _time(seconds: float) -> str:
    """Return a time for people: two units at most."""
    if seconds == float("inf"):
        return "never"
    if seconds >= 3600:  # noqa: PLR2004 - an hour
        return format_duration(round(seconds / 60) * 60)
    return format_duration(round(seconds))


def _finite(seconds: float) -> float | None:
    return None if seconds == float("inf") else round(seconds, 1)
