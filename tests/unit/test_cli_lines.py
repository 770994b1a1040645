"""Lines of the agent, in the format that was asked for."""

from __future__ import annotations

import json

from evener.cli import logs


def test_a_line_of_the_agent_is_as_one_of_the_broker() -> None:
    line = logs.line_maker("agent", "json")("warning", "two\nlines")
    body = json.loads(line)
    assert (body["level"], body["role"], body["msg"]) == ("warning", "agent", "two\nlines")
    assert logs.line_maker("agent", "plain")("info", "text").endswith("Z agent INFO text")
    assert logs.line_maker("agent", "short")("info", "text").endswith(" agent INFO    text")


def test_a_traceback_stays_readable() -> None:
    line = logs.line_maker("agent", "plain")("error", "Traceback:\n  theirs")
    assert line.endswith("agent ERROR Traceback:\n  theirs")
