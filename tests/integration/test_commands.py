"""Programs as workers, over their pipes: real ones, mostly of a few lines of shell or Python."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from evener.errors import NotSendable, RemoteError, UsageError
from evener_worker import (
    BadMessage,
    CommandEnded,
    CommandStartError,
    CommandTimeout,
    CommandWorker,
    ItemPool,
    PoolFull,
)
from tests.support import ROOT, is_running, skip_aloud, wait_until

EXAMPLES = ROOT / "examples" / "command"
READY = """echo '{"kind":"ready"}'; """


def shell(script: str, **options: Any) -> CommandWorker:
    """A program of a few lines that says ready first."""
    return CommandWorker(["sh", "-c", READY + script], **options)


def python(script: str, **options: Any) -> CommandWorker:
    """A program in Python that has `child`."""
    code = "from evener_worker import child\n" + script
    return CommandWorker([sys.executable, "-c", code], **options)


def program(language: str) -> list[str]:
    if language == "node" and shutil.which("node") is None:
        skip_aloud("node is not installed: its example was not run")
    return {
        "python": [sys.executable, str(EXAMPLES / "double.py")],
        "node": ["node", str(EXAMPLES / "double.js")],
        "sh": ["sh", str(EXAMPLES / "double.sh")],
    }[language]


@pytest.mark.parametrize("language", ["python", "node", "sh"])
def test_double_the_number(language: str, capfd: pytest.CaptureFixture[str]) -> None:
    argv = program(language)
    with ItemPool(lambda number: CommandWorker(argv, id=number), 2) as pool:
        outcomes = {o.item: o for o in pool.process([*range(20), -4, None])}
    assert [outcomes[n].result() for n in (*range(20), -4)] == [2 * n for n in (*range(20), -4)]
    error = outcomes[None].error
    assert isinstance(error, RemoteError)
    assert error.type_name == "TypeError"
    name = os.path.basename(argv[0])
    said = capfd.readouterr().err.splitlines()
    assert {f"{name}-0 | doubling 7", f"{name}-1 | doubling 7"} & set(said)
    assert all(line.startswith((f"{name}-0 | ", f"{name}-1 | ")) for line in said)


def test_its_life(capfd: pytest.CaptureFixture[str]) -> None:
    worker = python("child.serve(len)", id="a", name="counter")
    assert not worker.active
    with pytest.raises(UsageError, match="call init"):
        worker.execute("x")
    worker.destroy()
    worker.init()
    assert worker.active
    assert is_running(worker.pid)
    with pytest.raises(UsageError, match="started already"):
        worker.init()
    assert worker.execute("abc") == 3
    with pytest.raises(RemoteError, match="TypeError: object of type 'int' has no len") as caught:
        worker.execute(7)
    assert "Traceback" in caught.value.traceback
    assert worker.active
    pid = worker.pid
    worker.destroy()
    worker.destroy()
    assert not worker.active
    assert not is_running(pid)
    with pytest.raises(CommandEnded, match="counter was destroyed"):
        worker.execute("x")
    worker.init()  # and once more
    assert worker.execute("abcd") == 4
    worker.destroy()
    assert repr(worker) == f"<CommandWorker counter: not active, pid {worker.pid}>"
    assert capfd.readouterr().err == ""


def test_what_is_printed_belongs_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    script = """
import os
child.ready(version=3)
print("from Python")
os.write(1, b"from C\\n")
os.system("echo from a program of its own")
child.send("said")
child.leave()
"""
    with python(script, name="it") as worker:
        assert worker.greeting == {"kind": "ready", "version": 3}
        assert list(worker.listen_for()) == ["said"]
    lines = set(capfd.readouterr().err.splitlines())
    assert lines == {"it | from Python", "it | from C", "it | from a program of its own"}
    assert worker.lines[-1:] == ("from a program of its own",)


def test_messages_of_kinds() -> None:
    script = """
child.ready()
for message in child.listen():
    if message == "go":
        child.send({"kind": "b", "n": 1})
        child.send({"kind": "a", "n": 2})
        child.send(3)
        child.send({"kind": "b", "n": 4})
"""
    with python(script) as worker:
        with pytest.raises(CommandTimeout, match="sent no such message within 10 ms"):
            worker.listen_once("a", timeout=0.01)
        worker.send("go")
        assert worker.listen_once("a", timeout=60)["n"] == 2
        assert worker.listen_once(lambda message: message == 3, timeout=60) == 3
        several = worker.listen_for("b", timeout=60)
        assert [next(several)["n"], next(several)["n"]] == [1, 4]
        worker.send("go")
        with pytest.raises(ZeroDivisionError):
            worker.listen_once(lambda message: bool(1 / 0), timeout=60)
        assert worker.listen_once(timeout=60)["n"] == 1
        with pytest.raises(NotSendable):
            worker.send({1, 2})


def test_many_requests_at_once_each_gets_its_own_answer() -> None:
    script = """
import threading
child.ready()
waiting = []
for message in child.listen():
    waiting.append(message)
    if len(waiting) == 8:
        for message in reversed(waiting):
            child.answer(message, message["value"] * 2)
"""
    answers: dict[int, Any] = {}
    with python(script) as worker:

        def ask(number: int) -> None:
            answers[number] = worker.request(number, timeout=60)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert answers == {number: 2 * number for number in range(8)}


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    script = """
child.ready()
messages = child.listen()
first = next(messages)
assert next(messages) == "go on"
child.answer(first, "late")
child.answer(next(messages), "in time")
"""
    with python(script) as worker:
        with pytest.raises(CommandTimeout, match="did not answer within 10 ms"):
            worker.request("first", timeout=0.01)
        worker.send("go on")
        assert worker.request("second", timeout=60) == "in time"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo first >&2; exit 3", r"ended with exit code 3 before.*\n.*\n  first"),
        ("kill -9 $$", "it died by SIGKILL before it said that it is ready"),
        ("exec sleep 60", r"did not say that it is ready within 0\.2 s"),
        ("echo 'loading...'", "line that is no message .*'loading...'; what is not a message"),
    ],
)
def test_a_start_that_fails_shows_why(script: str, text: str) -> None:
    worker = CommandWorker(["sh", "-c", script], ready_timeout=0.2 if "sleep" in script else 60)
    with pytest.raises((CommandStartError, BadMessage), match=text):
        worker.init()
    assert not worker.active


def test_what_cannot_be_started_at_all(tmp_path: Path) -> None:
    with pytest.raises(CommandStartError, match="cannot run no-such-program: No such file"):
        CommandWorker(["no-such-program"]).init()
    with pytest.raises(CommandStartError, match="Permission denied"):
        CommandWorker([tmp_path]).init()
    with pytest.raises(CommandStartError, match="nowhere"):
        CommandWorker(["true"], cwd=tmp_path / "nowhere").init()
    with pytest.raises(CommandStartError, match="null byte"):
        CommandWorker(["a\0b"]).init()
    with pytest.raises(UsageError, match="argv is a list"):
        CommandWorker("true")
    with pytest.raises(UsageError, match="argv is a list"):
        CommandWorker([])


def test_it_gets_its_folder_and_environment_and_nothing_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """printf '{"cwd":"%s","own":"%s","worker":"%s","added":"%s"}\n' \
        "$PWD" "$OWN" "$EVENER_WORKER_ID" "$LC_CTYPE"; sleep 60"""
    for variable in ("LC_ALL", "LC_CTYPE", "LANG"):  # without these, Python sets one for itself
        monkeypatch.delenv(variable, raising=False)
    with shell(script, cwd=tmp_path, env={"OWN": "value"}, id=7) as worker:
        told = worker.listen_once(timeout=60)
        assert told == {"cwd": str(tmp_path), "own": "value", "worker": "7", "added": ""}
        status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    # It did not inherit that Python ignores SIGPIPE.
    (ignored,) = (int(line.split()[1], 16) for line in status if line.startswith("SigIgn:"))
    assert not ignored & 1 << (signal.SIGPIPE - 1)


def test_without_a_handshake() -> None:
    with CommandWorker(["cat"], handshake=False) as worker:
        assert worker.active
        worker.send([1, "ü", None])
        assert worker.listen_once(timeout=60) == [1, "ü", None]


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("read line; exit 4", CommandEnded, "ended with exit code 4"),
        ("read line; kill -9 $$", CommandEnded, "died by SIGKILL"),
        ("read line; echo '{broken'", BadMessage, r"no JSON: .*: '\{broken'"),
        ('read line; echo \'{"kind":"result","id":99}\'', BadMessage, "answers nothing"),
    ],
)
def test_an_end_in_the_middle(script: str, kind: type[Exception], text: str) -> None:
    with shell(script) as worker:
        with pytest.raises(kind, match=text):
            worker.execute(1)
        assert not worker.active
        with pytest.raises(kind):  # and it stays that way
            worker.send("more")


def test_a_line_without_end_is_bounded() -> None:
    worker = shell("tr '\\0' x </dev/zero", line_bytes_max=10_000)
    worker.init()
    with pytest.raises(BadMessage, match="longer than 10,000 bytes"):
        worker.listen_once(timeout=60)
    worker.destroy()


def test_one_that_does_not_read_holds_up_who_sends() -> None:
    with shell("sleep 60") as worker:

        def send_all() -> None:
            for _ in range(100):
                worker.send("x" * 1_000_000, timeout=0.01)

        def ask_all() -> None:
            for _ in range(100):
                with suppress(CommandTimeout):
                    worker.request("x" * 1_000_000, timeout=0.001)

        with pytest.raises(PoolFull, match=r"did not read for 0\.01 s"):
            send_all()
        with pytest.raises(PoolFull, match=r"does not read: 3\d,"):
            ask_all()
        assert worker.active


def test_what_nobody_listens_for_waits_in_its_pipe() -> None:
    with python("child.ready()\nfor n in range(5_000): child.send(n)") as worker:
        wait_until(lambda: worker._link is not None and worker._link.full)
        assert [worker.listen_once(timeout=60) for _ in range(5_000)] == list(range(5_000))


def test_one_that_closes_its_output_is_of_no_use() -> None:
    worker = shell("exec >&-; read line; sleep 60", grace=0.1)
    worker.init()
    with pytest.raises(CommandEnded, match="closed its output"):
        worker.listen_once(timeout=60)
    worker.destroy()


def test_a_pool_replaces_a_program_that_dies() -> None:
    script = """
import os
def work(n):
    if n == 13:
        os.kill(os.getpid(), 9)
    return os.getpid()
child.serve(work)
"""
    with ItemPool(lambda number: python(script, id=number), 2) as pool:
        outcomes = {outcome.item: outcome for outcome in pool.process(range(10, 20), retries=1)}
    assert isinstance(outcomes[13].error, CommandEnded)
    assert outcomes[13].tries == 2
    pids = {outcome.value for outcome in outcomes.values() if outcome.ok}
    assert len(pids) >= 2
    assert not any(is_running(pid) for pid in pids if pid is not None)


def test_programs_that_are_killed_at_any_moment_lose_nothing() -> None:
    made: dict[int, CommandWorker] = {}
    rng, kills = random.Random(1), 0

    def factory(number: int) -> CommandWorker:
        made[number] = shell(
            'while read -r line; do value=${line##*:}; echo "{\\"kind\\":\\"result\\",'
            '\\"value\\":${value%\\}}}"; done',
            id=number,
        )
        return made[number]

    def items() -> Iterator[int]:
        nonlocal kills
        for number in range(600):
            if number % 25 == 24:  # while others are at work
                victim = made[rng.randrange(3)]
                if victim.active:
                    with suppress(ProcessLookupError):  # it is just being buried
                        os.kill(victim.pid, rng.choice([signal.SIGKILL, signal.SIGTERM]))
                    kills += 1
            yield number

    with ItemPool(factory, 3) as pool:
        outcomes = list(pool.process(items(), ordered=True, retries=20))
    assert [outcome.result() for outcome in outcomes] == list(range(600))
    assert kills > 0


def test_an_item_that_takes_too_long_ends_with_its_program() -> None:
    script = "import time\nchild.serve(lambda n: time.sleep(n) or n)"
    with ItemPool(lambda number: python(script, id=number), 1) as pool:
        outcomes = list(pool.process([0, 300, 0], timeout=3))
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
