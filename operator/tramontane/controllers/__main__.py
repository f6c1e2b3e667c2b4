"""Start the operator: `python -m tramontane.controllers`.

Every replica keeps warm caches; the one that holds the Lease acts. Losing it ends the process.
"""

from functools import partial

import click

from tramontane.controllers.app import serve
from tramontane.kube.process import Checks, ProcessOptions, process_options, run


@click.command()
@process_options
def main(options: ProcessOptions) -> None:
    """Turn NodePools into blades, and TrainingJobs into gangs and pods."""
    readiness = Checks()
    run(partial(serve, options, readiness), options, readiness)


if __name__ == "__main__":
    main()
