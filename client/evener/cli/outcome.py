"""How a task ended, printed: its result on stdout, what went wrong on stderr, and an exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from evener.cli import exits
from evener.cli.output import clean, complain, print_json

if TYPE_CHECKING:
    from evener.future import Future


def outcome(future: Future[Any], timeout: float | None = None) -> tuple[Any, BaseException | None]:
    """Waits for the end of a task: its value, or what it raised, whatever that is."""
    try:
        return future.result(timeout), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, error


def show_outcome(
    future: Future[Any],
    as_json: bool,
    who: str,
    function: str | None = None,
    timeout: float | None = None,
) -> int:
    """Waits for the end of a task and prints it. Returns the exit code that tells how it ended."""
    name = function or future.function
    value, error = outcome(future, timeout)
    if error is not None:
        return show_failure(future, error, as_json, who, name)
    if as_json:
        print_json({"id": future.task_id, "function": name, "state": "done", "result": value})
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


def show_failure(
    future: Future[Any], error: BaseException, as_json: bool, who: str, function: str
) -> int:
    """Prints what a task ended with instead of a result, and returns the exit code for that."""
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
        print_json({"id": future.task_id, "function": function, "state": state, "error": described})
    else:
        if error.__cause__ is not None:
            complain(str(error.__cause__).strip().strip('"').strip(), "")
        text = str(error)
        if not isinstance(error, EvenerError):
            text = f"task {future.label} failed: {name}: {error}"
        complain("\n  ".join([text, *notes]), who)
    return exits.TIMED_OUT if isinstance(error, TaskTimeout) else exits.FAILED
