"""What the commands that take care of hosts and workers share: their options, and how they ask.

Rules of this file: a host is asked by the instance of its agent, so that two of one name are never
mixed up, and an agent that was started anew is not taken for the one before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from evener.cli.connect import asked_broker
from evener.cli.journal import SizeType
from evener.cli.options import DURATION, option

if TYPE_CHECKING:
    from evener.client import Client

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_LOOK_S: Final = 0.2
_TASKS_MAX: Final = 1_000_000_000


def care_options(function: Decorated) -> Decorated:
    """When a worker process is replaced by a new one."""
    section = "Care of workers"
    for decorate in (
        option(
            "--reload",
            key="worker.reload",
            is_flag=True,
            section=section,
        ),
        option(
            "--ping-timeout",
            key="worker.ping_timeout",
            type=DURATION,
            metavar="DURATION",
            section=section,
        ),
        option(
            "--max-worker-memory",
            key="worker.max_worker_memory",
            type=SizeType(),
            metavar="SIZE",
            section=section,
        ),
        option(
            "--max-worker-age",
            key="worker.max_worker_age",
            type=DURATION,
            metavar="DURATION",
            section=section,
        ),
        option(
            "--max-tasks-per-worker",
            key="worker.max_tasks_per_worker",
            type=click.IntRange(1, _TASKS_MAX),
            metavar="N",
            section=section,
        ),
    ):
        function = decorate(function)
    return function


def wait_option(*, default: bool, what: str) -> Callable[[Decorated], Decorated]:
    """Whether a command returns at once."""
    return option("--wait/--no-wait", default=default, show_default=True, help=what)


class Host(NamedTuple):
    """An agent: its name for people, its instance for questions."""

    name: str
    instance: str

    def ask(self, client: Client, what: str, **arguments: Any) -> dict[str, Any]:
        """The answer of the agent. Raises `UsageError` with its words, or the broker's."""
        answer: dict[str, Any] = client.query(what, host=self.instance, **arguments)
        return answer


def hosts(client: Client, name: str | None, *, every: bool = False) -> list[Host]:
    """The agent of this name or instance; the only one, if none is named; or all of them."""
    rows = client.query("ls", kind="hosts", limit=1_000)["rows"]
    there = [Host(row["name"], row["instance"]) for row in rows if row.get("connected")]
    if name is not None:
        found = [host for host in there if name in (host.name, host.instance)]
        if not found:
            known = ", ".join(sorted({host.name for host in there})) or "none"
            raise click.ClickException(
                f'no host "{name}" is connected to {asked_broker()}; there is {known}'
            )
        if len(found) > 1:
            shown = ", ".join(host.instance for host in found)
            raise click.ClickException(
                f'{len(found)} agents have the name "{name}"; give the instance: {shown}'
            )
        return found
    if not there:
        raise click.ClickException(f"no host is connected to {asked_broker()}")
    if len(there) > 1 and not every:
        names = ", ".join(host.name for host in there)
        raise click.UsageError(f"which host? There are {names}; or say --all")
    return there


def watched(
    client: Client, host: Host, first: Mapping[str, Any], timeout: float | None = None
) -> Iterator[Mapping[str, Any]]:
    """How it stands with a host, again and again, until nobody asks or the time is over."""
    ends = None if timeout is None else time.monotonic() + timeout
    yield first
    while ends is None or time.monotonic() < ends:
        time.sleep(_LOOK_S)
        yield host.ask(client, "care")


class Progress:
    """One line on a terminal that is written over; nothing elsewhere."""

    def __init__(self, quiet: bool = False) -> None:
        self._shown = "" if sys.stderr.isatty() and not quiet else None

    def show(self, text: str) -> None:
        """The state now."""
        if self._shown is not None and text != self._shown:
            self._shown = text
            click.echo(f"\r\033[K{text}", err=True, nl=False)

    def end(self) -> None:
        """Make place for what is printed next."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)
            self._shown = ""
