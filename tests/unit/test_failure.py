"""Failures: what was raised there is raised here, and a hostile report of one is only text."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import pytest

from evener.errors import (
    NotSendable,
    RemoteError,
    RemoteTraceback,
    TaskTimeout,
    UnknownFunction,
)
from evener.failure import Place, decode_failure, encode_failure
from evener.texts import cut
from evener_wire.limits import INLINE_BYTES_MAX, TEXT_CHARS_MAX
from evener_wire.messages import Frames

AnyError = TypeVar("AnyError", bound=BaseException)
PLACE = Place("node-7", 4121, "node-7:3")


class Custom(Exception):
    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return Custom, (self.code, self.where)


class Forgetful(Exception):
    """Pickles, but cannot be made from what it pickled."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} {right}")


class Stubborn(Exception):
    def __init__(self) -> None:
        super().__init__("boom")
        self.handle = open(os.devnull)  # noqa: SIM115 - cannot be pickled, and closed below


def raised(error: AnyError) -> AnyError:
    with suppress(type(error)):
        raise error
    return error


def journey(error: BaseException, *, trusted: bool = True, **facts: Any) -> Exception:
    payload, _ = encode_failure(raised(error), PLACE, 1_200_000_000, trusted=trusted)
    return decode_failure(payload, trusted=trusted, task="demo.add[7f3a]", facts=facts)


BUILTIN = [
    ValueError("bad", 3),
    KeyError("k"),
    ZeroDivisionError("division by zero"),
    FileNotFoundError(2, "No such file or directory", "/nowhere"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    TimeoutError(),
    RecursionError("maximum recursion depth exceeded"),
]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("error", BUILTIN, ids=lambda error: type(error).__name__)
def test_builtin_exceptions_arrive_as_what_they_were(error: Exception, trusted: bool) -> None:
    back = journey(error, trusted=trusted)
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)


def test_the_cause_is_the_remote_traceback_and_a_note_says_where() -> None:
    back = journey(ValueError("bad"), attempt=2, attempts=3)
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "in raised\n    raise error\n" in back.__cause__.text
    assert back.__notes__ == [
        "on worker node-7:3 (pid 4121), task demo.add[7f3a], attempt 2/3, ran 1.2 s"
    ]
    shown = "".join(traceback.format_exception(back))
    assert (
        shown.index("Traceback") < shown.index("direct cause") < shown.rindex("ValueError: bad\n")
    )


def test_own_types_arrive_where_pickle_is_trusted_and_as_text_elsewhere() -> None:
    back = journey(Custom(7, "x"))
    assert isinstance(back, Custom)
    assert (back.code, back.where) == (7, "x")
    told = journey(Custom(7, "x"), trusted=False)
    assert isinstance(told, RemoteError)
    assert told.type_name.endswith("test_failure.Custom")
    assert told.message == "code 7 at x"
    assert "raise error" in told.traceback
    assert told.__notes__[-1].startswith("on worker node-7:3")


@pytest.mark.parametrize("kind", [Forgetful, Stubborn])
def test_what_cannot_be_made_again_arrives_as_text(kind: type[Exception]) -> None:
    error = Forgetful(1, 2) if kind is Forgetful else Stubborn()
    back = journey(error)
    if isinstance(error, Stubborn):
        error.handle.close()
    assert isinstance(back, RemoteError)
    assert str(back) in (
        f"{Forgetful.__module__}.Forgetful: 1 2",
        f"{Stubborn.__module__}.Stubborn: boom",
    )


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1)]
)
def test_what_would_steer_the_callers_program_arrives_as_text(error: BaseException) -> None:
    back = journey(error)
    assert isinstance(back, RemoteError)
    assert back.type_name == type(error).__name__


def test_eveners_own_errors_arrive_as_what_they_were() -> None:
    for error in (
        NotSendable("the result of f", "x.Y", "is not picklable"),
        UnknownFunction("demo.ad", ("demo.add",), 1, 3),
        TaskTimeout("run", 3.0, "demo.f"),
    ):
        back = journey(error, trusted=False)
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert all(getattr(back, field) == getattr(error, field) for field in error.FIELDS)


def test_chain_notes_and_groups_are_in_the_text() -> None:
    first = raised(KeyError("inner"))
    outer = ValueError("outer")
    outer.__cause__ = first
    outer.add_note("look at the inner one")
    back = journey(outer, trusted=False)
    assert isinstance(back.__cause__, RemoteTraceback)
    assert "KeyError: 'inner'" in back.__cause__.text
    assert back.__notes__[0] == "look at the inner one"
    group = ExceptionGroup("two", [raised(ValueError("one")), raised(TypeError("other"))])
    told = journey(group, trusted=False)
    assert isinstance(told, RemoteError)
    assert "ValueError: one" in told.traceback
    assert "TypeError: other" in told.traceback
    whole = journey(group)
    assert isinstance(whole, ExceptionGroup)
    assert [type(part) for part in whole.exceptions] == [ValueError, TypeError]


def test_notes_of_a_pickled_exception_are_not_told_twice() -> None:
    error = Custom(1, "x")
    error.add_note("once")
    back = journey(error)
    assert back.__notes__.count("once") == 1


def test_frames_of_evener_are_hidden_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile("def ours(error): raise error", f"{package()}/execution.py", "exec")
    scope: dict[str, Any] = {}
    exec(code, scope)
    with pytest.raises(ValueError) as caught:
        scope["ours"](ValueError("x"))
    error = caught.value.with_traceback(caught.tb.tb_next)
    assert "execution.py" not in text_of(error)
    monkeypatch.setenv("EVENER_TRACEBACK", "full")
    assert "execution.py" in text_of(error)


def package() -> Path:
    import evener

    return Path(evener.__file__).resolve().parent


def text_of(error: BaseException) -> str:
    return str(decode_failure(encode_failure(error, PLACE, 0)[0], trusted=True).__cause__)


def test_facts_are_for_records_and_for_retry_on() -> None:
    _, facts = encode_failure(Custom(7, "x" * 2_000), PLACE, 0)
    assert facts["type"] == f"{Custom.__module__}.Custom"
    assert facts["types"] == (facts["type"], "Exception", "BaseException")
    assert len(facts["message"]) == 500
    kind: type[Exception] = Exception
    for _ in range(50):
        kind = type("K", (kind,), {})
    _, facts = encode_failure(kind(), PLACE, 0)
    assert len(facts["types"]) == 32
    assert all(len(name) <= 256 for name in facts["types"])


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


def test_encoding_never_fails_and_always_fits_inline() -> None:
    surrogates = ValueError("\ud800" * 10)
    surrogates.add_note("\ud801")
    huge = ValueError("\U0001f40e" * 1_000_000, b"x" * 1_000_000)
    for _ in range(100):
        huge.add_note("\U0001f40e" * 100_000)
    chain = ValueError("first")
    for number in range(2_000):
        following = ValueError("\U0001f40e" * 1_000, number)
        following.__context__ = chain
        chain = following
    for error in (surrogates, huge, chain, Broken()):
        for trusted in (True, False):
            payload, facts = encode_failure(error, PLACE, None, trusted=trusted)
            assert len(payload) <= INLINE_BYTES_MAX
            assert msgpack.packb(facts)
            back = decode_failure(payload, trusted=trusted)
            assert len(str(back)) <= TEXT_CHARS_MAX * 2
            assert len(str(back.__cause__)) <= TEXT_CHARS_MAX + 100


def test_texts_are_cut_in_the_middle() -> None:
    text = cut("a" * 500 + "b" * 500, 200)
    assert len(text) <= 200
    assert text.startswith("aaa")
    assert text.endswith("bbb")
    assert cut("short", 200) == "short"


# --- Hostile reports ------------------------------------------------------------------------------


def report(**changes: Any) -> bytes:
    parts: dict[str, Any] = {
        "type": "ValueError",
        "message": "m",
        "traceback": "t",
        "about": {},
        "types": [],
        "arguments": ["m"],
        "pickled": None,
        "notes": [],
    }
    return bytes(msgpack.packb([*(parts | changes).values()]))


HOSTILE: dict[str, Any] = {
    "nothing": b"",
    "not msgpack": b"\xc1",
    "a pickle": b"cos\nsystem\n(S'true'\ntR.",
    "too few": msgpack.packb(["ValueError", "m"]),
    "a map": msgpack.packb({}),
    "deep": b"\x91" * 60_000,
    "declared": b"\xdd\x00\x00\xff\xff" * 1_000,
    "too long": Frames([b"\x98" + b"\xc0" * 100_000]),
    "type is a number": report(type=7),
    "message of 100 000": report(message="x" * 60_000),
    "types are numbers": report(types=[1, 2]),
    "types are nil": report(types=None),
    "facts are a list": report(about=[1]),
    "notes by the thousand": report(notes=["x"] * 1_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_reports_become_a_text(name: str) -> None:
    for trusted in (True, False):
        error = decode_failure(HOSTILE[name], trusted=trusted)
        assert isinstance(error, RemoteError)
        assert len(str(error)) < 2_000


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "eval",
        "print",
        "SystemExit",
        "KeyboardInterrupt",
        "evener.errors.Mapping",
        "evener.errors.__dict__",
        "evener.failure.Place",
        "StopIteration",
        "no.such.thing",
        "",
    ],
)
def test_only_harmless_types_are_made(name: str) -> None:
    error = decode_failure(report(type=name, arguments=["true"]), trusted=False)
    assert isinstance(error, RemoteError)
    assert error.type_name == name


def test_arguments_that_do_not_fit_their_type_leave_the_texts() -> None:
    for arguments in ([1, 2, 3], [], "text", {"a": 1}):
        error = decode_failure(report(type="UnicodeDecodeError", arguments=arguments), trusted=True)
        assert isinstance(error, RemoteError)


def test_pickles_in_reports_are_not_loaded_untrusted(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickled = b"\x80\x04cpathlib\nPosixPath\n(X" + len(str(canary)).to_bytes(4, "little")
    pickled += str(canary).encode() + b"tRctest\n."
    error = decode_failure(report(pickled=pickled, arguments=None), trusted=False)
    assert isinstance(error, RemoteError)
    assert isinstance(decode_failure(report(pickled=b"\x80garbage"), trusted=True), RemoteError)
    # A pickle of something that is no exception is not raised.
    assert isinstance(decode_failure(report(pickled=b"\x80\x04K\x07."), trusted=True), RemoteError)


def test_remote_texts_cannot_steer_a_terminal() -> None:
    error = decode_failure(
        report(
            type="x.Y", message="\x1b[2Jm", traceback="a\n\x1b]0;t\x07", about={"worker": "\x1b"}
        ),
        trusted=False,
    )
    shown = "".join(traceback.format_exception(error))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2Jm" in shown
