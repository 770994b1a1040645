"""The page of the reference on the command line: every command and option, as click has them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from evener.cli import exits
from evener.cli.group import COMMANDS, cli


def commands_page() -> str:
    """`commands.md`."""
    top = click.Context(cli, info_name="evener", **cli.context_settings)
    parts = [
        "# The `evener` command\n",
        "`evener --help` and `evener COMMAND --help` show the same.\n",
        "| | |\n|---|---|",
        *(f"| [`{name}`](#{name}) | {entry.summary} |" for name, entry in COMMANDS.items()),
        "",
        "Exit codes, of all of them:\n",
        "| code | meaning |\n|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in exits.MEANINGS),
        "",
    ]
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        parts += _section(command, name, top)
    return "\n".join(parts)


def _section(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    ctx = click.Context(command, info_name=name, parent=parent)
    path = ctx.command_path.removeprefix("evener ")
    yield f'## <a id="{path.replace(" ", "-")}"></a>`{path}`\n'
    yield f"```\n{' '.join([ctx.command_path, *command.collect_usage_pieces(ctx)])}\n```\n"
    # Click keeps the lines of a paragraph that follows this sign, as a code block does.
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.removeprefix("\b\n")
        yield (paragraph if kept == paragraph else f"```\n{kept}\n```") + "\n"
    examples = getattr(command, "examples", ())
    if examples:
        yield "\n".join(["```bash", *examples, "```\n"])
    yield from _options(command, ctx)
    if isinstance(command, click.Group):
        for inner in command.list_commands(ctx):
            found = command.get_command(ctx, inner)
            assert found is not None
            yield from _section(found, inner, ctx)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and isinstance(parameter, click.Option):
            section = getattr(parameter, "section", "Other options")
            shown, meaning = (text.replace("|", "\\|") for text in record)
            rows.setdefault(section, []).append(f"| `{shown}` | {meaning} |")
    for section, lines in rows.items():
        yield "\n".join([f"| {section} | |", "|---|---|", *lines, ""])
