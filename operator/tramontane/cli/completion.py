"""`tramontane completion`: what makes a shell complete this command.

kubectl completes plugins by a program `kubectl_complete-NAME` on the PATH; it is installed with
`kubectl-tramontane`, see `complete`.
"""

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="\b\n"
    "Examples:\n"
    "  bash:  echo 'source <(tramontane completion bash)' >> ~/.bashrc\n"
    "  zsh:   echo 'source <(tramontane completion zsh)' >> ~/.zshrc\n"
    "  fish:  tramontane completion fish > ~/.config/fish/completions/tramontane.fish"
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(*, shell: str) -> None:
    """Print what makes your shell complete this command: verbs, options, names of objects.

    `kubectl tramontane` completes by itself where kubectl's own completion is set up.
    """
    from tramontane.cli.main import COMPLETE_VAR, main  # noqa: PLC0415

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "tramontane", COMPLETE_VAR).source(), nl=False)
