"""Messages to frames and back: round trips, options, names, payloads and fences."""

from __future__ import annotations

from typing import Final, get_args

import pytest

from evener_wire import checks
from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode
from evener_wire.limits import (
    BATCH_BYTES_TARGET,
    BUFFERS_MAX,
    DURATION_NS_MAX,
    FRAMES_MAX,
    INLINE_BYTES_MAX,
    KIB,
    MAX_STARTS_MAX,
    MILLISECOND_NS,
    NAME_BYTES_MAX,
    RETRIES_MAX,
    TYPE_NAME_CHARS_MAX,
    TYPE_NAMES_MAX,
)
from tests.wire_samples import FENCE, OPTIONS, SAMPLES, TASK, head, refused

WHOLE_MAX: Final = (1 << 63) - 1
MILLISECONDS_MAX: Final = DURATION_NS_MAX // MILLISECOND_NS


# --- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("session", "number", "message"), [s[1:] for s in SAMPLES])
def test_what_is_encoded_is_decoded(session: int, number: int, message: m.Message) -> None:
    frames = [bytes(frame) for frame in encode(message, session, number)]
    envelope = decode(frames)
    assert envelope == Envelope(session, number, message)
    assert [bytes(frame) for frame in encode(envelope.message, session, number)] == frames


def test_there_is_a_sample_of_every_message() -> None:
    assert {type(sample[3]) for sample in SAMPLES} == set(get_args(m.Message))


def test_kinds_are_distinct_and_one_byte_in_the_head() -> None:
    kinds = [message.KIND for message in get_args(m.Message)]
    assert len(set(kinds)) == len(kinds)
    for *_, message in SAMPLES:
        assert encode(message)[0][1] == message.KIND < 128


def test_frames_are_handed_over_without_a_copy() -> None:
    large = bytearray(128 * KIB)
    frames = encode(m.Submit([(TASK, "demo.add", m.Frames([memoryview(large)]), None)]))
    large[0] = 7
    assert frames[1][0] == 7
    decoded = decode(frames).message
    assert isinstance(decoded, m.Submit)
    payload = decoded.items[0][2]
    assert isinstance(payload, m.Frames)
    assert payload.buffers[0] is frames[1]


def test_any_buffer_serves_as_a_head() -> None:
    frame = encode(m.Ack(3), 1, 2)[0]
    assert decode([memoryview(frame)]) == decode([bytearray(frame)]) == decode([frame])


def test_encoding_refuses_what_is_no_message_value() -> None:
    with pytest.raises(TypeError, match="cannot encode object in Query"):
        encode(m.Query(1, "status", {"what": object()}))


# --- Options --------------------------------------------------------------------------------------


def decoded_options(options: object) -> m.Options | None:
    message = decode(head(16, 1, 1, [[TASK, "demo.add", b"", options]], False)).message
    assert isinstance(message, m.Submit)
    return message.items[0][3]


def test_equal_options_are_one_object_so_that_a_million_tasks_share_it() -> None:
    assert decoded_options(list(OPTIONS)) == OPTIONS
    assert decoded_options(list(OPTIONS)) is decoded_options(list(OPTIONS))


def test_default_options_are_the_default_object() -> None:
    assert decoded_options(list(m.DEFAULT_OPTIONS)) is m.DEFAULT_OPTIONS
    assert decoded_options([]) is m.DEFAULT_OPTIONS
    assert decoded_options(None) is None


def test_missing_last_options_are_defaults_and_surplus_ones_are_refused() -> None:
    assert decoded_options(["reports", 7]) == m.Options("reports", 7)
    assert "options" in refused(head(16, 1, 1, [[TASK, "f", b"", [*OPTIONS, 1]]], False))


@pytest.mark.parametrize(
    ("index", "most"),
    [
        (1, 9),
        (2, RETRIES_MAX),
        (3, MILLISECONDS_MAX),
        (5, MAX_STARTS_MAX),
        (6, MILLISECONDS_MAX),
        (7, MILLISECONDS_MAX),
        (8, MILLISECONDS_MAX),
    ],
)
def test_numbers_of_options_have_their_bound(index: int, most: int) -> None:
    def options(value: object) -> list[object]:
        return [value if place == index else field for place, field in enumerate(OPTIONS)]

    accepted = decoded_options(options(most))
    assert accepted is not None
    assert accepted[index] == most
    for value in (most + 1, -1, float(most), True, str(most), None):
        # An equal value of the right type has passed before and must not open the door.
        refused(head(16, 1, 1, [[TASK, "demo.add", b"", options(value)]], False))


def test_other_options_have_their_bounds() -> None:
    def options(**changed: object) -> list[object]:
        return list((OPTIONS._asdict() | changed).values())

    assert decoded_options(options(retry_on=["x" * TYPE_NAME_CHARS_MAX] * TYPE_NAMES_MAX))
    bads: tuple[object, ...] = (
        options(retry_on=["x" * (TYPE_NAME_CHARS_MAX + 1)]),
        options(retry_on=["x"] * (TYPE_NAMES_MAX + 1)),
        options(retry_on="ValueError"),
        options(retry_on=[b"ValueError"]),
        options(queue=""),
        options(queue=b"default"),
        options(max_starts=0),
        options(at_most_once=1),
        options(at_most_once=None),
        {"queue": "default"},
        "default",
        [[[]]],
        [{}],
    )
    for bad in bads:
        refused(head(16, 1, 1, [[TASK, "demo.add", b"", bad]], False))


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["demo.add", "~__main__.<lambda>", "größe", "任务", "a" * NAME_BYTES_MAX, "é" * 64, "-"]
)
def test_names(name: str) -> None:
    assert checks.is_name(name)
    assert decode(head(16, 1, 1, [[TASK, name, b"", None]], False))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a\n",
        "a\r\nb",
        "\x1b[31m",
        "a\0",
        "a\u202eb",  # turns the reading direction of a log line
        "a\u00a0b",
        "a\u200bb",
        "\ufffd",
        "a" * (NAME_BYTES_MAX + 1),
        "é" * 65,
    ],
)
def test_what_would_steer_a_log_or_a_terminal_is_no_name(name: str) -> None:
    assert not checks.is_name(name)
    for _ in range(2):  # the second time comes out of the cache
        refused(head(16, 1, 1, [[TASK, name, b"", None]], False))
        refused(head(33, 1, 1, [[TASK, FENCE, name, b"", 0, 0]]))


def test_refused_names_are_not_remembered_and_good_ones_in_bounded_number() -> None:
    refused(head(16, 1, 1, [[TASK, "x" * 100_000, b"", None]], False))
    for number in range(10_000):
        checks.name(f"function.{number}", "function")
    assert len(checks.known_names) <= 4_096
    assert max(map(len, checks.known_names)) <= NAME_BYTES_MAX


# --- Payloads -------------------------------------------------------------------------------------


def test_a_payload_in_the_head_has_its_bound() -> None:
    for size, good in ((INLINE_BYTES_MAX, True), (INLINE_BYTES_MAX + 1, False)):
        for frames in (
            head(16, 1, 1, [[TASK, "f", bytes(size), None]], False),
            head(19, 1, 1, [[TASK, 0, bytes(size), None]]),
            head(33, 1, 1, [[TASK, FENCE, "f", bytes(size), 0, 0]]),
            head(35, 1, 1, [[TASK, FENCE, 0, bytes(size), 0, None]]),
            head(23, 1, 1, 1, True, bytes(size)),
        ):
            if good:
                assert decode(frames)
            else:
                assert "payload" in refused(frames)


@pytest.mark.parametrize("payload", [0, -1, 2, 1.0, True, None, "text", [b""], {}, WHOLE_MAX])
def test_a_payload_is_bytes_or_a_count_of_frames_that_came_along(payload: object) -> None:
    for fields in (
        (16, 1, 1, [[TASK, "f", payload, None]], False),
        (19, 1, 1, [[TASK, 0, payload, None]]),
        (33, 1, 1, [[TASK, FENCE, "f", payload, 0, 0]]),
        (35, 1, 1, [[TASK, FENCE, 0, payload, 0, None]]),
        (23, 1, 1, 1, True, payload),
    ):
        refused([*head(*fields), b"the only frame"])


def test_every_frame_belongs_to_a_payload() -> None:
    frames = encode(m.Ack(1))
    assert "1 frames more" in refused([*frames, b""])
    submit = encode(m.Submit([(TASK, "f", m.Frames([b"a", b"b"]), None)]))
    refused(submit[:-1])
    refused([*submit, b"c"])


def test_frames_of_one_payload_and_of_one_message_have_their_bounds() -> None:
    def answer(*counts: int) -> list[m.Buffer]:
        items = [(TASK, 0, m.Frames([b"x"] * count), None) for count in counts]
        return encode(m.Terminal(items), 1, 1)

    assert decode(answer(BUFFERS_MAX))
    assert f"payload of {BUFFERS_MAX + 1} frames" in refused(answer(BUFFERS_MAX + 1))
    assert decode(answer(BUFFERS_MAX, FRAMES_MAX - BUFFERS_MAX - 1))
    assert "message of" in refused(answer(BUFFERS_MAX, FRAMES_MAX - BUFFERS_MAX))
    assert "message of 0 frames" in refused([])
    assert "message of 300001 frames" in refused([b""] * 300_001)


def test_bytes_of_one_payload_have_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 GiB are too much for a test.
    monkeypatch.setattr("evener_wire.decoders.PAYLOAD_BYTES_MAX", 10)
    assert decode(encode(m.Answer(1, True, m.Frames([bytes(5), bytes(5)]))))
    assert "payload of 11 bytes" in refused(
        encode(m.Answer(1, True, m.Frames([bytes(5), bytes(6)])))
    )


def test_a_batch_closed_at_its_weight_has_no_more_frames_than_a_message_may() -> None:
    payload = m.Frames([b""])
    fit = BATCH_BYTES_TARGET // m.weight_of(payload) + 1
    assert fit + BUFFERS_MAX <= FRAMES_MAX
    assert m.weight_of(bytes(100)) >= 100


def test_frames_compare_by_content_and_show_their_size() -> None:
    assert m.Frames([b"a", b"b"]) == m.Frames([memoryview(b"a"), bytearray(b"b")])
    assert m.Frames([b"ab"]) != m.Frames([b"a", b"b"])
    assert m.Frames([b"a"]) != b"a"
    assert hash(m.Frames([b"a"])) == hash(m.Frames([b"b"]))
    assert len(m.Frames([b"ab", b"c"])) == 3
    assert repr(m.Frames([b"ab", b"c"])) == "<Frames 2 buffers, 3 bytes>"


# --- Fences ---------------------------------------------------------------------------------------


def test_fences_grow_with_epoch_and_attempt_and_fit_a_signed_number() -> None:
    fences = [
        m.fence_of(epoch, attempt) for epoch in (0, 1, 2) for attempt in (1, 2, m.ATTEMPTS_MAX)
    ]
    assert fences == sorted(set(fences))
    largest = m.fence_of(m.EPOCH_MAX, m.ATTEMPTS_MAX)
    assert largest == WHOLE_MAX
    assert (m.epoch_of(largest), m.attempt_of(largest)) == (m.EPOCH_MAX, m.ATTEMPTS_MAX)
