"""Fill the cache with the real model: `python -m tramontane.lab.realmodel`."""

import sys

from tramontane.lab.paths import LabError
from tramontane.lab.realmodel.build import build, say


def main() -> int:
    """Build, and say where it is."""
    try:
        place = build()
    except LabError as error:
        say(str(error))
        return 1
    say(f"SmolLM2-135M, llama-server, llama-cpp-python and openai are in {place.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
