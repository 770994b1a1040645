"""Options as users write them: units, names of types, merging, refusals that help."""

from __future__ import annotations

from datetime import timedelta
from decimal import InvalidOperation
from typing import Any, cast

import pytest

from evener.errors import UsageError
from evener.options import TaskOptions, merge, parse_duration
from evener.texts import seconds_text
from evener_wire.messages import DEFAULT_OPTIONS, Options


def options(**changes: Any) -> Options:
    return merge(None, cast("TaskOptions", changes))


def test_nothing_said_is_the_default() -> None:
    assert options() == DEFAULT_OPTIONS


def test_every_option_reaches_its_field() -> None:
    assert options(
        queue="gpu",
        priority=9,
        retries=3,
        retry_delay=0.5,
        retry_on=ValueError,
        max_starts=1,
        timeout=1.5,
        expires="5m",
        deadline=timedelta(hours=1),
        at_most_once=True,
    ) == Options("gpu", 9, 3, 500, ("ValueError",), 1, 1_500, 300_000, 3_600_000, True)


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        (2, 2_000),
        (0.0001, 1),
        ("250ms", 250),
        ("90s", 90_000),
        ("1.5 m", 90_000),
        ("2min", 120_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        (timedelta(milliseconds=20), 20),
        (None, 0),
    ],
)
def test_durations(given: Any, milliseconds: int) -> None:
    assert options(timeout=given).timeout_ms == milliseconds


@pytest.mark.parametrize(
    "given", [-1, "5", "s", "5 weeks", "-5s", "1e3s", True, float("nan"), 1e300, 10**400, [], b"5s"]
)
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"timeout=.* is not a duration: give seconds up to 3,153"):
        options(timeout=given)
    with pytest.raises(UsageError, match="wait="):
        parse_duration("wait", given)


def test_no_time_at_all_is_refused_but_no_delay_is_fine() -> None:
    with pytest.raises(UsageError, match="deadline=0 leaves no time at all: give more than 0"):
        options(deadline=0)
    assert options(retry_delay=0).retry_delay_ms == 0


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("priority", 10, "from 0 to 9"),
        ("priority", -1, "from 0 to 9"),
        ("priority", True, "from 0 to 9"),
        ("priority", 5.0, "from 0 to 9"),
        ("retries", 1_001, "from 0 to 1,000"),
        ("max_starts", 0, "from 1 to 1,000"),
        ("queue", "", "1 to 128 printable"),
        ("queue", "a b", "1 to 128 printable"),
        ("queue", "x" * 129, "1 to 128 printable"),
        ("queue", "a\nb", "1 to 128 printable"),
        ("queue", 7, "1 to 128 printable"),
        ("at_most_once", 1, "True nor False"),
        ("retry_on", 7, "exception type"),
        ("retry_on", int, "exception type"),
        ("retry_on", [ValueError, 7], "exception type"),
        ("retry_on", "", "exception type"),
        ("retry_on", [f"E{n}" for n in range(33)], "at most 32"),
    ],
)
def test_bad_values_name_option_and_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        options(**{name: value})
    assert allowed in str(caught.value)


def test_an_unknown_option_is_told_with_the_closest() -> None:
    with pytest.raises(UsageError, match=r'unknown option "timeot"\. Did you mean "timeout"\?'):
        options(timeot=3)


def test_types_to_retry_on_are_sent_by_name() -> None:
    assert options(retry_on=(ValueError, InvalidOperation, "builtins.KeyError")).retry_on == (
        "ValueError",
        "decimal.InvalidOperation",
        "KeyError",
    )
    assert options(retry_on="requests.exceptions.Timeout").retry_on == (
        "requests.exceptions.Timeout",
    )


def test_a_type_of_main_is_sent_under_both_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    monkeypatch.setattr(__main__, "__file__", "/somewhere/jobs.py", raising=False)
    kind = type("Busy", (Exception,), {"__module__": "__main__"})
    assert options(retry_on=kind).retry_on == ("__main__.Busy", "jobs.Busy")


def test_what_is_not_named_stays() -> None:
    base = options(timeout=3, retries=2)
    assert merge(base, {"retries": 0}) == base._replace(retries=0)
    assert merge(base, {"timeout": None}) == base._replace(timeout_ms=0)
    assert merge(base, {}) == base


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00001, "10 µs"),
        (0.35, "350 ms"),
        (1.23, "1.2 s"),
        (125, "2 min 5 s"),
        (7_260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
