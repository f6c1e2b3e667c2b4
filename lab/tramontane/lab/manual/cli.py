"""Write the reference of the `tramontane` command, by walking what is installed under that name.

The command is found by its entry point: the lab lies below it and may not import it.
"""

import textwrap
from collections.abc import Iterator
from importlib import metadata

import click

from tramontane.lab.manual.markdown import cell, code, fenced, page, table

_OPENING = """\
The same commands are there as `kubectl tramontane`. Objects are named `kind/name`, with the short
names `tj`, `inf`, `np`, `blade`, `gang`. What changes something shows what it would do and asks;
without a terminal it needs `--yes`.

| Exit status | Meaning |
|---|---|
| 0 | done, or the answer is yes |
| 1 | an error: the message says what must be, what is, and what to do |
| 2 | wrong use, or a change that nobody confirmed |
| 3 | the answer is no: it waits, it does not fit, something is not as it must be |"""


def commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """Yield the contexts of a command and of all below it, in the order of their help."""
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is None or below.hidden:
                continue
            yield from commands(below, click.Context(below, parent=context, info_name=name))


def _usage(context: click.Context) -> str:
    pieces = context.command.collect_usage_pieces(context)
    return " ".join([context.command_path, *pieces])


def _option(param: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    """Return an option's row; arguments are in the usage line, and all have `--help`."""
    if not isinstance(param, click.Option) or "--help" in param.opts:
        return None
    record = param.get_help_record(context)
    return (code(record[0]), cell(record[1])) if record else None


def _epilog(context: click.Context) -> str:
    """Return what stands below the options: examples, lists; a command may write it itself."""
    formatter = click.HelpFormatter(width=100)
    context.command.format_epilog(context, formatter)
    return textwrap.dedent(formatter.getvalue()).strip("\n")


def section(context: click.Context) -> str:
    """Return the part of one command."""
    command = context.command
    depth = context.command_path.count(" ") + 1
    text = "\n\n".join(
        " ".join(part.replace("\b", "").split()) for part in (command.help or "").split("\n\n")
    )
    rows = [row for param in command.get_params(context) if (row := _option(param, context))]
    parts = [
        f"{'#' * min(depth, 4)} {context.command_path}",
        text.replace("<", "&lt;").replace(">", "&gt;"),
        fenced(_usage(context)),
        table(("Option", "What it does"), rows) if rows else "",
    ]
    if epilog := _epilog(context):
        parts.append(fenced(epilog))
    return "\n\n".join(part for part in parts if part)


def main_command() -> click.Command:
    """Return the command that is installed as `tramontane`."""
    (entry,) = metadata.entry_points(group="console_scripts", name="tramontane")
    found: click.Command = entry.load()
    return found


def render(command: click.Command | None = None) -> str:
    """Return the page."""
    top = command or main_command()
    root = click.Context(top, info_name="tramontane")
    first, *rest = [section(context) for context in commands(top, root)]
    return page("The command line", _OPENING, first.partition("\n\n")[2], *rest)
