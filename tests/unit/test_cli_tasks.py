"""What commands tell of one task: texts from facts, and nothing that was sent is ever executed."""

from __future__ import annotations

import os
import pickle
from typing import Any

import click
import pytest

from evener.cli import output, status, tasks
from evener.cli.describe import as_data, as_lines, described, error_of
from evener.failure import Place, encode_failure
from evener.payload import encode_chunk_result, encode_value
from evener_broker.transitions import LETTERS, TERMINAL, State
from evener_wire import messages as m

TASK: dict[str, Any] = {
    "id": "7f" * 16,
    "function": "demo.add",
    "state": "done",
    "since_ms": 2_100,
    "queue": "default",
    "priority": 5,
    "client": "c:1",
    "host": None,
    "attempt": 1,
    "starts": 0,
    "failures": 0,
    "facts": None,
    "options": m.DEFAULT_OPTIONS._asdict(),
    "retained": True,
    "saved": True,
}


def lines(**changes: Any) -> dict[str, str]:
    return dict(as_lines(TASK | changes))


# --- Results --------------------------------------------------------------------------------------


def test_plain_results_are_shown() -> None:
    payload = encode_value({"a": (1, {2})})
    assert lines(result=payload)["result"] == "{'a': (1, {2})}"
    assert as_data(TASK | {"result": payload})["result"] == {"a": (1, {2})}
    assert lines(result=encode_chunk_result([1, 2], {}))["result"] == "chunk of 2 results"
    large = lines(result=None, result_bytes=1 << 20)["result"]
    assert large == "1.0 MiB, too large to be shown: evener result"
    assert len(lines(result=encode_value("x" * 9_000))["result"]) < 2_100


class Bomb:
    """What a pickle may do when it is loaded."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_a_pickle_is_described_and_never_loaded() -> None:
    payload = pickle.dumps([Bomb()], protocol=5)
    assert described(payload) == (f"pickle of {len(payload)} B, of type posix._exit", None)
    assert lines(result=payload)["result"].startswith("pickle of ")
    assert as_data(TASK | {"result": payload})["result"] is None
    assert described(b"\x80\x05junk") == ("pickle of 6 B", None)
    assert described(b"\xc1")[0].startswith("not readable (")
    failed = TASK | {"state": "failed", "facts": {"type": "X", "message": "m"}, "result": payload}
    assert "(cannot be read: " in error_of(failed, payload)["traceback"]


def test_results_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(as_data(TASK | {"result": encode_value({(1, 2): b"x"})}))
    assert '"result": "{(1, 2): b\'x\'}"' in capsys.readouterr().out


# --- Ends -----------------------------------------------------------------------------------------


def test_a_failure_with_its_place_and_traceback() -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        payload, facts = encode_failure(error, Place("h", 5, "h:0"), 7)
    shown = lines(state="failed", facts=facts, result=payload, failures=2, attempt=2)
    assert shown["error"] == "ValueError: odd"
    assert shown["worker"] == "h:0 (pid 5)"
    assert shown["traceback"].endswith("ValueError: odd")
    assert shown["attempts"] == "2 (2 failures)"
    unknown = {"reason": "unknown_function", "text": "no worker knows it"}
    assert lines(state="failed", facts=unknown)["error"].endswith("no worker knows it")


def test_a_death_certificate() -> None:
    facts = {
        "reason": "poison",
        "text": "3 workers died",
        "worker": "h:1",
        "pid": 9,
        "signal": 9,
        "rss_bytes": 3 << 30,
        "limit_bytes": 4 << 30,
        "age_ms": 61_000,
        "ran_ms": 1_500,
        "lines": ["one", "two"],
    }
    shown = lines(state="lost", facts=facts, starts=3, attempt=3)
    assert shown["reason"] == "poison: 3 workers died"
    assert shown["worker"] == "h:1 (pid 9), 61.0 s old"
    assert shown["death"] == "SIGKILL, after the task ran for 1.5 s"
    assert shown["memory"] == "3.0 GiB of 4.0 GiB"
    assert shown["last output"] == "one\ntwo"
    assert lines(state="lost", facts={"reason": "unknown"})["reason"] == "unknown"
    assert lines(state="expired", facts={"limit": "queue", "ms": 200})["limit"] == "queue of 0.2 s"


def test_a_task_that_has_not_ended() -> None:
    shown = lines(state="running", host="h", saved=False)
    assert shown["state"] == "running on host h for 2.1 s"
    assert shown["journal"] == "not written yet"
    options = m.Options(retries=2, retry_on=("X",))._asdict() | {"retry_on": ["X"]}
    assert lines(options=options)["options"] == "retries=2, retry_on=['X']"


@pytest.mark.parametrize(
    ("state", "facts", "reason"),
    [
        ("lost", {"reason": "poison", "signal": 11}, "poison, SIGSEGV"),
        ("lost", {"reason": "poison", "signal": 99}, "poison, signal 99"),
        ("lost", {"reason": "poison", "exit_code": 3}, "poison, exit code 3"),
        ("lost", None, "?"),
        ("failed", {"type": "ValueError", "message": "a\nb"}, "ValueError: a"),
        ("expired", {"limit": "total", "ms": 1_500}, "total limit of 1.5 s"),
        ("done", None, None),
    ],
)
def test_reasons_in_lists(state: str, facts: dict[str, Any] | None, reason: str | None) -> None:
    assert tasks.reason_of({"state": state, "facts": facts}) == reason


# --- Names ----------------------------------------------------------------------------------------


def test_the_states_are_those_of_the_broker() -> None:
    assert set(tasks.STATES) == {state.value for state in State}
    assert set(tasks.ENDED) == {state.value for state in TERMINAL}
    assert set(tasks.DEAD_LETTERS) == {state.value for state in LETTERS}


def test_ids_as_they_are_copied_from_anywhere() -> None:
    assert tasks.id_of("demo.add[7F3A12bc]") == tasks.id_of("[7f3a12bc]") == "7f3a12bc"
    for text in ("7f3", "nothex", "7" * 33, ""):
        with pytest.raises(click.UsageError, match="is not the beginning of a task id"):
            tasks.id_of(text)


# --- Status ---------------------------------------------------------------------------------------


def test_status_tells_of_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    journal = {"bytes": 2_048, "bytes_max": 1 << 30, "transactions": 1, "failing": "disk full"}
    broker = {
        "durable": True,
        "journal": journal,
        "live_s": 5,
        "payload_bytes": 0,
        "epoch": 3,
        "accepted": 1,
    }
    status._show("tcp://h:1", {"broker": broker, "tasks": {}})
    text = capsys.readouterr().out
    assert "tasks kept in a journal" in text
    assert "journal 2.0 KiB of 1.0 GiB, 1 transaction\n" in text
    assert "warning: the broker cannot write its journal (disk full)" in text


def test_a_broker_that_has_just_begun_is_not_up_for_microseconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = {"live_s": 0, "payload_bytes": 0, "epoch": 3, "accepted": 0}
    status._show("tcp://h:1", {"broker": broker, "tasks": {}})
    assert "broker  tcp://h:1  up less than 1 s, epoch 3" in capsys.readouterr().out
