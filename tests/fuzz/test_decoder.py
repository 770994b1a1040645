"""Fuzz of the decoder: whatever comes in, out comes a message or one `PeerError`.

Three sources: messages drawn from the protocol's own grammar (they must survive the round trip),
such messages with some of their parts or bytes changed, and arbitrary bytes. What the decoder lets
through must be encodable again and must mean the same.

`FUZZ_SECONDS=600 pytest tests/fuzz` goes on for that long with new inputs.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any, Final, get_args

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode
from evener_wire.errors import PeerError
from evener_wire.limits import DURATION_NS_MAX, MILLISECOND_NS, NAME_BYTES_MAX
from tests.wire_samples import SAMPLES

WHOLE_MAX: Final = (1 << 63) - 1
MILLISECONDS_MAX: Final = DURATION_NS_MAX // MILLISECOND_NS

# Inputs of the last test and of the others; all take about 15 seconds on a small machine.
MUTATIONS: Final = 400_000
quick: Final = settings(
    max_examples=600,
    deadline=None,  # a busy machine is no finding
    derandomize=os.environ.get("CI", "") != "",  # in CI the same inputs each time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# --- Messages drawn from the grammar --------------------------------------------------------------

wholes: Final = st.integers(0, WHOLE_MAX)
durations: Final = st.integers(0, MILLISECONDS_MAX)
ids: Final = st.binary(min_size=16, max_size=16)
names: Final = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="\ufffd"),
    min_size=1,
    max_size=NAME_BYTES_MAX // 4,
)
texts: Final = st.text(st.characters(codec="utf-8"), max_size=50)
codes: Final = st.text(st.characters(codec="utf-8"), max_size=NAME_BYTES_MAX)
facts: Final = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts
        | st.binary(max_size=20),
        lambda parts: st.lists(parts, max_size=4).map(tuple),
        max_leaves=1,
    ),
    max_size=5,
)
payloads: Final = st.binary(max_size=40) | st.lists(
    st.binary(max_size=20), min_size=1, max_size=4
).map(m.Frames)
options: Final = st.none() | st.builds(
    m.Options,
    queue=names,
    priority=st.integers(0, 9),
    retries=st.integers(0, 1_000),
    retry_delay_ms=durations,
    retry_on=st.lists(texts, max_size=3).map(tuple),
    max_starts=st.integers(1, 1_000),
    timeout_ms=durations,
    expires_ms=durations,
    deadline_ms=durations,
    at_most_once=st.booleans(),
    forward_output=st.booleans(),
)
amounts: Final = st.integers(0, WHOLE_MAX) | st.floats(0, 1e300)
attempts: Final = st.lists(st.tuples(ids, wholes), max_size=4).map(tuple)


def batches(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(*parts), max_size=4)


hellos: Final = st.builds(
    lambda versions, *rest: m.Hello(*sorted(versions), *rest),
    st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)),
    st.sampled_from(("client", "agent")),
    ids,
    names,
    st.integers(0, m.EPOCH_MAX),
    ids,
    facts,
)


def _as_lines(text: str) -> str:
    return text and f"{text}\n"


def _runs(items: list[tuple[Any, ...]]) -> st.SearchStrategy[m.Run]:
    """With any of its items among those whose output is wanted."""
    places = st.sets(st.sampled_from(range(len(items)))) if items else st.just(set[int]())
    return st.builds(m.Run, st.just(items), places.map(sorted).map(tuple))


messages: Final[st.SearchStrategy[m.Message]] = st.one_of(
    hellos,
    st.builds(
        m.Welcome,
        st.integers(0, 65_535),
        st.integers(0, m.EPOCH_MAX),
        ids,
        durations,
        durations,
        wholes,
        wholes,
        st.booleans(),
        facts,
    ),
    st.builds(m.Resync, texts),
    st.builds(m.Refused, codes, texts),
    st.builds(
        m.Heartbeat,
        st.lists(st.tuples(ids, wholes, wholes), max_size=4).map(tuple),
        st.lists(facts, max_size=3).map(tuple),
    ),
    st.builds(m.Goodbye, texts),
    st.builds(m.Ack, wholes),
    st.builds(m.Submit, batches(ids, names, payloads, options), st.booleans()),
    st.builds(m.Accepted, wholes),
    st.builds(m.Rejected, batches(ids, codes, texts).map(tuple)),
    st.builds(
        lambda item, known: m.Rejected((item, item), known),
        st.tuples(ids, codes, texts),
        st.lists(st.none() | facts, max_size=2).map(tuple),
    ),
    st.builds(m.Terminal, batches(ids, st.integers(0, 4), payloads, st.none() | facts)),
    st.builds(m.Cancel, attempts),
    st.builds(m.Notice, codes, texts),
    st.builds(m.Query, wholes, names, facts),
    st.builds(m.Answer, wholes, st.booleans(), payloads),
    st.builds(m.Progress, batches(ids, wholes, amounts, st.none() | amounts, texts).map(tuple)),
    st.builds(m.Values, batches(ids, wholes, wholes, st.booleans(), payloads)),
    st.builds(m.Taken, batches(ids, wholes, wholes, st.booleans()).map(tuple)),
    st.builds(
        m.Output,
        batches(ids, wholes, wholes, st.integers(1, 2), codes, texts.map(_as_lines)).map(tuple),
    ),
    st.builds(
        m.Offer,
        st.integers(0, 4_096),
        st.booleans(),
        st.lists(names, max_size=3).map(tuple),
        st.none() | batches(names, options),
        st.none() | attempts,
    ),
    batches(ids, wholes, names, payloads, durations, durations).flatmap(_runs),
    st.builds(m.Started, attempts),
    st.builds(
        m.Result, batches(ids, wholes, st.integers(0, 5), payloads, wholes, st.none() | facts)
    ),
    st.builds(m.Recall, attempts),
    st.builds(m.Drain, texts),
)


def try_decode(frames: list[m.Buffer]) -> Envelope | None:
    """The message in these frames, which must then survive the round trip; None if refused."""
    try:
        envelope = decode(frames)
    except PeerError:
        return None
    again = decode(encode(envelope.message, envelope.session, envelope.number))
    assert again == envelope
    return envelope


@quick
@given(messages, wholes, wholes)
def test_every_valid_message_survives_the_round_trip(
    message: m.Message, session: int, number: int
) -> None:
    frames = [bytes(frame) for frame in encode(message, session, number)]
    envelope = decode(frames)
    assert (envelope.session, envelope.number) == (session, number)
    assert type(envelope.message) is type(message)
    assert envelope.message == message
    assert [bytes(frame) for frame in encode(envelope.message, session, number)] == frames


def test_the_grammar_covers_every_message() -> None:
    drawn: set[type] = set()

    @settings(quick, max_examples=400, database=None, derandomize=True)
    @given(messages)
    def draw(message: m.Message) -> None:
        drawn.add(type(message))

    draw()
    assert drawn == set(get_args(m.Message))


# --- Arbitrary bytes and structures ---------------------------------------------------------------


@quick
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_arbitrary_bytes_give_a_message_or_one_error(frames: list[bytes]) -> None:
    try_decode(list(frames))


anything: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | ids,
    lambda parts: (
        st.lists(parts, max_size=6)
        | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), parts, max_size=4)
    ),
    max_leaves=30,
)


@quick
@given(
    st.sampled_from([message.KIND for message in get_args(m.Message)]),
    st.lists(anything, max_size=10),
    st.lists(st.binary(max_size=10), max_size=3),
)
def test_arbitrary_fields_give_a_message_or_one_error(
    kind: int, fields: list[object], frames: list[bytes]
) -> None:
    try_decode([msgpack.packb([kind, 1, 1, *fields]), *frames])


# --- Changed messages -----------------------------------------------------------------------------

ODD_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, 2, -1, 255, 256, 65_536, 1 << 31, 1 << 32, WHOLE_MAX, WHOLE_MAX + 1),
    *((1 << 64) - 1, -(1 << 63), 0.0, 1.0, -0.0, float("nan"), float("inf"), 1e308),
    *("", "a", "a" * 129, "\n", "\x1b[0m", "\u202e", "default", "client"),
    *(b"", b"a", bytes(16), bytes(17), b"\x80\x05."),
    *([], [[]], [None], [0, 1, 2, 3], {}, {"a": 1}, {"a": [1]}, {"a": {"b": 1}}),
)


def change(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A value with one part changed, removed, doubled or moved, somewhere inside."""
    if type(value) is list and value and (depth == 0 or rng.random() < 0.8):
        place = rng.randrange(len(value))
        action = rng.randrange(8)
        if action == 0:
            return value[:place] + value[place + 1 :]
        if action == 1:
            return [*value[: place + 1], *value[place:]]
        if action == 2:
            other = rng.randrange(len(value))
            swapped = list(value)
            swapped[place], swapped[other] = swapped[other], swapped[place]
            return swapped
        return [*value[:place], change(rng, value[place], depth + 1), *value[place + 1 :]]
    if type(value) is dict and value and rng.random() < 0.5:
        return value | {rng.choice(list(value)): rng.choice(ODD_VALUES)}
    if type(value) is int and type(value) is not bool and rng.random() < 0.5:
        return max(-(1 << 63), min((1 << 64) - 1, value + rng.choice((-1, 1, 1 << 16, 1 << 63))))
    return rng.choice(ODD_VALUES)


def change_bytes(rng: random.Random, whole: bytes) -> bytes:
    """Bytes with some of them flipped, removed, inserted or declared longer."""
    changed = bytearray(whole)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(changed) + 1)
        action = rng.randrange(4)
        if action == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            del changed[place : place + rng.randrange(1, 9)]
        elif action == 2:
            changed[place:place] = rng.choice(ODD_BYTES)
        elif place < len(changed):
            changed[place] = rng.choice(
                (0x80, 0x90, 0xC0, 0xC1, 0xC6, 0xC9, 0xD6, 0xDB, 0xDD, 0xFF)
            )
    return bytes(changed)


ODD_BYTES: Final = (
    *(b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(
        b"\xd6\xff\0\0\0\1",
        b"\xc7\x0c\xff",
        b"\xa2\xff\xfe",
        b"\x91" * 50,
        b"\x81\xa0" * 50,
        b"\xcb",
    ),
)


def mutate(rng: random.Random) -> list[m.Buffer]:
    """The frames of a valid message, changed in one way or another."""
    _, session, number, message = rng.choice(SAMPLES)
    first, *others = encode(message, session, number)
    if rng.random() < 0.7:
        fields: Any = msgpack.unpackb(first, strict_map_key=False)
        for _ in range(rng.randrange(1, 3)):
            fields = change(rng, fields)
        first = msgpack.packb(fields)
    else:
        first = change_bytes(rng, first)
    if rng.random() < 0.1:
        others = rng.choice(([], [*others, b""], others[1:], others * 2))
    return [first, *others]


def _fuzz(seed: int, count: int) -> None:
    rng = random.Random(seed)
    taken = 0
    for number in range(count):
        frames = mutate(rng)
        try:
            taken += try_decode(frames) is not None
        except BaseException as error:
            error.add_note(f"seed {seed}, input {number}: {[bytes(frame) for frame in frames]!r}")
            raise
    # Both sides of the decoder must have been reached, or the changes are too coarse or too fine.
    assert count // 100 < taken < count * 99 // 100


@pytest.mark.parametrize("seed", range(4))
def test_changed_messages_give_a_message_or_one_error(seed: int) -> None:
    _fuzz(seed, MUTATIONS // 4)


if "FUZZ_SECONDS" in os.environ:

    @pytest.mark.timeout(0)
    def test_changed_messages_for_as_long_as_asked() -> None:
        end = time.monotonic() + float(os.environ["FUZZ_SECONDS"])
        while time.monotonic() < end:
            seed = random.SystemRandom().randrange(1 << 32)
            _fuzz(seed, 20_000)
