"""The conversation with a program: lines in, what they tell out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evener.errors import NotSendable, PayloadTooLarge, RemoteError
from evener_worker.local.errors import PoolFull
from evener_worker.local.feed_limits import INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, REQUESTS_MAX
from evener_worker.local.talk import (
    Answered,
    BadLine,
    Came,
    Greeted,
    Talk,
    TalkState,
    decode,
    encode,
    fits,
)

READY = b'{"kind":"ready"}\n'


def test_a_conversation() -> None:
    talk = Talk(greets=True)
    assert list(talk.feed(b'{"kind":"ready","version":2}\n')) == [
        Greeted({"kind": "ready", "version": 2})
    ]
    assert talk.state is TalkState.OPEN
    number, line = talk.ask(21)
    assert line == b'{"kind":"item","id":1,"value":21}\n'
    assert list(talk.feed(b'{"kind":"result","id":1,"value":42}\n')) == [Answered(number, 42)]


def test_bytes_come_in_any_pieces() -> None:
    talk = Talk(greets=True)
    told = [one for byte in READY + b'\r\n  \n{"kind":"x"}\n' for one in talk.feed(bytes([byte]))]
    assert told == [Greeted({"kind": "ready"}), Came()]


def test_an_answer_without_id_is_that_to_the_oldest() -> None:
    talk = Talk(greets=False)
    first, second = talk.ask("a")[0], talk.ask("b")[0]
    talk.abandon(first)
    answers = b'{"kind":"result","value":1}\n{"kind":"result","value":2}\n'
    assert list(talk.feed(answers)) == [Answered(second, 2)]


def test_an_error_that_is_answered() -> None:
    talk = Talk(greets=False)
    talk.ask("a")
    (answered,) = talk.feed(b'{"kind":"error","message":"no","type":"ValueError"}\n')
    assert isinstance(answered, Answered)
    assert isinstance(answered.error, RemoteError)
    assert str(answered.error) == "ValueError: no"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello", "no JSON"),
        (b"\xff\xfe", "no UTF-8"),
        (b"[" * 100_000, "no JSON"),
        (b"NaN", "NaN is no JSON"),
        (b"1" * 5_000, "no JSON"),
        (b'{"kind":"result","id":9}', "answers nothing"),
        (b'{"kind":"result","id":true}', "answers nothing"),
        (b'{"kind":"error"}', "answers nothing"),
    ],
)
def test_a_line_that_is_no_message(line: bytes, reason: str) -> None:
    talk = Talk(greets=True)
    told = talk.feed(READY + line + b"\n")
    assert next(told) == Greeted({"kind": "ready"})
    with pytest.raises(BadLine, match=reason) as caught:
        list(told)
    assert caught.value.line == line.decode("utf-8", "replace")[:800]


def test_lines_are_bounded_with_and_without_an_end() -> None:
    for data in (b'"' + b"x" * 100, b'"' + b"x" * 100 + b'"\n'):
        talk = Talk(greets=False, line_bytes_max=100)
        with pytest.raises(BadLine, match="longer than 100 bytes"):
            list(talk.feed(data))
    assert list(Talk(greets=False, line_bytes_max=100).feed(b'"' + b"x" * 98 + b'"\n')) == [Came()]


def test_a_last_line_without_end_is_heard() -> None:
    talk = Talk(greets=False)
    assert list(talk.feed(b'{"kind":"bye"}')) == []
    assert list(talk.end()) == [Came()]
    assert talk.after(0) == [(1, {"kind": "bye"})]


def test_messages_stay_until_somebody_takes_them() -> None:
    talk = Talk(greets=False)
    list(talk.feed(b'{"kind":"a"}\n7\n{"kind":"b"}\n'))
    assert [message for _, message in talk.after(0)] == [{"kind": "a"}, 7, {"kind": "b"}]
    assert talk.take(2)
    assert not talk.take(2)
    assert [number for number, _ in talk.after(1)] == [3]


def test_what_nobody_listens_for_is_bounded() -> None:
    talk = Talk(greets=False)
    list(talk.feed(b"1\n" * INBOX_MESSAGES_MAX))
    assert talk.overflows
    assert talk.take(1)
    assert not talk.overflows
    # While an answer is behind it, waiting would be for ever.
    talk.ask("a")
    with pytest.raises(BadLine, match="nobody listens"):
        list(talk.feed(b"1\n"))


def test_what_nobody_listens_for_is_bounded_in_bytes() -> None:
    talk = Talk(greets=False)
    line = b'"' + b"x" * (INBOX_BYTES_MAX // 2 - 2) + b'"\n'
    list(talk.feed(line))
    assert not talk.overflows
    list(talk.feed(line))
    assert talk.overflows
    assert talk.take(2)
    assert not talk.overflows


def test_requests_are_bounded() -> None:
    talk = Talk(greets=False)
    for _ in range(REQUESTS_MAX):
        talk.abandon(talk.ask(0)[0])
    with pytest.raises(PoolFull):
        talk.ask(0)


def test_what_cannot_be_sent_is_refused_where_it_is_sent() -> None:
    with pytest.raises(NotSendable, match="no JSON"):
        encode({1, 2})
    with pytest.raises(NotSendable, match="no JSON"):
        encode(float("nan"))
    with pytest.raises(PayloadTooLarge):
        encode("x" * 100, 100)
    talk = Talk(greets=False)
    with pytest.raises(NotSendable):
        talk.ask(object())
    assert talk.ask(0)[0] == 1  # nothing was left behind


def test_what_is_wanted() -> None:
    assert fits({"kind": "a"}, "a")
    assert not fits({"kind": "a"}, "b")
    assert not fits(7, "a")
    assert fits(7, lambda message: message == 7)
    assert fits(7, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


@given(json_values)
def test_what_is_sent_is_what_comes(value: Any) -> None:
    line = encode(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == value


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_whatever_a_program_writes_is_a_message_or_a_bad_line(chunks: list[bytes]) -> None:
    talk = Talk(greets=True, line_bytes_max=64)
    with suppress(BadLine):  # and nothing else
        for chunk in chunks:
            list(talk.feed(chunk))
        list(talk.end())
