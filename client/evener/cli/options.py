"""Options that several commands share: the same word everywhere, with the same meaning.

Rules of this file: parsing only, so that what reaches a command is right or was refused with a
sentence. Nothing that is slow to import stands at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from evener.cli.group import did_you_mean

PORT_DEFAULT: Final = 7450

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Option(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def option(
    *names: str, section: str = "Options", **settings: Any
) -> Callable[[Decorated], Decorated]:
    """`click.option` that shows its default, and its environment variable if it names one.

    Every other option has a variable too, by its command and name: `EVENER_UP_PORT`. Flags that
    change what is printed or permitted have none: they hold where they are typed.
    """
    flag = bool(settings.get("is_flag"))
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
        text = str(value)
        scheme, colon, rest = text.partition("://")
        if not colon:
            scheme, rest = "tcp", text
        if scheme == "ipc" and rest:
            return f"ipc://{rest}"
        host, port = _host_and_port(rest)
        if scheme != "tcp" or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            self.fail(f'"{text}" is not an address; write tcp://host:{PORT_DEFAULT}', param, ctx)
        return f"tcp://{host}:{port}"


def _host_and_port(rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, _, port = rest.partition("]")
        return f"{host}]", port.removeprefix(":") or str(PORT_DEFAULT)
    host, _, port = rest.partition(":")
    return host, port or str(PORT_DEFAULT)


class WorkersType(click.IntRange):
    """A number of workers, or `auto`, which becomes 0: the agent counts the usable CPUs."""

    def __init__(self) -> None:
        super().__init__(1, 4_096)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return 0 if value == "auto" else super().convert(value, param, ctx)


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
    type=ADDRESS,
    envvar="EVENER_BROKER",
    metavar="tcp://HOST:PORT",
    show_default="the broker that runs on this host",
    help="Address of the broker.",
    section="Connection",
)

connect_option = option(
    "--connect-timeout",
    type=DURATION,
    default="5s",
    metavar="DURATION",
    help="How long to look for the broker.",
    section="Connection",
)

json_option = option("--json", "as_json", is_flag=True, help="Print JSON.")


def listen_options(function: Decorated) -> Decorated:
    """Where a broker listens."""
    section = "Network"
    for decorate in (
        option(
            "--insecure",
            is_flag=True,
            help="Accept other machines without encryption and keys: whoever reaches the port can "
            "run code on the workers.",
            section=section,
        ),
        option(
            "--port",
            "-p",
            type=click.IntRange(0, 65_535),
            metavar="PORT",
            show_default=str(PORT_DEFAULT),
            help="Port to listen on; 0 takes any free one.",
            section=section,
        ),
        option(
            "--host",
            default="127.0.0.1",
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 for all of this host's.",
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
            "--drain",
            type=DURATION,
            default="30s",
            metavar="DURATION",
            help="At Ctrl-C or SIGTERM, how long running tasks may take to end.",
            section=section,
        ),
        option(
            "--name",
            metavar="NAME",
            show_default="the host's name",
            help="Name of this host in lists and logs.",
            section=section,
        ),
        option(
            "--queue",
            "-q",
            "queues",
            multiple=True,
            metavar="QUEUE",
            show_default="default",
            help="Queue to serve; may be given several times.",
            section=section,
        ),
        option(
            "--workers",
            "-n",
            type=WORKERS,
            metavar="N",
            show_default="EVENER_WORKERS, else one for each usable CPU",
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
            is_flag=True,
            help="No banner, and only warnings and errors.",
            section=section,
        ),
        option(
            "--log-format",
            type=ChoiceType(["auto", "short", "plain", "json"]),
            default="auto",
            envvar="EVENER_LOG_FORMAT",
            help="auto is short on a terminal and plain elsewhere.",
            section=section,
        ),
        option(
            "--log-level",
            "-l",
            type=ChoiceType(["debug", "info", "warning", "error"]),
            default="info",
            envvar="EVENER_LOG_LEVEL",
            help="The least level to log.",
            section=section,
        ),
    ):
        function = decorate(function)
    return function


def refuse_open_host(host: str, insecure: bool) -> None:
    """Refuse an address that other machines reach, unless somebody typed that they want that."""
    if insecure or host in ("localhost", "::1") or host.startswith("127."):
        return
    raise click.UsageError(
        f"--host {host} lets other machines connect, and this version has neither encryption nor "
        "keys (a later one will): whoever reaches the port can run code on the workers. Keep "
        "127.0.0.1 and use a tunnel (ssh -L), or add --insecure where you trust the whole network"
    )
