"""Functions that run by themselves: `@app.every("5m")` and `@app.cron("0 3 * * *")`.

Rules of this file: registering and checking only. A schedule travels with the functions of its app
to the broker, and that decides when a run is made.
"""

from __future__ import annotations

import inspect
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from evener.function import Function
from evener.options import Duration, parse_duration, read_delay_ms
from evener.payload import encode_call
from evener_wire.checks import LATES, OVERLAPS, is_name
from evener_wire.errors import UsageError
from evener_wire.limits import NAME_BYTES_MAX, SCHEDULES_MAX
from evener_wire.messages import Schedule

if TYPE_CHECKING:
    from typing import Literal, Unpack

    from evener.app import TaskDecorator

# A shorter interval is no schedule: the broker would be busy making tasks.
_EVERY_MIN_S: Final = 0.1


class ScheduleOptions(TypedDict, total=False):
    """How runs of a schedule are treated. See `docs/how-to/schedules.md`."""

    name: str
    """What `evener ls schedules` calls it; the name of the function."""
    overlap: Literal["skip", "queue", "cancel"]
    """What happens to a run that is due while the last one is open; "skip"."""
    late: Literal["once", "skip"]
    """Whether runs that nobody could make when they were due are made up for by one; "once"."""
    jitter: Duration
    """Over how long runs are spread after they are due; 0."""


class Scheduling:
    """The schedules of an app. `App` inherits them."""

    def __init__(self) -> None:
        self._schedules: dict[str, Schedule] = {}

    @abstractmethod
    def task(self, function: Callable[..., Any], /) -> Function[Any, Any]:
        """What makes a function of the app out of a plain one."""

    def every(self, interval: Duration, /, **options: Unpack[ScheduleOptions]) -> TaskDecorator:
        """Has the function below run each `interval`, once in the cluster, whoever offers it.

        It stands above `@app.task(...)`, or alone. The first run comes one interval after the
        broker first heard of it. `overlap` says what happens to a run that is due while the last
        one is open: "skip" (the default), "queue" it, or "cancel" the last one. `late`: runs that
        were due while nobody could make them are made up for by one ("once", the default), or not
        ("skip"). `jitter` spreads runs over so much time after they are due. `name` is what
        `evener ls schedules` calls it; without one, as the function. Raises `UsageError`.
        """
        seconds = parse_duration("every", interval)
        if seconds < _EVERY_MIN_S:
            raise UsageError(f"every({interval!r}) is too often: give at least {_EVERY_MIN_S} s")
        return self._decorator(round(seconds * 1000), "", "", options)

    def cron(
        self, expression: str, /, *, timezone: str = "UTC", **options: Unpack[ScheduleOptions]
    ) -> TaskDecorator:
        """Has the function below run when a cron expression says so: "*/5 * * * *", "0 3 * * mon".

        Five fields (minute, hour, day, month, weekday), or six with seconds in front, in the time
        of `timezone`, such as "Europe/Vienna". Where the clocks change, a run at a time that does
        not exist comes right after the gap, and a run at a time that exists twice comes once. The
        options are those of `every`. It takes `pip install 'evener[cron]'`, here and where the
        broker runs. Raises `UsageError`.
        """
        text = " ".join(str(expression).split())
        _check_cron(text, timezone)
        return self._decorator(0, text, timezone, options)

    def schedules(self) -> Sequence[Schedule]:
        """Internal: all of them: what an agent tells the broker."""
        return tuple(self._schedules.values())

    def _decorator(
        self, every_ms: int, cron: str, zone: str, options: ScheduleOptions
    ) -> TaskDecorator:
        for option in options:
            if option not in ScheduleOptions.__annotations__:
                known = ", ".join(ScheduleOptions.__annotations__)
                raise UsageError(f'a schedule has no option "{option}"; options: {known}')
        overlap, late = options.get("overlap", "skip"), options.get("late", "once")
        _one_of("overlap", overlap, OVERLAPS)
        _one_of("late", late, LATES)
        jitter_ms = read_delay_ms("jitter", options.get("jitter", 0))
        if every_ms and jitter_ms >= every_ms:
            raise UsageError("jitter must be shorter than the interval")

        def decorate(function: Callable[..., Any]) -> Any:
            is_known = isinstance(function, Function)
            known = cast("Function[Any, Any]", function) if is_known else self.task(function)
            name = options.get("name", known.name)
            self._check(known, name)
            call = encode_call(known.name, ())
            assert type(call) is bytes
            self._schedules[name] = Schedule(
                name, known.name, every_ms, cron, zone, overlap, late, jitter_ms, call
            )
            return known

        return decorate

    def _check(self, function: Function[Any, Any], name: str) -> None:
        if function.app is not self:
            raise UsageError(f"{function.name} is a function of another app: schedule it there")
        try:
            inspect.signature(function.function).bind()
        except TypeError as error:
            raise UsageError(
                f"{function.name} cannot run by itself: it is called without arguments, and {error}"
            ) from None
        except ValueError:
            pass  # written in C, and tells nothing of its parameters
        if not is_name(name):
            raise UsageError(f"name={name!r} is not a name: printable characters without spaces")
        other = self._schedules.get(name)
        if other is not None and not _defined_again(function):
            raise UsageError(
                f'there is a schedule "{name}" already: give this one a name, such as '
                f'name="{name}.2"'
            )
        if other is None and len(self._schedules) >= SCHEDULES_MAX:
            raise UsageError(f"an app has at most {SCHEDULES_MAX} schedules")


def _defined_again(function: Function[Any, Any]) -> bool:
    """Whether it was entered at a prompt, or in a notebook, where people repeat themselves."""
    return function.function.__module__ == "__main__" and not hasattr(
        sys.modules.get("__main__"), "__file__"
    )


def _one_of(option: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{option}={value!r} is none of {', '.join(known)}")


def _check_cron(expression: str, timezone: object) -> None:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise UsageError(
            "app.cron() needs the package cronsim: pip install 'evener[cron]', also where the "
            "broker runs"
        ) from None
    try:
        zone = ZoneInfo(timezone) if isinstance(timezone, str) else None
    except (KeyError, OSError, ValueError):
        zone = None
    if zone is None:
        raise UsageError(
            f'timezone={timezone!r} is not known on this machine: give a name such as "UTC" or '
            '"Europe/Vienna"'
        )
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except StopIteration:
        raise UsageError(f'cron("{expression}") is never due') from None
    except CronSimError as error:
        raise UsageError(
            f'cron("{expression}") is no cron expression: {error}. It has five fields: minute '
            'hour day month weekday, such as "*/5 * * * *" or "0 3 * * mon-fri"'
        ) from None
    if len(expression) > NAME_BYTES_MAX:
        raise UsageError(f"a cron expression has at most {NAME_BYTES_MAX} characters")
