"""The `tramontane` command: groups of commands and single ones, imported when they are used.

Nothing but click is imported here, so that `--help` and completion answer at once.
"""

import difflib
import importlib
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from tramontane.api.errors import TramontaneError
from tramontane.cli import options

# How kubectl calls its plugin, and what asks the command for completions.
PLUGIN: Final = "kubectl-tramontane"
COMPLETE_VAR: Final = "_TRAMONTANE_COMPLETE"

# Heading → name → (module:attribute, help). The help stands here so that listing imports nothing.
_MEMBERS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Look": {
        "fleet": (
            "tramontane.cli.hall:fleet",
            "Show pools, racks or blades at a glance, and what is wrong first.",
        ),
        "top": (
            "tramontane.cli.top:top",
            "Watch pools, jobs, the queue and the last events; q leaves.",
        ),
        "blade": (
            "tramontane.cli.blades:blade",
            "Look at blades one by one.",
        ),
        "pool": (
            "tramontane.cli.pools:pool",
            "Look at pools: blades by state, tranches, spares, breaker.",
        ),
    },
    "Ask": {
        "why": (
            "tramontane.cli.queue:why",
            "Say why a gang waits, until when, and what would let it run.",
        ),
        "timeline": (
            "tramontane.cli.timeline:timeline",
            "Say what happened to a job, a deployment, a gang or a blade, line by line.",
        ),
        "explain": (
            "tramontane.cli.explain:explain",
            "Say what a state means: its evidence, what it blocks, what ends it.",
        ),
        "simulate": (
            "tramontane.cli.queue:simulate",
            "Say where a job would go if it were submitted now; or play a whole hall.",
        ),
        "plan": (
            "tramontane.cli.plan:plan",
            "Say how a model is laid out over GPUs, and whether it fits; needs no cluster.",
        ),
        "snapshot": (
            "tramontane.cli.queue:snapshot",
            "Save what the scheduler decides upon, without secrets.",
        ),
        "replay": (
            "tramontane.cli.queue:replay",
            "Decide again on a saved snapshot: the same plan, byte for byte.",
        ),
    },
    "Change": {
        "quarantine": (
            "tramontane.cli.blades:quarantine",
            "Take blades out of work.",
        ),
        "release": (
            "tramontane.cli.blades:release",
            "Take blades back: ends a hold, a quarantine, a failed test or an RMA.",
        ),
        "breaker": (
            "tramontane.cli.breaker:breaker",
            "Look at the breaker of a pool, and close it.",
        ),
    },
    "More": {
        "completion": (
            "tramontane.cli.completion:completion",
            "Print what makes your shell complete this command.",
        ),
        "doctor": (
            "tramontane.cli.doctor:doctor",
            "Say whether this cluster is fit: versions, kinds, roles, agents, clocks, Prometheus.",
        ),
        "lab": (
            "tramontane.lab.commands:lab",
            "Run a real control plane with simulated blades on this machine.",
        ),
        "support": (
            "tramontane.cli.support:support",
            "Pack what others need to help, with secrets left out.",
        ),
        "version": (
            "tramontane.cli.version:version",
            "Say which version this is, and which run in the cluster.",
        ),
        "weights": (
            "tramontane.cli.weights:weights",
            "Digest, sign and check directories of weights.",
        ),
    },
}
_BY_NAME: Final = {name: one for group in _MEMBERS.values() for name, one in group.items()}
_ALIKE: Final = 0.6
# What the container image leaves out.
_LAB: Final = "tramontane.lab"


class LazyGroup(click.Group):
    """A group whose members are imported when they are called by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all members."""
        return sorted({*super().list_commands(ctx), *_BY_NAME})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a member, importing its module."""
        if cmd_name not in _BY_NAME:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _BY_NAME[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return what is called, or say which member was probably meant."""
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=_ALIKE)
            hint = f'did you mean "{near[0]}"?' if near else "`--help` lists all"
            ctx.fail(f'the command must be one of ours (got "{name}"); {hint}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of members without importing them."""
        del ctx
        # Every list begins its second column at the same place.
        width = max(map(len, _BY_NAME))
        for heading, members in _MEMBERS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(f"{name:<{width}}", text) for name, (_, text) in members.items()]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the members that begin so, without importing them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=_BY_NAME[name][1])
            for name in sorted(_BY_NAME)
            if name.startswith(incomplete)
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a member; what Tramontane raises on purpose is for people to read, not a trace."""
        try:
            return super().invoke(ctx)
        except TramontaneError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(_LAB):
                raise
            raise click.ClickException(
                "this command must have the lab (got an installation without it, as in the"
                " container image); install the wheel of the air-gap bundle, or use a checkout"
            ) from error

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context; as a plugin it calls itself what the person typed."""
        if info_name == PLUGIN:
            info_name = "kubectl tramontane"
        return super().make_context(info_name, args, parent, **extra)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, or yes; 1 it failed; 2 asked wrongly; 3 the answer is no.",
)
@click.version_option(package_name="tramontane")
@options.no_color
def main() -> None:
    """Healthy blades, gangs that keep training: GPU compute that its owner controls.

    Objects are named KIND/NAME, as tj/llama, inf/claims, blade/gpu-0417, gang/llama, np/paris-a.
    """
