"""Registering schedules: what may be one, how it is told to the broker, how mistakes are named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import evener
from evener.errors import UsageError
from evener.payload import decode_call
from evener_wire.checks import schedule as check
from evener_wire.messages import Schedule

app = evener.App("main")


def clean() -> int:
    return 3


def with_argument(x: int) -> int:
    return x


async def clean_async() -> int:
    return 4


def test_every_alone_registers_the_function_too() -> None:
    app = evener.App("demo")
    clean_up = app.every("5m")(clean)
    assert app.functions["demo.clean"] is clean_up
    assert clean_up() == 3
    (schedule,) = app.schedules()
    assert schedule == check(tuple(schedule))
    assert schedule[:8] == ("demo.clean", "demo.clean", 300_000, "", "", "skip", "once", 0)
    assert decode_call(schedule.call, trusted=False)[0] == []


def test_above_task_it_keeps_the_options_of_the_task() -> None:
    app = evener.App("demo")
    found = app.every("1h", overlap="cancel", late="skip", jitter="5m")(app.task(retries=3)(clean))
    assert found.task_options is not None
    assert found.task_options.retries == 3
    assert app.schedules()[0][2:8] == (3_600_000, "", "", "cancel", "skip", 300_000)


def test_cron_has_a_time_zone() -> None:
    app = evener.App("demo")
    app.cron("0  3 * * mon", timezone="Europe/Vienna", overlap="queue")(clean)
    assert app.schedules()[0][2:8] == (0, "0 3 * * mon", "Europe/Vienna", "queue", "once", 0)


def test_an_async_function_stays_one() -> None:
    app = evener.App("demo")
    assert isinstance(app.every(60)(clean_async), type(app.task(name="other")(clean_async)))


def test_a_function_may_have_two_schedules_of_different_names() -> None:
    app = evener.App("demo")
    app.every("1d", name="daily")(app.every("1h")(clean))
    assert [schedule.name for schedule in app.schedules()] == ["demo.clean", "daily"]
    with pytest.raises(UsageError, match='there is a schedule "daily" already'):
        app.every("2d", name="daily")(clean_async)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda app: app.every("5 apples"), "not a duration"),
        (lambda app: app.every(0), "too often"),
        (lambda app: app.every("5m", overlap="perhaps"), "none of skip, queue, cancel"),
        (lambda app: app.every("5m", late="never"), "none of once, skip"),
        (lambda app: app.every("5m", jitter="6m"), "shorter than the interval"),
        (lambda app: app.every("5m", retries=3), 'no option "retries"'),
        (lambda app: app.every("5m", name="a b")(clean), "not a name"),
        (lambda app: app.every("5m")(with_argument), "missing a required argument: 'x'"),
        (lambda app: app.every("5m")(globals()["app"].task(clean)), "another app"),
        (lambda app: app.cron("every day"), "five fields"),
        (lambda app: app.cron("61 * * * *"), "no cron expression: Bad minute"),
        (lambda app: app.cron("0 3 * * *", timezone="Mars/Crater"), "not known on this machine"),
    ],
)
def test_mistakes_are_named(wrong: Callable[[evener.App], Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        wrong(evener.App("demo"))


def test_without_cronsim_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cronsim'] = None\n"
        "import evener\n"
        "try:\n    evener.App('demo').cron('* * * * *')\n"
        "except evener.UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "pip install 'evener[cron]'" in done.stdout


def test_a_schedule_without_either_time_is_refused_on_the_wire() -> None:
    good = Schedule("a", "a", 1_000, "", "", "skip", "once", 0, b"")
    for wrong in (
        good._replace(every_ms=0),
        good._replace(cron="* * * * *"),
        good._replace(overlap="maybe"),
        good._replace(call=bytes(2_000)),
        good._replace(name="a b"),
    ):
        with pytest.raises(ValueError, match=r"."):
            check(tuple(wrong))
