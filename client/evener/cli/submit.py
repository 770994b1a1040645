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
from evener.cli.output import clean, complain, print_json

if TYPE_CHECKING:
    from evener.future import Future

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
    is printed, and the exit code tells how it ended: 0 done, 1 failed, 75 timed out.
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
    "--timeout", type=DURATION, metavar="DURATION", section="Task", help="Run time of one attempt."
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
    from_stdin: bool,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
    **options: Any,
) -> int:
    if from_stdin and arguments:
        raise click.UsageError("--stdin takes the arguments from stdin, so give none here")
    from evener.cli import logs

    logs.set_up("client", "warning")  # a queue that nobody serves is worth a line
    wanted = {name: value for name, value in options.items() if value is not None}
    target = _target(function)
    calls = _lines() if from_stdin else iter([[_value(text) for text in arguments]])
    code = exits.OK
    with connected(broker, connect_timeout) as client:
        shipped: list[Future[Any]] = []
        for arguments_of_one in calls:
            shipped.append(client.function(target, **wanted).submit(*arguments_of_one))
            if wait and len(shipped) == _WAITING_MAX:
                code = max(code, _show(shipped.pop(0), as_json))
        if wait:
            return max([code, *(_show(future, as_json) for future in shipped)])
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


def _show_accepted(future: Future[Any], as_json: bool) -> int:
    """After the client has left: accepted, unless the broker said no."""
    from evener.errors import ClientClosed

    error = _outcome(future)[1] if future.done() else None
    if error is not None and not isinstance(error, ClientClosed):
        return _show_failure(future, error, as_json)
    if as_json:
        print_json({"id": future.task_id, "function": future.function, "state": "accepted"})
    else:
        click.echo(future.task_id)
    return exits.OK


def _outcome(future: Future[Any]) -> tuple[Any, BaseException | None]:
    """Waits for the end of a task: its value, or what it raised, whatever that is."""
    try:
        return future.result(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, error


def _show(future: Future[Any], as_json: bool) -> int:
    value, error = _outcome(future)
    if error is not None:
        return _show_failure(future, error, as_json)
    if as_json:
        print_json(
            {"id": future.task_id, "function": future.function, "state": "done", "result": value}
        )
    elif isinstance(value, str):
        click.echo(clean(value))
    elif value is not None:
        click.echo(_as_text(value))
    return exits.OK


def _as_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return clean(repr(value))


def _show_failure(future: Future[Any], error: BaseException, as_json: bool) -> int:
    from concurrent.futures import CancelledError

    from evener.errors import EvenerError, TaskTimeout

    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "evener.errors"):
        name = f"{type(error).__module__}.{name}"
    notes = getattr(error, "__notes__", [])
    if as_json:
        state = "cancelled" if isinstance(error, CancelledError) else "failed"
        described = {"type": name, "message": str(error), "notes": notes}
        if error.__cause__ is not None:
            described["traceback"] = str(error.__cause__).strip().strip('"').strip()
        print_json(
            {"id": future.task_id, "function": future.function, "state": state, "error": described}
        )
    else:
        if error.__cause__ is not None:
            complain(str(error.__cause__).strip().strip('"').strip(), "")
        text = str(error)
        if not isinstance(error, EvenerError):
            text = f"task {future.label} failed: {name}: {error}"
        complain("\n  ".join([text, *notes]), "evener submit")
    return exits.TIMED_OUT if isinstance(error, TaskTimeout) else exits.FAILED
