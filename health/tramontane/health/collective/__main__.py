"""Run the collective test and leave with its verdict; see command.py."""

import sys

from tramontane.health.burnin.outcome import Outcome, Speaker, guarded, leave


def main() -> int:
    """Run the command; return its exit code."""
    speaker = Speaker("collective")

    def work() -> Outcome:
        # Not at the top: where numpy cannot be imported nothing is known of the blade.
        from tramontane.health.collective import command  # noqa: PLC0415

        return command.work(sys.argv[1:], speaker)

    return guarded(speaker, work)


if __name__ == "__main__":
    leave(main)
