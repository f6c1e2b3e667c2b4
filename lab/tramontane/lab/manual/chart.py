"""Write what the chart says of itself: `python -m tramontane.lab.manual.chart [DIR]`.

In README.md the table of values, between its two marks; it is made of the comments in values.yaml.
In images.txt what is pulled by default, for those who mirror images, and after an empty line what
only the examples of the documentation name. The text around the table is written by hand.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tramontane.lab.manual.markdown import cell, code, table
from tramontane.lab.manual.values import VALUES, values

CHART: Final = VALUES.parent
EXAMPLES: Final = CHART.parents[1] / "docs" / "examples"
_BEGIN: Final = "<!-- values: by `make generate` from values.yaml, do not edit -->\n"
_END: Final = "\n<!-- end of values -->"


def readme(text: str, described: str) -> str:
    """Return README.md with the table of what values.yaml describes in it.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"README.md: must have {_BEGIN!r} and {_END!r} (got not both)")
    rows = [(code(one.path), code(one.default), cell(one.text)) for one in values(described)]
    made = table(("Value", "Default", "What it is"), rows)
    return f"{before}{begin}\n{made}\n{end}{after}"


def images(described: str, version: str, examples: Sequence[str]) -> str:
    """Return images.txt: what the chart pulls by default, and what else the examples name."""
    said = yaml.safe_load(described)
    ours = [
        f"{image['repository']}:{image['tag'] or version}"
        for image in (said["image"], said["agent"]["image"])
    ]
    documents = [one for text in examples for one in yaml.safe_load_all(text)]
    others = sorted(set(_images(documents)) - set(ours))
    return "\n".join(
        (
            "# Pulled by default.",
            *ours,
            "",
            "# Named by examples only; take instead the images that you train and serve with.",
            *others,
            "",
        )
    )


def _images(node: Any) -> Iterator[str]:
    """Yield each image that an object names, wherever."""
    match node:
        case dict():
            for key, value in node.items():
                if key == "image" and isinstance(value, str):
                    yield value
                yield from _images(value)
        case list():
            for value in node:
                yield from _images(value)


def made(chart: Path = CHART) -> dict[Path, str]:
    """Return what the chart's generated files have to be."""
    described = (chart / "values.yaml").read_text(encoding="utf-8")
    version = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    examples = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.yaml"))]
    page = chart / "README.md"
    return {
        page: readme(page.read_text(encoding="utf-8"), described),
        chart / "images.txt": images(described, version, examples),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    for path, text in made(Path(given[0]) if given else CHART).items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
