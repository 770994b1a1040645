"""Options that several commands share: the same word everywhere, with the same meaning.

Rules of this file: parsing only, so that what reaches a command is right or was refused with a
sentence. Nothing that is slow to import stands at the top.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from evener.cli.group import did_you_mean
from evener.config.schema import SCHEMA

if TYPE_CHECKING:
    from evener.config.schema import Key
    from evener.config.settings import Settings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_SETTINGS: Final = "evener.settings"


class Option(click.Option):
    """An option that stands under a heading of its own in the help, and may be a setting."""

    def __init__(
        self, *args: Any, section: str = "Options", key: Key | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.section = section
        self.key = key

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        # What names the command (EVENER_UP_PORT) is nearer than what names the section.
        if self.key is not None and self.key.in_environment and ctx.auto_envvar_prefix:
            nearest = os.environ.get(f"{ctx.auto_envvar_prefix}_{self.name}".upper())
            if nearest:
                return nearest
        return super().resolve_envvar_value(ctx)

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, click.core.ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        if self.key is not None and source is click.core.ParameterSource.DEFAULT:
            said = settings_of(ctx).from_file(self.key)
            if said is not None:
                # As written, so that click reads it as it reads a flag; a list is one already.
                written = said.value if self.multiple else said.raw
                return written, click.core.ParameterSource.DEFAULT_MAP
        return value, source


class AppArgument(click.Argument):
    """The app of workers, which a variable or a file may name as well."""

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, click.core.ParameterSource]:
        value, source = super().consume_value(ctx, opts)
        if source is click.core.ParameterSource.DEFAULT:
            said = settings_of(ctx).find("worker.app")
            if said is not None:
                return said.value, click.core.ParameterSource.DEFAULT_MAP
        return value, source


def app_argument(*, required: bool, metavar: str) -> Callable[[Decorated], Decorated]:
    """`module:attribute`."""
    return click.argument("app", cls=AppArgument, required=required, metavar=metavar)


def settings_of(ctx: click.Context) -> Settings:
    """The settings of this call of the command, read once. Raises `ConfigError`."""
    from evener.config import settings

    found: Settings | None = ctx.meta.get(_SETTINGS)
    if found is None:
        found = ctx.meta[_SETTINGS] = settings()
    return found


def option(
    *names: str, section: str = "Options", key: str | None = None, **settings: Any
) -> Callable[[Decorated], Decorated]:
    """`click.option` that shows its default, and its environment variable if it names one.

    Every other option has a variable too, by its command and name: `EVENER_UP_PORT`. Flags that
    change what is printed or permitted have none: they hold where they are typed. `key` names a
    setting of the schema: help, default and variables are its own, and a file may give its value.
    """
    flag = bool(settings.get("is_flag"))
    if key is not None:
        known = settings["key"] = SCHEMA[key]
        settings.setdefault("help", known.help)
        settings.setdefault("envvar", list(known.variables) or None)
        settings.setdefault("show_envvar", bool(known.short))
        if known.otherwise:
            settings.setdefault("show_default", known.otherwise)
        elif not flag:
            settings.setdefault("default", known.default)
    settings.setdefault("show_default", not flag)
    settings.setdefault("show_envvar", "envvar" in settings)
    settings.setdefault("allow_from_autoenv", not flag)
    return click.option(*names, cls=Option, section=section, **settings)


# --- Types of values ------------------------------------------------------------------------------


if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
    _Text = click.ParamType[str]
else:
    _Seconds = _Text = click.ParamType  # not generic before click 8.5


class DurationType(_Seconds):
    """`90s`, `5m`, `250ms`, or a number of seconds; becomes seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from evener.options import parse_duration
        from evener_wire.errors import UsageError

        try:
            return parse_duration("", float(value) if _is_number(value) else value)
        except UsageError:
            self.fail(f'"{value}" is not a duration; write 90s, 5m, 2h or 250ms', param, ctx)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


class AddressType(_Text):
    """`tcp://host:port`; `host:port` and `host` are completed."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from evener.discovery import check_address
        from evener_wire.errors import UsageError

        try:
            return check_address(str(value), "")
        except UsageError as error:
            self.fail(str(error).strip(), param, ctx)


class WorkersType(click.IntRange):
    """A number of workers, or `auto`, which becomes 0: the agent counts the usable CPUs."""

    def __init__(self) -> None:
        super().__init__(1, 4_096)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return 0
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f'"{value}" is neither a number from 1 to {self.max:,} nor auto', param, ctx)


class ChoiceType(click.Choice[str]):
    """One of some words; a word that is none of them gets the closest one named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            hint = did_you_mean(str(value), list(self.choices))
            self.fail(f'"{value}" is none of {", ".join(self.choices)}.{hint}', param, ctx)
        return str(value)


DURATION: Final = DurationType()
WORKERS: Final = WorkersType()
ADDRESS: Final = AddressType()


# --- Shared options -------------------------------------------------------------------------------

broker_option = option(
    "--broker",
    "-b",
    key="client.broker",
    type=ADDRESS,
    metavar="tcp://HOST:PORT",
    section="Connection",
)

connect_option = option(
    "--connect-timeout",
    key="client.connect_timeout",
    type=DURATION,
    metavar="DURATION",
    section="Connection",
)

json_option = option("--json", "as_json", is_flag=True, help="Print JSON.")


def listen_options(function: Decorated) -> Decorated:
    """Where a broker listens."""
    section = "Network"
    for decorate in (
        option(
            "--insecure",
            key="broker.insecure",
            is_flag=True,
            section=section,
        ),
        option(
            "--port",
            "-p",
            key="broker.port",
            type=click.IntRange(0, 65_535),
            metavar="PORT",
            section=section,
        ),
        option(
            "--host",
            key="broker.host",
            metavar="ADDRESS",
            section=section,
        ),
    ):
        function = decorate(function)
    return function


def worker_options(function: Decorated) -> Decorated:
    """How an agent runs its workers."""
    section = "Workers"
    for decorate in (
        option(
            "--stop-timeout",
            key="worker.stop_timeout",
            type=DURATION,
            metavar="DURATION",
            section=section,
        ),
        option(
            "--start-timeout",
            key="worker.start_timeout",
            type=DURATION,
            metavar="DURATION",
            section=section,
        ),
        option("--drain", key="worker.drain", type=DURATION, metavar="DURATION", section=section),
        option("--name", key="worker.name", metavar="NAME", section=section),
        option(
            "--queue",
            "-q",
            "queues",
            key="worker.queues",
            multiple=True,
            metavar="QUEUE",
            section=section,
        ),
        option(
            "--workers",
            "-n",
            key="worker.workers",
            type=WORKERS,
            metavar="N",
            help="Number of worker processes, or auto.",
            section=section,
        ),
    ):
        function = decorate(function)
    return function


def log_options(function: Decorated) -> Decorated:
    """How a long-running command speaks."""
    section = "Logging"
    for decorate in (
        option(
            "--quiet",
            key="log.quiet",
            is_flag=True,
            section=section,
        ),
        option(
            "--log-format",
            key="log.format",
            type=ChoiceType(["auto", "short", "plain", "json"]),
            section=section,
        ),
        option(
            "--log-level",
            "-l",
            key="log.level",
            type=ChoiceType(["debug", "info", "warning", "error"]),
            section=section,
        ),
    ):
        function = decorate(function)
    return function


def refuse_open_host(host: str, insecure: bool) -> None:
    """Refuse an address that other machines reach, unless somebody typed that they want that."""
    from evener_broker.server import refuse_open_host as refuse
    from evener_wire.errors import UsageError

    try:
        refuse(host, insecure)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
