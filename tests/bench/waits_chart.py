"""Draw waits by gang size as an SVG: mean and p99 of each policy, both axes logarithmic."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 40, 48
LEAST_H = 0.01
FONT = 'font-family="sans-serif" font-size="12" fill="#333"'
COLOURS = ("#b3541e", "#1f6f8b")
LINES = (("p99", ""), ("mean", ' stroke-dasharray="5 4"'))
TICKS_H = ((1 / 60, "1 min"), (1 / 6, "10 min"), (1, "1 h"), (10, "10 h"), (100, "100 h"))


def write(path: Path, curves: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write the chart of waits in hours per policy and size."""
    sizes = sorted({int(size) for of_policy in curves.values() for size in of_policy})
    most_h = max(float(one["p99"]) for some in curves.values() for one in some.values())
    top_h = 10 ** math.ceil(math.log10(max(most_h, 1.0)))

    def x(size: int) -> float:
        span = math.log2(sizes[-1]) - math.log2(sizes[0]) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(size) - math.log2(sizes[0])) / span

    def y(hours: float) -> float:
        share = math.log(max(hours, LEAST_H) / LEAST_H) / math.log(top_h / LEAST_H)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">Wait by size of the gang</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 10}">blades of the gang</text>',
    ]
    for hours, label in TICKS_H:
        if LEAST_H <= hours <= top_h:
            at = y(hours)
            parts += [
                f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>',
                f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>',
            ]
    parts += [
        f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size}</text>'
        for size in sizes
    ]
    row = 0
    for (policy, waits), colour in zip(curves.items(), COLOURS, strict=True):
        for measure, dashes in LINES:
            points = " ".join(
                f"{x(int(size)):.1f},{y(float(one[measure])):.1f}" for size, one in waits.items()
            )
            line = f'fill="none" stroke="{colour}" stroke-width="2"{dashes}'
            at, name = TOP + 16 * row, f"{policy.split()[-1]} {measure}"
            parts += [
                f'<polyline points="{points}" {line}/>',
                f'<path d="M{WIDTH - RIGHT + 10} {at}h24" {line}/>',
                f'<text x="{WIDTH - RIGHT + 40}" y="{at + 4}">{name}</text>',
            ]
            row += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
