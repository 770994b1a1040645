"""Execution: whatever a function does, `run` gives an outcome, and the next task runs."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from evener.errors import NotLoadable, NotSendable, RemoteError, UnknownFunction
from evener.execution import Executed, Execution, Interrupted, Place, interruption
from evener.failure import decode_failure
from evener.payload import (
    ARGUMENT_LISTS,
    decode_chunk_result,
    decode_value,
    encode_call,
    encode_chunk,
)
from evener.shipping import ship, shipped_name
from evener_wire.messages import CANCELLED, DONE, FAILED, TIMED_OUT

PLACE = Place("node-7", 4121, "node-7:3")


def add(a: int, b: int = 10) -> int:
    return a + b


async def add_later(a: int, b: int = 10) -> int:
    await asyncio.sleep(0)
    return a + b


def leave(what: BaseException) -> None:
    raise what


def endless() -> int:
    return endless() + 1


def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


def invert(number: int) -> float:
    return 1 / number


FUNCTIONS: dict[str, Any] = {
    "t.add": add,
    "t.add_later": add_later,
    "t.leave": leave,
    "t.endless": endless,
    "t.connection": connection,
    "t.invert": invert,
}


@pytest.fixture
def execution() -> Iterator[Execution]:
    made = Execution(FUNCTIONS, place=PLACE)
    yield made
    made.close()


def call(execution: Execution, name: str, *args: Any, **kwargs: Any) -> Executed:
    return execution.run(name, encode_call(name, args, kwargs))


def result(executed: Executed) -> Any:
    assert executed.outcome == DONE
    assert executed.facts is None
    return decode_value(executed.payload, True)


def failure(executed: Executed) -> Exception:
    assert executed.outcome == FAILED
    return decode_failure(executed.payload, trusted=True, task="t.f[7f3a]")


@pytest.mark.parametrize("name", ["t.add", "t.add_later"])
def test_a_call_gives_its_result(execution: Execution, name: str) -> None:
    assert result(call(execution, name, 1, 2)) == 3
    assert result(call(execution, name, 1)) == 11
    assert result(call(execution, name, a=1, b=3)) == 4
    assert call(execution, name, 1, 2).run_ns > 0


def test_all_async_functions_share_one_event_loop(execution: Execution) -> None:
    loops: list[object] = []

    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    other = Execution({"t.note": note})
    call(other, "t.note")
    call(other, "t.note")
    assert loops[0] is loops[1]
    other.close()
    assert result(call(execution, "t.add_later", 1)) == 11


async def in_a_loop(execution: Execution) -> Any:
    return result(call(execution, "t.add_later", 1))


def test_async_functions_run_in_place_inside_of_a_running_loop(execution: Execution) -> None:
    assert asyncio.run(in_a_loop(execution)) == 11


# --- Failures -------------------------------------------------------------------------------------


def test_an_exception_is_a_failure_with_facts(execution: Execution) -> None:
    executed = call(execution, "t.invert", 0)
    error = failure(executed)
    assert isinstance(error, ZeroDivisionError)
    assert executed.facts == {
        "type": "ZeroDivisionError",
        "message": "division by zero",
        "types": (
            "ZeroDivisionError",
            "ArithmeticError",
            "Exception",
            "BaseException",
        ),
        "worker": "node-7:3",
    }
    text = str(error.__cause__)
    assert "in invert\n" in text
    assert "evener/execution.py" not in text
    assert error.__notes__[-1].startswith("on worker node-7:3 (pid 4121), task t.f[7f3a], ran ")


@pytest.mark.parametrize(
    "what",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), MemoryError()],
    ids=lambda what: type(what).__name__,
)
def test_whatever_user_code_raises_is_a_failure(execution: Execution, what: Any) -> None:
    executed = call(execution, "t.leave", what)
    error = failure(executed)
    assert isinstance(error, (RemoteError, MemoryError))
    assert executed.facts is not None
    assert executed.facts["type"].endswith(type(what).__name__)
    assert result(call(execution, "t.add", 1)) == 11


def test_in_async_functions_too() -> None:
    async def leave_later(what: str) -> None:
        await asyncio.sleep(0)
        raise {"exit": SystemExit, "keys": KeyboardInterrupt, "value": ValueError}[what]("x")

    execution = Execution({"t.leave": leave_later, **FUNCTIONS})
    for what in ("exit", "keys", "value"):
        failure(call(execution, "t.leave", what))
        assert result(call(execution, "t.add_later", 1)) == 11
    execution.close()


def test_recursion_without_end_is_a_failure(execution: Execution) -> None:
    error = failure(call(execution, "t.endless"))
    assert isinstance(error, RecursionError)
    assert "repeated" in str(error.__cause__)


def test_arguments_that_do_not_fit_are_a_failure(execution: Execution) -> None:
    error = failure(call(execution, "t.add", 1, 2, 3))
    assert isinstance(error, TypeError)
    assert "takes from 1 to 2 positional arguments" in str(error)


def test_a_result_that_cannot_be_sent_names_function_and_type(execution: Execution) -> None:
    error = failure(call(execution, "t.connection"))
    assert isinstance(error, NotSendable)
    text = "cannot send the result of t.connection: sqlite3.Connection is not picklable"
    assert str(error) == text


def test_an_unknown_function_names_the_closest(execution: Execution) -> None:
    error = failure(call(execution, "t.ad", 1))
    assert isinstance(error, UnknownFunction)
    assert error.closest[0] == "t.add"


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x91\x01", b"\x80\x05cno_such\nx\n."])
def test_arguments_that_cannot_be_loaded_are_a_failure(
    execution: Execution, payload: bytes
) -> None:
    error = failure(execution.run("t.add", payload))
    assert isinstance(error, NotLoadable)
    assert str(error).startswith("worker node-7:3 cannot load the arguments of t.add: ")


def test_nothing_is_unpickled_where_it_is_not_trusted() -> None:
    execution = Execution(FUNCTIONS, trusted=False)
    for payload in (
        encode_call("t.add", (1 << 80,)),
        encode_call("~x", (1,), code=ship(lambda x: x)),
    ):
        executed = execution.run("~x", payload)
        error = decode_failure(executed.payload, trusted=False)
        assert isinstance(error, NotLoadable)
        assert "not trusted" in str(error)
    assert isinstance(failure(call(execution, "t.connection")), NotSendable)


# --- Functions by value ---------------------------------------------------------------------------


def test_functions_by_value(execution: Execution) -> None:
    by = 3
    triple = lambda x: x * by  # noqa: E731
    name = shipped_name(triple)
    assert result(execution.run(name, encode_call(name, (2,), code=ship(triple)))) == 6
    chunk = execution.run(name, encode_chunk(name, [1, 2], code=ship(triple)))
    assert decode_chunk_result(chunk.payload, True, 2).values == [3, 6]

    async def later(x: int) -> int:
        return x

    name = shipped_name(later)
    assert result(execution.run(name, encode_call(name, (2,), code=ship(later)))) == 2
    # Only names that say so run what lies in the payload.
    payload = encode_call("t.other", (2,), code=ship(triple))
    assert isinstance(failure(execution.run("t.other", payload)), UnknownFunction)
    assert isinstance(failure(execution.run("~gone", encode_call("~gone", ()))), UnknownFunction)
    bad = failure(execution.run("~bad", encode_call("~bad", (), code=b"\x80\x05cno_such\nx\n.")))
    assert str(bad).startswith("worker node-7:3 cannot load function bad: cannot unpickle")


# --- Chunks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.add", "t.add_later"])
def test_a_chunk_runs_item_by_item(execution: Execution, name: str) -> None:
    seen: list[int] = []
    executed = execution.run(name, encode_chunk(name, [1, 2, 3]), seen.append)
    assert decode_chunk_result(executed.payload, True, 3) == ([11, 12, 13], {})
    assert seen == [0, 1, 2]
    pairs = encode_chunk(name, [[1, 2], [3, 4]], ARGUMENT_LISTS)
    executed = execution.run(name, pairs)
    assert decode_chunk_result(executed.payload, True, 2).values == [3, 7]


def test_a_failing_item_does_not_stop_the_others(execution: Execution) -> None:
    executed = execution.run("t.invert", encode_chunk("t.invert", [1, 0, 2]))
    assert executed.outcome == DONE
    values, failures = decode_chunk_result(executed.payload, True, 3)
    assert values == [1.0, None, 0.5]
    assert [*failures] == [1]
    assert isinstance(decode_failure(failures[1], trusted=True), ZeroDivisionError)


def test_an_item_whose_result_cannot_be_sent_fails_alone(execution: Execution) -> None:
    name = "t.connections"
    opened = [connection()]
    other = Execution({name: lambda number: opened[0] if number == 1 else number}, place=PLACE)
    executed = other.run(name, encode_chunk(name, [0, 1, 2]))
    values, failures = decode_chunk_result(executed.payload, True, 3)
    assert values == [0, None, 2]
    assert isinstance(decode_failure(failures[1], trusted=True), NotSendable)
    opened[0].close()


# --- Interruption ---------------------------------------------------------------------------------


def interrupting(outcome: int) -> Any:
    """A function that a signal stops, as the handler of a worker does."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted(outcome)

    def stopped(how: str) -> str:
        before = signal.signal(signal.SIGUSR2, handler)
        try:
            if how == "swallow":
                try:
                    signal.raise_signal(signal.SIGUSR2)
                except Exception:
                    return "swallowed"
            elif how == "finally":
                try:
                    signal.raise_signal(signal.SIGUSR2)
                finally:
                    raise ValueError("while cleaning up")
            else:
                signal.raise_signal(signal.SIGUSR2)
        finally:
            signal.signal(signal.SIGUSR2, before)
        return "went on"

    return stopped


@pytest.mark.parametrize("outcome", [CANCELLED, TIMED_OUT])
@pytest.mark.parametrize("how", ["plain", "swallow", "finally"])
def test_an_interruption_ends_the_task_as_what_it_says(outcome: int, how: str) -> None:
    execution = Execution({"t.stop": interrupting(outcome), **FUNCTIONS})
    executed = call(execution, "t.stop", how)
    assert (executed.outcome, executed.payload, executed.facts) == (outcome, b"", None)
    chunk = execution.run("t.stop", encode_chunk("t.stop", [how]))
    assert (chunk.outcome, chunk.payload) == (outcome, b"")
    assert result(call(execution, "t.add", 1)) == 11


def test_an_interruption_of_async_functions_lets_them_clean_up() -> None:
    stop = interrupting(TIMED_OUT)
    cleaned: list[str] = []

    async def between_steps() -> None:
        asyncio.get_running_loop().call_soon(stop, "plain")
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("between")

    async def within_a_step() -> None:
        try:
            stop("plain")
        finally:
            cleaned.append("within")

    async def in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(within_a_step())

    functions = {"t.a": between_steps, "t.b": within_a_step, "t.c": in_a_group, **FUNCTIONS}
    execution = Execution(functions)
    try:
        for name in ("t.b", "t.c"):
            assert call(execution, name).outcome == TIMED_OUT
            assert result(call(execution, "t.add_later", 1)) == 11
        assert cleaned == ["within", "within"]
    finally:
        execution.close()


def test_an_interruption_while_a_failure_is_reported() -> None:
    class Slow(Exception):
        def __str__(self) -> str:
            raise Interrupted(CANCELLED)

    def work() -> None:
        raise Slow

    executed = call(Execution({"t.f": work}), "t.f")
    assert (executed.outcome, executed.payload) == (CANCELLED, b"")


def test_interruptions_are_found_in_chains_and_groups() -> None:
    hidden = ValueError()
    hidden.__context__ = BaseExceptionGroup("g", [KeyError(), Interrupted(TIMED_OUT)])
    found = interruption(hidden)
    assert found is not None
    assert found.outcome == TIMED_OUT
    assert interruption(ValueError()) is None
    loop = ValueError()
    other = KeyError()
    loop.__context__, other.__context__ = other, loop
    assert interruption(loop) is None
