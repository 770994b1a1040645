"""What SIGHUP means: with a terminal, without one, under nohup, and when the terminal is closed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest

_CHILD = """
import os, signal, sys
from evener.wakeups import Hangup, signal_pipe
if sys.argv[1] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
hangup = Hangup()
with signal_pipe([signal.SIGHUP]) as reader:
    os.set_blocking(reader, True)
    os.write(int(sys.argv[2]), b"ready\\n")
    for _ in range(int(sys.argv[3])):
        os.read(reader, 1)
        os.write(int(sys.argv[2]), hangup.means().value.encode() + b"\\n")
"""


def _control(terminal: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("how", "closed"), [("plain", "stop"), ("nohup", "nothing")], ids=["plain", "nohup"]
)
def test_on_a_terminal(how: str, closed: str) -> None:
    ours, theirs = os.openpty()
    told, tell = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, how, str(tell), "3"],
        pass_fds=(tell, theirs),
        start_new_session=True,
        preexec_fn=lambda: _control(theirs),
    ) as child:
        os.close(tell)
        os.close(theirs)
        with os.fdopen(told) as lines:
            assert lines.readline() == "ready\n"
            child.send_signal(signal.SIGHUP)
            assert lines.readline() == "reload\n"
            os.close(ours)  # the kernel tells whoever leads the session
            assert lines.readline() == f"{closed}\n"
            child.send_signal(signal.SIGHUP)
            assert lines.readline() == "reload\n", "now there is none any more"
        assert child.wait(10) == 0


def test_without_a_terminal() -> None:
    told, tell = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, "plain", str(tell), "1"],
        pass_fds=(tell,),
        start_new_session=True,
    ) as child:
        os.close(tell)
        with os.fdopen(told) as lines:
            assert lines.readline() == "ready\n"
            child.send_signal(signal.SIGHUP)
            assert lines.readline() == "reload\n"
        assert child.wait(10) == 0
