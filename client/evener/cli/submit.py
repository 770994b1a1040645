"""`evener submit`: one task, or one for each line of stdin."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command, did_you_mean
from evener.cli.options import DURATION, broker_option, connect_option, json_option, option
from evener.cli.outcome import outcome, show_failure, show_outcome
from evener.cli.output import print_json

if TYPE_CHECKING:
    from evener.future import Future
    from evener.outputs import OutputLine
    from evener.reporting import Progress

_NEGATIVE = re.compile(r"-\.?\d")
_MARK: Final = "\x00"
_WAITING_MAX: Final = 10_000  # results that may be open while lines are still read


class SubmitCommand(Command):
    """Lets negative numbers be arguments, though they begin as options do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        marked = [_MARK + arg if _NEGATIVE.match(arg) else arg for arg in args]
        return super().parse_args(ctx, marked)


@click.command(
    "submit",
    cls=SubmitCommand,
    help=f"""{COMMANDS["submit"].summary}

    FUNCTION is the name that workers know (demo.add), or module:function, which is imported here.
    Each argument is read as JSON, and taken as text where it is none: 1, true, [1, 2], hello.

    Without --wait the task's id is printed once the broker has accepted it. With --wait its result
    is printed, and the exit code tells how it ended: 0 done, 1 failed, 75 timed out. --timeout is
    for the run, not for the wait: --expires bounds the wait for a worker, --deadline all of it.
    Ctrl-C ends the wait, and leaves the task.
    """,
    examples=[
        "evener submit demo.add 1 2 --wait",
        "evener submit math:sqrt 2 --wait --json",
        "seq 100 | evener submit demo.fib --stdin --wait",
    ],
)
@click.argument("function", metavar="FUNCTION")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@option("--wait", "-w", is_flag=True, help="Wait, and print the result.")
@option("--progress", is_flag=True, help="With --wait: show on stderr how far tasks say they are.")
@option("--forward-output", is_flag=True, help="With --wait: show on stderr what tasks write.")
@option(
    "--stdin",
    "from_stdin",
    is_flag=True,
    help="A task for each line of stdin: JSON; a list holds several arguments.",
)
@json_option
@option("--queue", "-q", metavar="QUEUE", section="Task", help="Queue to wait in.")
@option(
    "--priority", type=click.IntRange(0, 9), metavar="0-9", section="Task", help="9 goes first."
)
@option("--retries", type=click.IntRange(0), section="Task", help="More tries after an exception.")
@option(
    "--timeout",
    type=DURATION,
    metavar="DURATION",
    section="Task",
    help="Run time of one attempt; waiting does not count.",
)
@option(
    "--expires", type=DURATION, metavar="DURATION", section="Task", help="Wait for the first start."
)
@option(
    "--deadline",
    type=DURATION,
    metavar="DURATION",
    section="Task",
    help="From now to the end, whatever happens between.",
)
@broker_option
@connect_option
def command(
    function: str,
    arguments: tuple[str, ...],
    wait: bool,
    progress: bool,
    forward_output: bool,
    from_stdin: bool,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
    **options: Any,
) -> int:
    if from_stdin and arguments:
        raise click.UsageError("--stdin takes the arguments from stdin, so give none here")
    if progress and not wait:
        raise click.UsageError("--progress goes with --wait; without it see evener why ID")
    if forward_output and not wait:
        raise click.UsageError("--forward-output goes with --wait; without it see evener logs ID")
    from evener.cli import logs

    logs.set_up("client", "warning")  # a queue that nobody serves is worth a line
    wanted = {name: value for name, value in options.items() if value is not None}
    if forward_output:
        wanted["forward_output"] = True
    target = _target(function)
    calls = _lines() if from_stdin else iter([[_value(text) for text in arguments]])
    code = exits.OK
    with connected(broker, connect_timeout) as client:
        client.on_output(_show_line)
        shipped: list[Future[Any]] = []
        for arguments_of_one in calls:
            shipped.append(client.function(target, **wanted).submit(*arguments_of_one))
            if progress:
                _follow(shipped[-1])
            if wait and len(shipped) == _WAITING_MAX:
                code = max(code, show_outcome(shipped.pop(0), as_json, "evener submit"))
        if wait:
            codes = [show_outcome(future, as_json, "evener submit") for future in shipped]
            return max([code, *codes])
    return max([code, *(_show_accepted(future, as_json) for future in shipped)])


# --- What is called with what ---------------------------------------------------------------------


def _target(function: str) -> Any:
    """A name that workers know, or the function itself if a module is named."""
    where, colon, name = function.rpartition(":")
    if not colon:
        return function
    from evener.errors import LoadError
    from evener.loading import load_app

    try:
        app = load_app(where)
    except LoadError:
        if where not in sys.modules:
            raise
        app = None  # a module without an app: its functions are sent by value
    module = sys.modules.get(where)
    found = getattr(module, name, None)
    if found is None and app is not None:
        found = app.functions.get(f"{app.name}.{name}")
    if callable(found):
        return found
    known = [key for key, value in vars(module).items() if callable(value)] if module else []
    raise click.UsageError(f'{where} has no function "{name}".{did_you_mean(name, known)}')


def _value(text: str) -> Any:
    text = text.removeprefix(_MARK)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _lines() -> Iterator[list[Any]]:
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise click.UsageError(f"line {number} of stdin is not JSON: {error}") from None
        yield value if isinstance(value, list) else [value]


# --- How it went ----------------------------------------------------------------------------------


def _show_line(line: OutputLine) -> None:
    """On stderr, whichever stream it was: stdout is for results."""
    click.echo(line.coloured(), err=True)


def _follow(future: Future[Any]) -> None:
    """Says how far a task is: on a terminal in one line that is written over, else line by line."""
    over = sys.stderr.isatty()

    def show(progress: Progress) -> None:
        if not future.done():
            text = f"{future.label} {progress}"
            click.echo(f"\r\033[K{text}" if over else text, err=True, nl=not over)

    future.on_progress(show)
    if over:
        future.add_done_callback(lambda _: click.echo("\r\033[K", err=True, nl=False))


def _show_accepted(future: Future[Any], as_json: bool) -> int:
    """After the client has left: accepted, unless the broker said no."""
    from evener.errors import ClientClosed

    error = outcome(future)[1] if future.done() else None
    if error is not None and not isinstance(error, ClientClosed):
        return show_failure(future, error, as_json, "evener submit", future.function)
    if as_json:
        print_json({"id": future.task_id, "function": future.function, "state": "accepted"})
    else:
        click.echo(future.task_id)
    return exits.OK
