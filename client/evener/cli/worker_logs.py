"""`evener logs`: what workers wrote, of one host or all, also of workers that have died since."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from evener.cli import exits
from evener.cli.connect import asked_broker, connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option, option
from evener.cli.output import clean, complain, print_json
from evener.cli.tasks import SHORT_ID, find, unknown
from evener.texts import plural

if TYPE_CHECKING:
    from evener.client import Client

# An agent keeps so many lines.
_TAIL_MAX: Final = 10_000

# The agent answers within 2 s, the broker gives up after 4 s and says so.
_WAIT_MS: Final = 2_000
_QUERY_S: Final = 8.0

# A client may have 32 questions open.
_FOLLOWED_MAX: Final = 24

# Answers that wait to be printed.
_ANSWERS_MAX: Final = 64

_PID_DIGITS: Final = 7
_DIGITS: Final = frozenset("0123456789abcdef")

_Line = Mapping[str, Any]


@click.command(
    "logs",
    cls=Command,
    help=f"""{COMMANDS["logs"].summary}

    TARGET is a host, host/pid, a worker as `evener ls workers` names it, a pid, or the id of a
    task, which may be cut; without it all hosts are asked. Each line has its time, worker and, if a
    task wrote it from Python, the beginning of the task's id. Each agent keeps the last 10,000
    lines, at most 4 MiB.
    """,
    examples=[
        "evener logs",
        "evener logs node-3 -f",
        "evener logs 7f3a90b1 --tail 1000",
        "evener logs node-3/4711 --json | jq -r .text",
    ],
)
@click.argument("target", required=False)
@option("--follow", "-f", is_flag=True, help="Go on with lines as they come, until Ctrl-C.")
@option(
    "--tail",
    "-n",
    type=click.IntRange(0, _TAIL_MAX),
    default=100,
    metavar="N",
    help="Begin with the last N lines.",
)
@json_option
@broker_option
@connect_option
def command(
    target: str | None,
    follow: bool,
    tail: int,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> int:
    with connected(broker, connect_timeout) as client:
        readers, filters = _readers(client, target)
        if follow and len(readers) > _FOLLOWED_MAX:
            text = f"{len(readers)} hosts are too many to follow at once ({_FOLLOWED_MAX})"
            raise click.UsageError(f"{text}: name one")
        reached, lines = 0, list[_Line]()
        for reader in readers:
            found = reader.try_read(tail=tail)
            reached += found is not None
            lines += found or ()
        if "task" in filters and not lines and not _is_task(client, filters["task"]):
            complain(f"{unknown(filters['task'])}; and no line of it is kept", "evener logs")
            return exits.FAILED
        lines.sort(key=lambda line: line["time_ms"])
        _show(lines[-tail:] if tail else (), as_json)
        if follow:
            for found in _follow(readers):
                _show(found, as_json)
    return exits.OK if reached or not readers else exits.FAILED


def _show(lines: Sequence[_Line], as_json: bool) -> None:
    for line in lines:
        if as_json:
            print_json(line)
        else:
            head = f"{line['time']} {line['worker']} {(line['task'] or '-')[:SHORT_ID]:<{SHORT_ID}}"
            click.echo(clean(f"{head} {line['text']}"))


# --- Whom to ask ----------------------------------------------------------------------------------


def _readers(client: Client, target: str | None) -> tuple[list[_Reader], dict[str, Any]]:
    rows = client.query("ls", kind="hosts", limit=1_000)["rows"]
    names = [row["name"] for row in rows if row["connected"]]
    # By its name an agent is found again when it was restarted, if there is one of that name.
    hosts = {
        row["name"] if names.count(row["name"]) == 1 else row["instance"]: row["name"]
        for row in rows
        if row["connected"]
    }
    chosen, filters = _meant(target or "", set(names))
    readers = [
        _Reader(client, key, name, filters)
        for key, name in hosts.items()
        if chosen in (None, key, name)
    ]
    if chosen is not None and not readers:
        known = ", ".join(sorted(set(names))) or "none is connected"
        raise click.ClickException(
            f'no host has the name "{chosen}" (there are: {known}), says {asked_broker()}'
        )
    return readers, filters


def _is_task(client: Client, beginning: str) -> bool:
    """Whether the broker knows a task, or several, whose id begins so."""
    try:
        return find(client, beginning) is not None
    except click.UsageError:
        return True


def _meant(target: str, names: set[str]) -> tuple[str | None, dict[str, Any]]:
    """The host, if one is meant, and which of its lines."""
    if not target:
        return None, {}
    task = target.rpartition("[")[2].removesuffix("]") if target.endswith("]") else target
    host, slash, pid = target.rpartition("/")
    if target in names:
        return target, {}
    if slash and pid.isdecimal():
        return host, {"pid": int(pid)}
    if target.isdecimal() and len(target) <= _PID_DIGITS:
        return None, {"pid": int(target)}
    if len(task) >= 4 and _DIGITS.issuperset(task):
        return None, {"task": task}
    host, colon, number = target.rpartition(":")
    if colon and number.isdecimal():
        return host, {"worker": target}
    return target, {}


# --- Asking ---------------------------------------------------------------------------------------


class _Reader:
    """Reads on where it was, from one host."""

    def __init__(self, client: Client, key: str, name: str, filters: Mapping[str, Any]) -> None:
        self._client = client
        self._host = key
        self.name = name
        self._filters = filters
        self._place: dict[str, Any] = {}
        self._failed = ""

    def try_read(self, **how: int) -> list[_Line] | None:
        """What there is to read; None, and a sentence the first time, if it cannot be asked."""
        from evener.errors import BrokerUnreachable, UsageError

        try:
            lines = self._read(how)
        except (UsageError, BrokerUnreachable) as error:
            if str(error) != self._failed:
                complain(str(error), "evener logs")
            self._failed = str(error)
            return None
        self._failed = ""
        return lines

    def _read(self, how: Mapping[str, int]) -> list[_Line]:
        lines: list[_Line] = []
        while True:
            wanted = {"tail": 0, **self._filters, **how, **self._place}
            answer = self._client.query("logs", query_timeout=_QUERY_S, host=self._host, **wanted)
            if self._place and answer["ring"] != self._place["ring"]:
                complain(f"the agent on {self.name} is another one now", "evener logs")
                self._place = {"ring": answer["ring"], "after": 0}
                continue
            self._place = {"ring": answer["ring"], "after": answer["after"]}
            lines += (self._line(line) for line in answer["lines"])
            if answer["lost"]:
                text = f"{plural(answer['lost'], 'line')} of {self.name} came before and"
                complain(f"{text} are not kept any longer", "evener logs")
            if not answer["more"]:
                return lines

    def _line(self, told: Sequence[Any]) -> _Line:
        time_ms, worker, pid, stream, task, text = told
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1_000))
        return {
            "time": f"{moment}.{time_ms % 1_000:03}Z",
            "time_ms": time_ms,
            "host": self.name,
            "worker": worker,
            "pid": pid,
            "stream": stream,
            "task": task or None,
            "text": text,
        }


def _follow(readers: Sequence[_Reader]) -> Iterator[list[_Line]]:
    """What comes, of all hosts at once, for ever."""
    from evener.errors import EvenerError

    answers: queue.Queue[list[_Line] | EvenerError] = queue.Queue(_ANSWERS_MAX)

    def read_on(reader: _Reader) -> None:
        while True:
            try:
                lines = reader.try_read(wait_ms=_WAIT_MS)
            except EvenerError as error:  # the client was closed
                answers.put(error)
                return
            if lines is None:
                time.sleep(1)
            elif lines:
                answers.put(lines)

    for reader in readers:
        threading.Thread(target=read_on, args=(reader,), daemon=True).start()
    while True:
        found = answers.get()
        if not isinstance(found, list):
            raise found
        yield found
