"""How much a broker takes: the options for that of the commands that start one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from evener.cli.journal import SizeType
from evener.cli.options import option

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_COUNT: Final = click.IntRange(1, 100_000_000)


def bound_options(function: Decorated) -> Decorated:
    """Bounds on tasks, on the bytes of their calls and results, and on the process."""
    section = "Bounds"
    for decorate in (
        option(
            "--memory-limit",
            key="broker.memory_limit",
            type=SizeType(),
            metavar="SIZE",
            section=section,
        ),
        option(
            "--max-client-bytes",
            key="broker.max_client_bytes",
            type=SizeType(),
            metavar="SIZE",
            section=section,
        ),
        option(
            "--max-client-tasks",
            key="broker.max_client_tasks",
            type=_COUNT,
            metavar="N",
            section=section,
        ),
        option(
            "--max-bytes",
            key="broker.max_bytes",
            type=SizeType(),
            metavar="SIZE",
            section=section,
        ),
        option(
            "--max-tasks",
            key="broker.max_tasks",
            type=_COUNT,
            metavar="N",
            section=section,
        ),
    ):
        function = decorate(function)
    return function
