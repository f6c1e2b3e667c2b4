"""Write the reference: `python -m tramontane.lab.manual [DIR]`; DIR is docs/reference if absent."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tramontane.lab.manual.pages import FOLDER, stale, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(prog="tramontane.lab.manual", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    options = parser.parse_args(arguments)
    if not options.check:
        write(options.folder)
        return 0
    different = stale(options.folder)
    for path in different:
        sys.stderr.write(
            f"manual: {path} must be what the code says (got other text or no file);"
            " run `make generate`\n"
        )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
