"""Draw docs/images/engine-scaling.svg from bench/results/placement.json."""

import json
import math
from collections.abc import Callable
from pathlib import Path

from bench.results import RESULTS, ROOT

CHART = ROOT / "docs" / "images" / "engine-scaling.svg"
WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 50, 60
COLOURS = ("#1f6feb", "#bc4c00")


def draw(found: Path = RESULTS / "placement.json") -> Path:
    """Write the chart of what was found; returns its path."""
    growth = json.loads(found.read_text())["scaling"]
    rows = [row for of in growth.values() for row in of["rows"]]
    xs = sorted({row["blades"] for row in rows})
    low = _decade(min(row["median_ms"] for row in rows), math.floor)
    high = _decade(max(row["p99_ms"] for row in rows), math.ceil)

    def x(blades: float) -> float:
        along = math.log(blades / xs[0]) / math.log(xs[-1] / xs[0])
        return round(LEFT + along * (WIDTH - LEFT - RIGHT), 1)

    def y(ms: float) -> float:
        up = math.log(ms / low) / math.log(high / low)
        return round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1)

    parts = [_text(LEFT, 24, "Placing a gang of an eighth of the fleet, 70 % in use", size=15)]
    for blades in xs:
        parts += [
            _line(x(blades), y(low), x(blades), y(high)),
            _text(x(blades), HEIGHT - BOTTOM + 18, f"{blades:,}", anchor="middle"),
        ]
    steps = round(math.log10(high / low))
    for ms in (low * 10**i * digit for i in range(steps + 1) for digit in (1, 2, 5)):
        if ms <= high:
            parts += [
                _line(LEFT, y(ms), WIDTH - RIGHT, y(ms)),
                _text(LEFT - 8, y(ms) + 4, f"{ms:g}", anchor="end"),
            ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 18, "blades in the fleet", anchor="middle"))
    parts.append(
        f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "ms of CPU, one core</text>"
    )
    for place, ((name, of), colour) in enumerate(zip(growth.items(), COLOURS, strict=True)):
        points = " ".join(f"{x(row['blades'])},{y(row['median_ms'])}" for row in of["rows"])
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        for row in of["rows"]:
            at, top, foot = x(row["blades"]), y(row["p99_ms"]), y(row["median_ms"])
            parts += [
                f'<circle cx="{at}" cy="{foot}" r="3.5" fill="{colour}"/>',
                f'<path d="M{at} {foot}V{top}m-4 0h8" stroke="{colour}" fill="none"/>',
            ]
        label = f"{name}: grows as blades^{of['exponent']:.2f} (line: median, bar: p99)"
        parts.append(_text(LEFT + 14, TOP + 22 + 18 * place, label, colour=colour))
    CHART.parent.mkdir(parents=True, exist_ok=True)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#24292f">'
    )
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    CHART.write_text("\n".join([head, paper, *parts, "</svg>"]) + "\n")
    return CHART


def _decade(value: float, rounded: Callable[[float], int]) -> float:
    return float(10 ** rounded(math.log10(value)))


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="#d0d7de"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#24292f"
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{text}</text>"
    )
