"""The fields of each message, checked one by one, once `codec.decode` has unpacked a head.

Rules of this file: one function per message, named for it, and one table. Each gets the fields as
msgpack gave them, and returns the message or raises ValueError, TypeError or IndexError.
Items of hot messages are checked in line and built anew only if they have to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from evener_wire import checks
from evener_wire import messages as m
from evener_wire.checks import MILLISECONDS_MAX, WHOLE_MAX, known_names
from evener_wire.limits import (
    BATCH_ITEMS_MAX,
    BUFFERS_MAX,
    FUNCTIONS_MAX,
    HELD_MAX,
    ID_BYTES,
    INLINE_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    QUEUES_MAX,
    SCHEDULES_MAX,
    SLOTS_MAX,
)

_OUTCOMES: Final = len(m.OUTCOMES)
_TERMINAL_STATES: Final = len(m.TERMINAL_STATES)

_Fields: TypeAlias = tuple[Any, ...]


class Spare:
    """The frames behind the head, taken in order by the payloads that name them."""

    __slots__ = ("frames", "taken")

    def __init__(self, frames: Sequence[m.Buffer]) -> None:
        self.frames = frames
        self.taken = 1

    def payload(self, value: object) -> m.Payload:
        if type(value) is bytes:
            if len(value) > INLINE_BYTES_MAX:
                raise ValueError(f"inline payload of {len(value)} bytes")
            return value
        if type(value) is not int or not 1 <= value <= len(self.frames) - self.taken:
            raise ValueError("payload is neither bytes nor a count of frames that came along")
        if value > BUFFERS_MAX:
            raise ValueError(f"payload of {value} frames (at most {BUFFERS_MAX})")
        payload = m.Frames(self.frames[self.taken : self.taken + value])
        self.taken += value
        if payload.nbytes > PAYLOAD_BYTES_MAX:
            raise ValueError(f"payload of {payload.nbytes} bytes")
        return payload


def _hello(fields: _Fields, spare: Spare) -> m.Hello:
    low, high, role, instance, name, epoch, broker, facts = fields[:8]
    if role not in ("client", "agent"):
        raise ValueError(f"unknown role {checks.short(role)}")
    return m.Hello(
        checks.whole(low, "protocol_min", checks.whole(high, "protocol_max", 65_535)),
        high,
        role,
        checks.identity(instance, "instance"),
        checks.name(name, "name"),
        checks.whole(epoch, "epoch", m.EPOCH_MAX),
        checks.identity(broker, "broker"),
        checks.facts(facts, "facts"),
    )


def _welcome(fields: _Fields, spare: Spare) -> m.Welcome:
    protocol, epoch, broker, beat, silence, tasks_max, bytes_max, durable, facts = fields[:9]
    return m.Welcome(
        checks.whole(protocol, "protocol", 65_535),
        checks.whole(epoch, "epoch", m.EPOCH_MAX),
        checks.identity(broker, "broker"),
        checks.whole(beat, "heartbeat_ms", MILLISECONDS_MAX),
        checks.whole(silence, "silence_ms", MILLISECONDS_MAX),
        checks.whole(tasks_max, "tasks_max"),
        checks.whole(bytes_max, "bytes_max"),
        checks.flag(durable, "durable"),
        checks.facts(facts, "facts"),
    )


def _resync(fields: _Fields, spare: Spare) -> m.Resync:
    return m.Resync(checks.text(fields[0], "reason"))


def _refused(fields: _Fields, spare: Spare) -> m.Refused:
    code, text = fields[:2]
    # Not there in messages of brokers before it was added: REFUSED must be understood for ever.
    wait_ms = fields[2] if len(fields) > 2 else 0
    return m.Refused(
        checks.text(code, "code", NAME_BYTES_MAX),
        checks.text(text, "text"),
        checks.whole(wait_ms, "wait_ms", MILLISECONDS_MAX),
    )


_IDLE: Final = m.Heartbeat()


def _heartbeat(fields: _Fields, spare: Spare) -> m.Heartbeat:
    running, workers = fields[:2]
    if running == workers == ():
        return _IDLE  # as most of them are
    for attempt in checks.array(running, "running", SLOTS_MAX):
        task_id, fence, age_ms = checks.item(attempt, "running attempt")
        checks.identity(task_id, "task id")
        checks.whole(fence, "fence")
        checks.whole(age_ms, "age_ms")
    for worker in checks.array(workers, "workers", SLOTS_MAX):
        checks.facts(worker, "worker")
    return m.Heartbeat(running, workers)


def _goodbye(fields: _Fields, spare: Spare) -> m.Goodbye:
    return m.Goodbye(checks.text(fields[0], "reason"))


def _ack(fields: _Fields, spare: Spare) -> m.Ack:
    return m.Ack(checks.whole(fields[0], "upto"))


def _submit(fields: _Fields, spare: Spare) -> m.Submit:
    # The hot path of every task: checks stand in line, and an item is only built anew if it has to.
    # An item that is a map or a text fails at its id or its options, as map keys are never numbers.
    items, again = fields[:2]
    checked: list[Any] = []
    for item in checks.array(items, "items", BATCH_ITEMS_MAX):
        task_id, function, payload, options = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if function not in known_names:
            checks.name(function, "function")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, function, spare.payload(payload), checks.options(options))
        elif options is not None:
            item = (task_id, function, payload, checks.options(options))
        checked.append(item)
    return m.Submit(checked, checks.flag(again, "again"))


def _accepted(fields: _Fields, spare: Spare) -> m.Accepted:
    return m.Accepted(checks.whole(fields[0], "upto"))


def _rejected(fields: _Fields, spare: Spare) -> m.Rejected:
    items = checks.array(fields[0], "items", BATCH_ITEMS_MAX)
    for rejected in items:
        task_id, code, text = checks.item(rejected, "item")
        checks.identity(task_id, "task id")
        checks.text(code, "code", NAME_BYTES_MAX)
        checks.text(text, "text")
    # Not there in messages of brokers before it was added.
    details = checks.array(fields[1] if len(fields) > 1 else (), "details", len(items))
    for facts in details:
        if facts is not None:
            checks.facts(facts, "details")
    return m.Rejected(items, details)


def _terminal(fields: _Fields, spare: Spare) -> m.Terminal:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, state, payload, facts = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if type(state) is not int or not 0 <= state < _TERMINAL_STATES:
            raise ValueError(f"unknown terminal state {checks.short(state)}")
        if facts is not None:
            checks.facts(facts, "facts")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, state, spare.payload(payload), facts)
        checked.append(item)
    return m.Terminal(checked)


def _cancel(fields: _Fields, spare: Spare) -> m.Cancel:
    return m.Cancel(checks.attempts(fields[0], BATCH_ITEMS_MAX))


def _notice(fields: _Fields, spare: Spare) -> m.Notice:
    return m.Notice(checks.text(fields[0], "code", NAME_BYTES_MAX), checks.text(fields[1], "text"))


def _query(fields: _Fields, spare: Spare) -> m.Query:
    number, what, arguments = fields[:3]
    checks.whole(number, "number")
    return m.Query(number, checks.name(what, "what"), checks.facts(arguments, "arguments"))


def _answer(fields: _Fields, spare: Spare) -> m.Answer:
    number, ok, body = fields[:3]
    return m.Answer(checks.whole(number, "number"), checks.flag(ok, "ok"), spare.payload(body))


def _progress(fields: _Fields, spare: Spare) -> m.Progress:
    items = checks.array(fields[0], "items", BATCH_ITEMS_MAX)
    for item in items:
        task_id, fence, *said = checks.item(item, "item")
        checks.identity(task_id, "task id")
        checks.whole(fence, "fence")
        checks.progress(*said)
    return m.Progress(items)


def _values(fields: _Fields, spare: Spare) -> m.Values:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, index, more, payload = checks.item(item, "item")
        checks.identity(task_id, "task id")
        checks.whole(fence, "fence")
        checks.whole(index, "index")
        checks.flag(more, "more")
        checked.append((task_id, fence, index, more, spare.payload(payload)))
    return m.Values(checked)


def _taken(fields: _Fields, spare: Spare) -> m.Taken:
    items = checks.array(fields[0], "items", BATCH_ITEMS_MAX)
    for item in items:
        task_id, fence, upto, again = checks.item(item, "item")
        checks.identity(task_id, "task id")
        checks.whole(fence, "fence")
        checks.whole(upto, "upto")
        checks.flag(again, "again")
    return m.Taken(items)


def _output(fields: _Fields, spare: Spare) -> m.Output:
    items = checks.array(fields[0], "items", BATCH_ITEMS_MAX)
    for item in items:
        task_id, fence, first, stream, worker, text = checks.item(item, "item")
        checks.identity(task_id, "task id")
        checks.whole(fence, "fence")
        checks.whole(first, "first")
        if checks.whole(stream, "stream", 2) == 0:
            raise ValueError("stream is neither 1 nor 2")
        checks.text(worker, "worker", NAME_BYTES_MAX)
        checks.lines(text, "text")
    return m.Output(items)


def _offer(fields: _Fields, spare: Spare) -> m.Offer:
    slots, draining, queues, functions, held = fields[:5]
    for queue in checks.array(queues, "queues", QUEUES_MAX):
        checks.name(queue, "queue")
    offered = None
    if functions is not None:
        offered = [
            _offered(checks.item(function, "function"))
            for function in checks.array(functions, "functions", FUNCTIONS_MAX)
        ]
    # Not there in messages of agents before it was added.
    schedules = checks.array(fields[5] if len(fields) > 5 else (), "schedules", SCHEDULES_MAX)
    shares = checks.array(fields[6] if len(fields) > 6 else (), "shares", FUNCTIONS_MAX)
    return m.Offer(
        checks.whole(slots, "slots", SLOTS_MAX),
        checks.flag(draining, "draining"),
        queues,
        offered,
        None if held is None else checks.attempts(held, HELD_MAX),
        tuple(checks.schedule(schedule) for schedule in schedules),
        tuple(checks.share(share) for share in shares),
    )


def _offered(item: tuple[Any, ...]) -> tuple[str, m.Options | None]:
    name, options = item
    return checks.name(name, "function"), checks.options(options)


def _run(fields: _Fields, spare: Spare) -> m.Run:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, function, payload, timeout_ms, deadline_ms = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if type(fence) is not int or not 0 <= fence <= WHOLE_MAX:
            checks.whole(fence, "fence")
        if function not in known_names:
            checks.name(function, "function")
        if type(timeout_ms) is not int or type(deadline_ms) is not int or timeout_ms or deadline_ms:
            checks.whole(timeout_ms, "timeout_ms", MILLISECONDS_MAX)
            checks.whole(deadline_ms, "deadline_ms", MILLISECONDS_MAX)
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, fence, function, spare.payload(payload), timeout_ms, deadline_ms)
        checked.append(item)
    # Not there in messages of brokers before it was added.
    forward = checks.array(fields[1] if len(fields) > 1 else (), "forward", len(checked))
    for place in forward:
        checks.whole(place, "forward", len(checked) - 1)
    return m.Run(checked, forward)


def _started(fields: _Fields, spare: Spare) -> m.Started:
    return m.Started(checks.attempts(fields[0], BATCH_ITEMS_MAX))


def _result(fields: _Fields, spare: Spare) -> m.Result:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, outcome, payload, run_us, facts = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if type(fence) is not int or not 0 <= fence <= WHOLE_MAX:
            checks.whole(fence, "fence")
        if type(outcome) is not int or not 0 <= outcome < _OUTCOMES:
            raise ValueError(f"unknown outcome {checks.short(outcome)}")
        if type(run_us) is not int or not 0 <= run_us <= WHOLE_MAX:
            checks.whole(run_us, "run_us")
        if facts is not None:
            checks.facts(facts, "facts")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, fence, outcome, spare.payload(payload), run_us, facts)
        checked.append(item)
    return m.Result(checked)


def _recall(fields: _Fields, spare: Spare) -> m.Recall:
    return m.Recall(checks.attempts(fields[0], BATCH_ITEMS_MAX))


def _drain(fields: _Fields, spare: Spare) -> m.Drain:
    return m.Drain(checks.text(fields[0], "reason"))


DECODERS: Final[dict[int, Callable[[_Fields, Spare], m.Message]]] = {
    m.Hello.KIND: _hello,
    m.Welcome.KIND: _welcome,
    m.Resync.KIND: _resync,
    m.Refused.KIND: _refused,
    m.Heartbeat.KIND: _heartbeat,
    m.Goodbye.KIND: _goodbye,
    m.Ack.KIND: _ack,
    m.Submit.KIND: _submit,
    m.Accepted.KIND: _accepted,
    m.Rejected.KIND: _rejected,
    m.Terminal.KIND: _terminal,
    m.Cancel.KIND: _cancel,
    m.Notice.KIND: _notice,
    m.Query.KIND: _query,
    m.Answer.KIND: _answer,
    m.Progress.KIND: _progress,
    m.Values.KIND: _values,
    m.Taken.KIND: _taken,
    m.Output.KIND: _output,
    m.Offer.KIND: _offer,
    m.Run.KIND: _run,
    m.Started.KIND: _started,
    m.Result.KIND: _result,
    m.Recall.KIND: _recall,
    m.Drain.KIND: _drain,
}
