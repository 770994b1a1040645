"""Which lines of a dead worker its task's error repeats."""

from __future__ import annotations

from evener.errors import TaskLost


def text_of(*lines: str) -> str:
    return str(TaskLost("poison", "t.f[1]", {"worker": "vm:1", "signal": 11, "lines": lines}))


def test_after_a_crash_the_place_in_the_users_code_is_shown() -> None:
    text = text_of(
        *(f"line {number}" for number in range(6)),
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x00007f (most recent call first):",
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at',
        '  File "/home/ada/jobs.py", line 7 in crash',
        '  File "/site-packages/evener/execution.py", line 90 in run',
        '  File "/site-packages/evener_worker/runner_loop.py", line 12 in loop',
        '  File "<frozen runpy>", line 88 in _run_code',
        "",
        "Extension modules: zmq, msgpack (total: 2)",
    )
    assert "Segmentation fault" in text
    assert '"/home/ada/jobs.py", line 7 in crash' in text
    for noise in ("Extension modules", "runpy", "evener_worker/", "line 0"):
        assert noise not in text


def test_otherwise_the_last_lines_are() -> None:
    text = text_of(*(f"line {number}" for number in range(9)))
    assert "line 3" not in text
    assert "line 4" in text
