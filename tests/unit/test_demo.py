"""The demo without a cluster: what it counts, what it reads, and its words."""

from __future__ import annotations

import ast
import io
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from evener.demo import report
from evener.demo.corpus import Source, common_folder, read, standard_library
from evener.demo.identifiers import _FIELDS, index
from evener.demo.progress import Progress
from evener.demo.totals import Totals
from evener.demo.victim import Assassin, Loss
from tests.support import Processes, is_running


def test_each_kind_of_identifier_counts() -> None:
    source = b"""
import os.path as place
from a.b import c as d, e
from f import *
class G(h, metaclass=i):
    async def j(self, k, /, *l, m=1, **n): await o.p
try: pass
except q as r:
    def s():
        global t, u
        nonlocal v
match w:
    case X(y=z): pass
    case [*aa]: pass
    case {"text": 1, **bb}: pass
    case cc: pass
"""
    single = "place a b c d e f G h metaclass i j self k l m n o p q r s t u v w X y z aa bb cc"
    indexed = index(source)
    assert indexed["fault"] is None
    assert indexed["lines"] == 16
    assert indexed["identifiers"] == dict.fromkeys([*single.split(), "os", "path"], 1)


def test_keywords_texts_and_comments_do_not_count() -> None:
    source = b'match = 1  # comment\nif match: print("word", type=None, end=f"{match!r}")\n'
    names = {"match": 3, "print": 1, "type": 1, "end": 1}
    assert index(source)["identifiers"] == names


def test_every_text_of_the_syntax_tree_is_an_identifier_or_data() -> None:
    """No field that holds identifiers is forgotten, in whichever Python runs this."""
    data = {"Constant", "Interpolation", "TypeIgnore"}
    for node in vars(ast).values():
        if not (isinstance(node, type) and issubclass(node, ast.AST)) or not node.__doc__:
            continue
        texts = [part for part in node.__doc__.split("(")[-1].split(",") if "identifier" in part]
        fields = tuple(part.strip(" )").split(" ")[1].strip(")") for part in texts)
        if node.__name__ not in data and "=" not in node.__doc__:
            assert _FIELDS.get(node.__name__, ()) == fields, node.__doc__


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (b"x = (1\n", "line 1: '(' was never closed"),
        (b"\xff\xfe", "cannot be decoded: "),
        (b"# coding: no-such-encoding\n", "cannot be decoded: unknown encoding"),
        (b"x = 1\n\xf6 = 2\n", "cannot be decoded: "),
        (b"x = '\0'\n", "null bytes"),
        (b"(" * 5000 + b")" * 5000, "too"),
        (b"print 'a'\n", "Missing parentheses"),
    ],
)
def test_a_file_that_is_no_python_is_a_fault_and_no_error(source: bytes, fault: str) -> None:
    indexed = index(source)
    assert indexed["identifiers"] == {}
    assert fault in indexed["fault"]
    assert "\n" not in indexed["fault"]


def test_the_coding_comment_and_the_mark_are_obeyed() -> None:
    assert index("# coding: latin-1\nä = 1\n".encode("latin-1"))["identifiers"] == {"ä": 1}
    assert index(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n")["identifiers"] == {"x": 1, "y": 1}


def test_warnings_about_a_file_are_not_shown() -> None:
    assert index(b"x = '\\d'\nx is 1\n")["identifiers"] == {"x": 2}  # warnings are errors here


def test_the_standard_library_is_found_without_what_others_installed() -> None:
    paths = standard_library()
    names = {path.name for path in paths}
    assert {"ast.py", "tokenize.py", "decoder.py"} <= names
    assert not [path for path in paths if "site-packages" in path.parts]
    assert paths == sorted(set(paths))


def test_a_file_that_cannot_be_read_is_part_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x = 1\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "gone.py").symlink_to("nowhere")
    paths = sorted(tmp_path.rglob("*.py"))
    assert common_folder(paths) == tmp_path
    assert read(paths) == [
        Source("a.py", b"x = 1\n"),
        Source("b/gone.py", b"", "cannot be read: No such file or directory"),
    ]


def test_totals_add_and_differences_are_named() -> None:
    one, other = Totals(), Totals()
    for totals in (one, other):
        totals.add(Source("a.py", b"x = x\n"), index(b"x = x\n"))
        totals.add(Source("b.py", b"x ="), index(b"x ="))
    assert one == other
    assert one.differences(other) == []
    assert (one.files, one.bytes, one.lines, one.identifiers["x"]) == (2, 9, 1, 2)
    assert list(one.faults) == ["b.py"]
    other.add(Source("c.py", b"", "cannot be read: why"), index(b""))
    other.identifiers["y"] += 1000
    assert one.differences(other) == [
        "files: 2 and 3",
        "y: 0 and 1,000",
        "c.py: None and 'cannot be read: why'",
    ]


def test_the_report() -> None:
    totals = Totals()
    totals.add(Source("a.py", b"b = a = a\n"), index(b"b = a = a\n"))
    totals.add(Source("wrong.py", b"("), index(b"("))
    assert list(report.top_identifiers(totals))[1:] == ["          2  a", "          1  b"]
    assert list(report.faults(totals)) == [
        "1 file not indexed, because not valid Python",
        "  wrong.py  line 1: '(' was never closed",
    ]
    assert list(report.faults(Totals())) == []
    first, second = report.comparison(totals, 1.0, totals, 2.0, 4)
    assert first.endswith("finds the same: 3 identifiers, 2 different, in 1 lines")
    assert second.startswith("  4 workers 1.0 s, one process 2.0 s: 2.0x as fast on ")
    first, *_ = report.comparison(totals, 1.0, Totals(), 2.0, 4)
    assert "do NOT agree" in first
    assert report.closing(totals, 2.0, killed=1, again=True, lost=0).endswith(
        "MB/s); 1 worker killed and its task run again; 0 lost"
    )


def test_progress_is_a_line_each_quarter_where_no_terminal_is() -> None:
    stream = io.StringIO()
    progress = Progress("indexed", 8, stream)
    for done in range(9):
        progress.show(done)
        progress.clear()
    lines = stream.getvalue().splitlines()
    assert [line.split(" files")[0] for line in lines] == [
        f"  indexed  {done} of 8" for done in (2, 4, 6, 8)
    ]


def test_progress_on_a_terminal_is_one_line_that_can_be_cleared() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress("indexed", 8, stream)
    progress.show(1)
    progress.show(2)  # too soon to draw again
    progress.clear()
    progress.clear()
    progress.show(3)
    assert stream.getvalue().count("\r\x1b[K  indexed") == 2
    assert stream.getvalue().count("\r\x1b[K") == 3
    assert "\n" not in stream.getvalue()


def test_importing_the_demo_loads_nothing_else() -> None:
    import subprocess

    program = "import sys, evener.demo; print([n for n in sys.modules if n in ('zmq', 'ast')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


_HELD = "ab" * 16
_OTHER = "cd" * 16  # what another worker runs all the time


class _FakeBroker:
    """Lists of a broker with two workers, one a real process, as they change when it is killed.

    `starts`: how often the broker charges the killed one's death to its task.
    """

    def __init__(self, pid: int, states: list[str], starts: int = 1, told: str = _HELD) -> None:
        self.pid = pid
        self.states = states
        self.starts = starts
        self.told = told
        self.said: list[str] = []
        self.polls = 0

    def ask(self, kind: str, **filters: str) -> list[dict[str, Any]]:
        dead = not is_running(self.pid)
        self.polls += 1
        if kind == "workers":
            pid = self.pid + 1 if dead and not self.states else self.pid
            row = {"state": "ready", "running": "f", "tasks": 1, "running_ms": 1000 * self.polls}
            busy = row | {"name": "w1", "pid": pid, "task": bytes.fromhex(self.told)}
            other = row | {"name": "w2", "pid": None, "task": bytes.fromhex(_OTHER)}
            return [other, busy]
        state = self.states.pop(0) if dead and self.states else "running"
        task = {"id": _HELD, "state": state, "attempt": 1}
        task["starts"] = self.starts if dead else 0
        task["attempt"] = 2 if dead and state not in ("running", "queued") else 1
        other = {"id": _OTHER, "state": "running", "starts": 0}
        return [row for row in (task, other) if filters.get("id", row["id"]) == row["id"]]

    def strike(self) -> Loss | None:
        return Assassin(self.ask, self.said.append, lambda task: task[:8], lambda: None).strike()


def test_a_kill_is_shown_as_the_broker_lists_it(processes: Processes) -> None:
    process = processes.start("sleep", "60")
    broker = _FakeBroker(process.pid, ["queued", "queued", "assigned"])
    loss = broker.strike()
    assert process.wait(10) == -signal.SIGKILL
    assert loss is not None
    assert (loss.worker, loss.pid, loss.new_pid) == ("w1", process.pid, process.pid + 1)
    assert loss.task == _HELD
    assert [line.split()[0] for line in broker.said] == [
        "half-way:",
        "lost",
        "requeued",
        "replaced",
    ]
    assert "abababab" in broker.said[1]


@pytest.mark.parametrize(
    ("states", "starts", "said"),
    [
        (["done"] * 9, 0, "NOT lost  abababab, which it had not begun: given back, now done"),
        (
            ["running"] * 999,
            0,
            "NOT lost  abababab, which is running as the broker says, after",
        ),
        (["queued"] * 999, 1, "NOT seen to run again, which is queued as the broker says"),
        (["lost"] * 999, 3, "NOT seen to run again, which is lost as the broker says"),
    ],
)
def test_what_was_not_seen_is_not_claimed(
    states: list[str],
    starts: int,
    said: str,
    processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_AGAIN_S", "_REPLACEMENT_S"):
        monkeypatch.setattr(f"evener.demo.victim.{name}", 0.05)
    monkeypatch.setattr("evener.demo.victim._TRIES_MAX", 1)
    broker = _FakeBroker(processes.start("sleep", "60").pid, states, starts)
    loss = broker.strike()
    assert loss is not None
    assert loss.again_s is None
    assert (loss.lost_s is None) == (starts == 0)
    text = "\n".join(broker.said)
    assert said in text
    assert "requeued" not in text
    assert ("  lost" in text) == (starts > 0)


def test_what_another_worker_runs_for_long_is_not_taken_for_the_victims(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that stands still runs nothing, as far as the broker has heard."""
    monkeypatch.setattr("evener.demo.victim._HELD_S", 0.0)
    monkeypatch.setattr("evener.demo.victim._HELD_WAIT_S", 0.05)
    process = processes.start("sleep", "60")
    broker = _FakeBroker(process.pid, [], told="")
    assert broker.strike() is None
    assert is_running(process.pid)


def test_a_worker_that_comes_not_back_is_told(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evener.demo.victim._REPLACEMENT_S", 0.01)
    process = processes.start("sleep", "60")
    broker = _FakeBroker(process.pid, ["done"] * 1000)
    loss = broker.strike()
    assert loss is not None
    assert loss.new_pid is None
    assert "NOT replaced" in broker.said[-1]


def test_a_worker_between_two_tasks_goes_on(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evener.demo.victim._HELD_WAIT_S", 0.01)
    process = processes.start("sleep", "60")
    broker = _FakeBroker(process.pid, [], told="")
    assert broker.strike() is None
    assert broker.said == ["no worker is busy: none was killed"]
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "State:\tT (stopped)" not in status


def test_nobody_is_killed_when_nobody_is_there() -> None:
    said: list[str] = []
    assert Assassin(lambda kind, **filters: [], said.append, str, lambda: None).strike() is None
    assert said == ["no worker is busy: none was killed"]
