"""What functions may ask for: many of their tasks at once in one worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import evener
from evener.execution import Execution, Interrupted
from evener.payload import decode_value, encode_call, encode_chunk
from evener_wire import messages as m


def plain(a: int) -> int:
    return a


async def waits(a: int) -> int:
    return a


def yields() -> Iterator[int]:
    yield 1


async def yields_later() -> AsyncIterator[int]:
    yield 1


def test_a_function_says_how_many_of_its_tasks_run_at_once() -> None:
    app = evener.App("many")
    app.task(concurrency=50)(waits)
    app.task(plain, threads=16)
    app.task(yields_later, concurrency=40)
    app.task(yields, threads=12)
    app.task(plain, name="many.alone", grace=1)
    assert app.shares() == {
        "many.waits": 50,
        "many.plain": 16,
        "many.yields_later": 40,
        "many.yields": 12,
    }
    assert app.graces() == {"many.alone": 1_000}


@pytest.mark.parametrize("option", ["concurrency", "threads"])
@pytest.mark.parametrize("value", [0, -1, 257, True, 1.5, "8"], ids=repr)
def test_any_other_number_is_refused(option: str, value: Any) -> None:
    app = evener.App("many")
    options: dict[str, Any] = {option: value}
    with pytest.raises(
        evener.UsageError, match=rf"{option}=.* is not a whole number from 1 to 256"
    ):
        app.task(**options)


@pytest.mark.parametrize(
    ("function", "options", "remedy"),
    [
        (plain, {"concurrency": 5}, r"write threads=5, or make it an async def"),
        (waits, {"threads": 5}, r"write concurrency=5"),
        (yields, {"concurrency": 5}, r"a plain generator: .*write threads=5"),
        (yields_later, {"threads": 5}, r"write concurrency=5"),
        (plain, {"concurrency": 5, "threads": 5}, r"exclude each other"),
    ],
    ids=["plain", "async", "generator", "async-generator", "both"],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    function: Any, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(evener.UsageError, match=remedy):
        evener.App("many").task(function, **options)


@pytest.mark.parametrize("name", ["concurrency", "threads"])
def test_single_tasks_have_no_such_option(name: str) -> None:
    task = evener.App("many").task(plain)
    options: dict[str, Any] = {name: 3}
    with pytest.raises(evener.UsageError, match=rf"@app.task\({name}=...\)"):
        task.options(**options)


# --- Running beside others ------------------------------------------------------------------------


class Taken:
    """An outlet whose reader takes each value at once."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def value(self, payload: m.Payload) -> None:
        self.heard.append(decode_value(payload, trusted=True))

    async def end(self) -> None:
        self.heard.append("end")

    async def drain(self) -> None:
        self.heard.append("drained")


def run(
    function: Callable[..., Any],
    payload: m.Payload,
    on_item: Callable[[int], None] = lambda _: None,
    told: int | None = None,
    outlet: Taken | None = None,
) -> tuple[int, Any]:
    """Outcome of a run on a loop, and its value or its facts."""
    execution = Execution({"f": function})
    run_beside = execution.run_beside(
        "f", payload, on_item, lambda: told, lambda: outlet or Taken()
    )
    executed = asyncio.run(run_beside)
    if executed.outcome == m.DONE:
        return m.DONE, decode_value(executed.payload, trusted=True)
    return executed.outcome, executed.facts


def test_a_call_is_decoded_run_and_encoded() -> None:
    assert run(waits, encode_call("f", (7,))) == (m.DONE, 7)
    assert run(waits, encode_call("f", (), {"a": 8})) == (m.DONE, 8)


@pytest.mark.parametrize(
    "raised", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError]
)
def test_what_it_raises_is_a_failure_and_never_ends_the_loop(raised: type[BaseException]) -> None:
    async def fails() -> None:
        raise raised

    outcome, facts = run(fails, encode_call("f", ()))
    assert outcome == m.FAILED
    assert raised.__name__ in facts["type"]


async def cancelled_while(function: Callable[..., Any], told: int | None) -> int:
    """How a task ends that is cancelled in the midst of it."""
    execution, begun = Execution({"f": function}), asyncio.Event()
    call = encode_call("f", ())
    beside = execution.run_beside("f", call, lambda _: None, lambda: told, Taken)
    task = asyncio.create_task(beside)
    asyncio.get_running_loop().call_soon(begun.set)
    await begun.wait()
    task.cancel()
    return (await task).outcome


async def forever() -> None:
    await asyncio.Event().wait()


async def answers() -> None:
    try:
        await forever()
    except asyncio.CancelledError as error:
        raise ValueError("in its course") from error


async def swallows() -> None:
    try:
        await forever()
    except asyncio.CancelledError:
        return


@pytest.mark.parametrize(
    ("function", "told", "ends"),
    [
        (forever, m.TIMED_OUT, m.TIMED_OUT),
        (answers, m.CANCELLED, m.CANCELLED),
        (swallows, m.CANCELLED, m.DONE),
        (forever, None, m.FAILED),
    ],
    ids=["let-go", "raised", "swallowed", "nobody-asked"],
)
def test_a_cancellation_is_what_the_agent_wanted(
    function: Callable[..., Any], told: int | None, ends: int
) -> None:
    assert asyncio.run(cancelled_while(function, told)) == ends


def test_what_stops_an_item_stops_the_chunk() -> None:
    def on_item(index: int) -> None:
        if index:
            raise Interrupted(m.TIMED_OUT)

    assert run(waits, encode_chunk("f", [1, 2]), on_item, m.TIMED_OUT) == (m.TIMED_OUT, None)


def test_another_execution_for_another_thread_knows_the_same_functions() -> None:
    execution = Execution({"f": plain, "g": waits, "h": yields, "i": yields_later})
    executed = execution.apart().run("f", encode_call("f", (3,)))
    assert decode_value(executed.payload, trusted=True) == 3
    assert [execution.is_async(name) for name in "fghi"] == [False, True, False, True]


# --- Generators beside others ---------------------------------------------------------------------


async def three(closed: list[str], fails: bool) -> AsyncIterator[int]:
    try:
        for number in range(3):
            await asyncio.sleep(0)
            yield number
        if fails:
            raise ValueError("after three")
    finally:
        await asyncio.sleep(0)
        closed.append("closed")


def test_values_go_to_the_outlet_and_nothing_is_returned() -> None:
    outlet, closed = Taken(), list[str]()
    outcome = run(lambda: three(closed, False), encode_call("f", ()), outlet=outlet)
    assert outcome == (m.DONE, None)
    assert (outlet.heard, closed) == ([0, 1, 2, "end"], ["closed"])


def test_what_it_raises_waits_until_its_values_are_taken() -> None:
    outlet, closed = Taken(), list[str]()
    outcome, facts = run(lambda: three(closed, True), encode_call("f", ()), outlet=outlet)
    assert (outcome, facts["type"]) == (m.FAILED, "ValueError")
    assert (outlet.heard, closed) == ([0, 1, 2, "drained"], ["closed"])


def test_a_value_that_cannot_be_sent_closes_the_generator() -> None:
    outlet, closed = Taken(), list[str]()

    async def unsendable() -> AsyncIterator[Any]:
        try:
            yield threading.Lock()
        finally:
            closed.append("closed")

    outcome, facts = run(unsendable, encode_call("f", ()), outlet=outlet)
    assert outcome == m.FAILED
    assert "Lock" in facts["message"] or "lock" in facts["message"]
    assert (outlet.heard, closed) == (["drained"], ["closed"])


class Never(Taken):
    """Its reader takes nothing."""

    async def value(self, payload: m.Payload) -> None:
        await super().value(payload)
        await asyncio.Event().wait()


async def stopped_at_its_first_value(outlet: Never, closed: list[str], told: int | None) -> int:
    execution = Execution({"f": lambda: three(closed, False)})
    call = encode_call("f", ())
    beside = execution.run_beside("f", call, lambda _: None, lambda: told, lambda: outlet)
    task = asyncio.create_task(beside)
    while not outlet.heard:
        await asyncio.sleep(0)
    task.cancel()
    return (await task).outcome


@pytest.mark.parametrize("told", [m.CANCELLED, m.TIMED_OUT, None], ids=str)
def test_one_that_waits_for_its_reader_is_closed_when_it_is_to_end(told: int | None) -> None:
    outlet, closed = Never(), list[str]()
    ends = asyncio.run(stopped_at_its_first_value(outlet, closed, told))
    assert ends == (m.FAILED if told is None else told)
    assert (outlet.heard, closed) == ([0], ["closed"])


def test_a_function_knows_how_many_of_it_run_at_once() -> None:
    app = evener.App("many")
    assert app.task(waits, concurrency=7).at_once == 7
    assert app.task(plain).at_once == 1
