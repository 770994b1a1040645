"""`evener config`: what holds and why, whether a file is right, and a file to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from evener.cli.group import COMMANDS, Command, config_option
from evener.cli.options import json_option, settings_of
from evener.cli.output import clean, print_json, print_table
from evener.config.schema import SCHEMA, SECTIONS, Key

if TYPE_CHECKING:
    from evener.config.settings import Settings

_WIDTH: Final = 90


@click.group(
    "config",
    help=f"""{COMMANDS["config"].summary}

    A setting comes from the flag of a command, else from the environment, else from the file, else
    it has its default. The file is that of --config or EVENER_CONFIG, else the first of
    ./evener.toml, [tool.evener] in ./pyproject.toml, and ~/.config/evener/config.toml.

    \b
    Examples:
      evener config show
      evener config validate evener.toml
      evener config init
    """,
)
def command() -> None:
    """See `help`."""


# --- show -----------------------------------------------------------------------------------------


@command.command(
    "show",
    cls=Command,
    help="Show every setting with its value, and where that comes from.",
    examples=["evener config show", "evener config show broker", "evener config show --json"],
)
@click.argument("section", required=False, type=click.Choice(list(SECTIONS)), metavar="[SECTION]")
@json_option
@click.pass_context
def show(ctx: click.Context, section: str | None, as_json: bool) -> None:
    found = settings_of(ctx)
    keys = [key for key in SCHEMA.values() if section in (None, key.section)]
    file = str(found.file.path) if found.file is not None else None
    if as_json:
        print_json({"file": file, "settings": [_facts(key, found) for key in keys]})
        return
    click.echo(f"file: {clean(file) if file else 'none'}")
    rows = [_row(key, found) for key in keys]
    print_table(["setting", "value", "source"], rows)


def _row(key: Key, found: Settings) -> tuple[str, str, str]:
    setting = found.of(key)
    return key.path, key.otherwise if setting.raw is None else _written(setting.raw), setting.source


def _written(raw: Any) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, list):
        return ", ".join(map(str, cast("list[object]", raw)))
    return str(raw)


def _facts(key: Key, found: Settings) -> dict[str, object]:
    setting = found.of(key)
    return {
        "setting": key.path,
        "value": setting.raw,
        "source": setting.source,
        "default": key.default,
        "variables": list(key.variables),
    }


# --- validate -------------------------------------------------------------------------------------


@command.command(
    "validate",
    cls=Command,
    help="Check a file; exit code 78 if anything is wrong with it. Without FILE the one in use.",
    examples=["evener config validate", "evener config validate deploy/evener.toml"],
)
@click.argument("file", required=False, metavar="[FILE]")
@click.pass_context
def validate(ctx: click.Context, file: str | None) -> None:
    from evener.config.files import read

    used = read(Path(file)) if file else settings_of(ctx).file
    if used is None:
        raise click.UsageError("there is no configuration file here: name one")
    count = len(used.values)
    click.echo(f"{clean(str(used.path))}: {count} {'setting' if count == 1 else 'settings'}, ok")


# --- init -----------------------------------------------------------------------------------------


@command.command(
    "init",
    cls=Command,
    help="Write a file with every setting in it, each as a comment. FILE - prints it.",
    examples=["evener config init", "evener config init - > deploy/evener.toml"],
)
@click.argument("file", default="evener.toml", metavar="[FILE]")
def init(file: str) -> None:
    if file == "-":
        click.echo(example(), nl=False)
        return
    try:
        with Path(file).open("x", encoding="utf-8") as new:
            new.write(example())
    except FileExistsError:
        raise click.UsageError(f"{file} is there already; it is not overwritten") from None
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from error
    click.echo(f"{file}: every setting with its default, as a comment")


def example() -> str:
    """A file in which everything is a comment."""
    import textwrap

    lines = ["# Settings of evener. Environment and flags stand above them: evener config show"]
    for section, meaning in SECTIONS.items():
        lines += ["", f"# {meaning.replace('`', '')}", f"[{section}]"]
        for key in SCHEMA.values():
            if key.section != section:
                continue
            text = textwrap.wrap(key.help, _WIDTH, initial_indent="# ", subsequent_indent="# ")
            lines += ["", *text]
            if key.otherwise:
                lines.append(f"# Unless set: {key.otherwise}.")
            lines.append(f"# {key.name} = {written(key)}")
    return "\n".join(lines) + "\n"


def written(key: Key) -> str:
    """The default as it stands in a file, or an example."""
    if key.default is None:
        return key.kind.example
    bare = isinstance(key.kind.read(key.default), bool)
    return key.default if bare else f'"{key.default}"'


for _command in (show, validate):
    _command.params.append(config_option())
