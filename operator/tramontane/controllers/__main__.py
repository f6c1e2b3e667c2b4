"""Start the operator: `python -m tramontane.controllers`.

Every replica keeps warm caches; the one that holds the Lease acts. Losing it ends the process.

With `--dry-run` it watches every pool as one of mode DryRun: it says what it would quarantine, and
takes no blade out for a fault, drains none and repairs none. Jobs and deployments run as ever.
"""

from functools import partial

import click

from tramontane.controllers.app import say_little, serve
from tramontane.kube.metrics import Detail, announce
from tramontane.kube.process import Checks, ProcessOptions, process_options, run


@click.command()
@click.option(
    "--dry-run",
    is_flag=True,
    help="Treat every pool as one of remediation.mode DryRun: say, and take no blade out.",
)
@process_options
def main(options: ProcessOptions, *, dry_run: bool) -> None:
    """Turn NodePools into blades, and TrainingJobs into gangs and pods."""
    readiness = Checks()
    announce("operator")
    if options.metrics_detail is Detail.LOW:
        say_little()
    serving = partial(serve, options, readiness, dry_run=dry_run)
    run(serving, options, readiness, large_scrapes=True)


if __name__ == "__main__":
    main()
