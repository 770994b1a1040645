"""The published vectors: each means what it says, every message has one, and none is stale."""

from __future__ import annotations

import json
from typing import Any, Final, get_args

import pytest

from evener_wire import messages as m
from evener_wire.codec import decode, encode
from evener_wire.errors import PeerError
from evener_wire.limits import PROTOCOL_MAX
from tests import vectors

PUBLISHED: Final[dict[str, Any]] = json.loads(vectors.PATH.read_text())
VALID: Final[list[dict[str, Any]]] = PUBLISHED["valid"]
MALFORMED: Final[list[dict[str, Any]]] = PUBLISHED["malformed"]
MESSAGES: Final = {message.__name__.upper(): message for message in get_args(m.Message)}


def frames_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(frame) for frame in vector["frames"]]


def from_json(value: Any) -> Any:
    """The value that a JSON value of the file stands for."""
    if isinstance(value, list):
        return tuple(from_json(part) for part in value)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"hex"}:
        return bytes.fromhex(value["hex"])
    if value.keys() == {"frames"}:
        return m.Frames([bytes.fromhex(frame) for frame in value["frames"]])
    if value.keys() == {"whole"}:
        return int(value["whole"])
    if tuple(value) == m.Options._fields:
        return m.Options(*(from_json(part) for part in value.values()))
    return {name: from_json(part) for name, part in value.items()}


def message_of(vector: dict[str, Any]) -> m.Message:
    """The message that a vector states by its fields, made without looking at its bytes."""
    fields = {name: from_json(value) for name, value in vector["fields"].items()}
    message: m.Message = MESSAGES[vector["message"]](**fields)
    return message


def test_the_file_is_not_stale() -> None:
    assert vectors.PATH.read_text() == vectors.document(), "run: python -m tests.vectors"


def test_it_is_for_the_protocol_we_speak() -> None:
    assert PUBLISHED["protocol"] == PROTOCOL_MAX


def test_every_message_has_a_vector() -> None:
    assert {vector["message"] for vector in VALID} == MESSAGES.keys()
    assert {vector["kind"] for vector in VALID} == {kind.KIND for kind in MESSAGES.values()}


def test_names_are_unique() -> None:
    names = [vector["name"] for vector in (*VALID, *MALFORMED)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_its_bytes_are_its_fields(vector: dict[str, Any]) -> None:
    stated = message_of(vector)
    session, number = from_json(vector["session"]), vector["number"]
    envelope = decode(frames_of(vector))
    assert (envelope.session, envelope.number) == (session, number)
    assert vector["kind"] == envelope.message.KIND
    assert vectors.describe(envelope.message) == vector["fields"]
    if vector["canonical"]:
        encoded = encode(stated, session, number)
        assert [bytes(frame) for frame in encoded] == frames_of(vector)


@pytest.mark.parametrize("vector", MALFORMED, ids=lambda vector: vector["name"])
def test_what_is_malformed_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        decode(frames_of(vector))


def test_a_stale_file_is_noticed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "vectors.json"
    monkeypatch.setattr(vectors, "PATH", copy)
    assert vectors.main([]) == 0
    assert vectors.main(["--check"]) == 0
    copy.write_text(copy.read_text().replace("demo.add", "demo.sub"))
    assert vectors.main(["--check"]) == 1
