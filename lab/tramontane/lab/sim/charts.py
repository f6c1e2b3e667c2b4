"""Draw where the time of each case goes: an SVG by hand, or a PNG where matplotlib is installed."""

import importlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tramontane.lab.paths import LabError
from tramontane.lab.sim.study import Answer

WIDTH, ROW, LEFT, TOP = 760, 26, 230, 58
_BAR = 420
CAUSES = (
    ("checkpoint", "#1f6f8b"),
    ("rework", "#e0a030"),
    ("restart", "#b3541e"),
    ("hang", "#7a3b7a"),
    ("start", "#999999"),
)
_FONT = 'font-family="sans-serif" font-size="12" fill="#333"'


def check(path: Path) -> None:
    """Raise what would keep the chart from being drawn, before hours are spent.

    Raises:
        LabError: an ending that nobody can draw here, or a folder that is not there.
    """
    if path.suffix not in {".svg", ".png"}:
        raise LabError(
            f"--plot {path}: must end with .svg or .png (got {path.suffix or 'no ending'})"
        )
    if not path.absolute().parent.is_dir():
        raise LabError(f"--plot {path}: its folder must exist (got {path.absolute().parent})")
    if path.suffix == ".png":
        try:
            importlib.import_module("matplotlib")
        except ImportError:
            raise LabError(
                f"--plot {path}: a PNG needs matplotlib (got none); install tramontane[plot],"
                " or name a file that ends with .svg"
            ) from None


def write(path: Path, answers: Sequence[Answer]) -> None:
    """Write the chart of all answers."""
    if path.suffix == ".png":
        _png(path, answers)
    else:
        path.write_text(svg(answers))


def svg(answers: Sequence[Answer]) -> str:
    """Return the chart as SVG: a bar of lost time for each case, by cause."""
    most = max(1 - one.ettr for one in answers) or 1.0
    height = TOP + ROW * len(answers) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {_FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="12" y="22" font-size="14">Time that does not train, by cause</text>',
    ]
    for index, (cause, colour) in enumerate(CAUSES):
        x = LEFT + 90.0 * index
        parts += [
            f'<rect x="{x:.0f}" y="32" width="12" height="12" fill="{colour}"/>',
            f'<text x="{x + 17:.0f}" y="42">{cause}</text>',
        ]
    for row, one in enumerate(answers):
        y, x = TOP + ROW * row, float(LEFT)
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(one.case.name)}</text>'
        )
        for cause, colour in CAUSES:
            wide = _BAR * one.lost[cause] / most
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="18" fill="{colour}"/>'
            )
            x += wide
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{1 - one.ettr:.2%}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _png(path: Path, answers: Sequence[Answer]) -> None:
    # An extra, slow to import; it ships no types that we check.
    importlib.import_module("matplotlib").use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    names = [one.case.name for one in answers]
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.35 * len(answers)), layout="constrained")
    left = [0.0] * len(answers)
    for cause, colour in CAUSES:
        shares = [100 * one.lost[cause] for one in answers]
        axes.barh(names, shares, left=left, color=colour, label=cause)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("% of the time that does not train")
    figure.legend(loc="outside upper center", ncols=len(CAUSES), fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)
