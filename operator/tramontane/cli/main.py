"""The `tramontane` command: groups of commands and single ones, imported when they are used.

Nothing but click is imported here, so that `--help` and completion answer at once.
"""

import importlib
from typing import Any

import click

from tramontane.api.errors import TramontaneError

# name → (module:attribute, help). The help stands here so that listing imports nothing.
_MEMBERS = {
    "blade": (
        "tramontane.cli.blades:blade",
        "Look at blades, hold them, release them.",
    ),
    "breaker": (
        "tramontane.cli.breaker:breaker",
        "Look at the breaker of a pool, and close it.",
    ),
    "lab": (
        "tramontane.lab.commands:lab",
        "Run a real control plane with simulated blades on this machine.",
    ),
    "plan": (
        "tramontane.cli.plan:plan",
        "Say how a model is laid out over GPUs, and whether it fits; needs no cluster.",
    ),
    "pool": (
        "tramontane.cli.pools:pool",
        "Look at pools: blades by state, tranches, spares, breaker.",
    ),
    "replay": (
        "tramontane.cli.queue:replay",
        "Decide again on a saved snapshot: the same plan, byte for byte.",
    ),
    "simulate": (
        "tramontane.cli.queue:simulate",
        "Say where a job would go if it were submitted now; or play a whole hall.",
    ),
    "snapshot": (
        "tramontane.cli.queue:snapshot",
        "Save what the scheduler decides upon, without secrets.",
    ),
    "weights": (
        "tramontane.cli.weights:weights",
        "Digest, sign and check directories of weights.",
    ),
    "why": (
        "tramontane.cli.queue:why",
        "Say why a gang waits, until when, and what would let it run.",
    ),
}


class LazyGroup(click.Group):
    """A group whose members are imported when they are called by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all members."""
        return sorted({*super().list_commands(ctx), *_MEMBERS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a member, importing its module."""
        if cmd_name not in _MEMBERS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _MEMBERS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of members without importing them."""
        rows = [(name, _MEMBERS[name][1]) for name in self.list_commands(ctx) if name in _MEMBERS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a member; what Tramontane raises on purpose is for people to read, not a trace."""
        try:
            return super().invoke(ctx)
        except TramontaneError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tramontane")
def main() -> None:
    """Healthy blades, gangs that keep training: GPU compute that its owner controls."""
