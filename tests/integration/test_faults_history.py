"""The judge of the fault tests is judged itself: it finds each misdeed that is planted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.history import (
    BEGIN,
    DELIVERY_NS,
    END,
    Death,
    Execution,
    History,
    misdeeds,
    note,
)
from tests.support import ROOT

RUN = Execution("a", 7, 100, 200)
AGAIN = Execution("a", 8, 300, 400)


def test_the_judge_knows_nothing_of_evener() -> None:
    code = "import sys, tests.integration.history; print([m for m in sys.modules if 'evener' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert History(tmp_path).executions() == []
    for what, token in ((BEGIN, "a"), (BEGIN, "b"), (END, "a"), (BEGIN, "a")):
        note(tmp_path, what, token)
    history = History(tmp_path)
    first, second, third = history.executions()
    assert (first.token, first.pid, third.token) == ("a", os.getpid(), "a")
    assert first.ended_ns is not None
    assert first.began_ns <= second.began_ns <= first.ended_ns <= third.began_ns
    assert (second.ended_ns, third.ended_ns) == (None, None)
    assert history.of("b") == [second]
    assert (history.begun(), history.order()) == ({"a", "b"}, ["a", "b", "a"])


def test_what_is_right_is_right() -> None:
    assert misdeeds([RUN], ["a"], ["a"], []) == []
    assert misdeeds([RUN, AGAIN], ["a"], ["a"], [Death(7, 150)]) == []
    # Its result may have died with it.
    assert misdeeds([RUN, AGAIN], ["a"], ["a"], [Death(7, 250)]) == []


def test_each_misdeed_is_found() -> None:
    assert misdeeds([RUN], ["a"], [], []) == ["a: 0 answers"]
    assert misdeeds([RUN], ["a"], ["a", "a"], []) == ["a: 2 answers"]
    cut = Execution("a", 7, 100, None)
    assert misdeeds([cut], ["a"], ["a"], []) == ["a: answered, but never came to its end"]
    assert misdeeds([RUN], [], [], []) == ["a: never asked for, but ran"]
    assert misdeeds([], [], ["a"], []) == ["a: never asked for, but answered"]
    for deaths in ([], [Death(8, 150)], [Death(7, 200 + DELIVERY_NS)]):
        (found,) = misdeeds([RUN, AGAIN], ["a"], ["a"], deaths)
        assert "began again, unasked" in found
