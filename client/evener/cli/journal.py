"""`--journal` and `--journal-size`, for the commands that start a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evener.cli.options import option

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Bytes = click.ParamType[int]
else:
    _Bytes = click.ParamType  # not generic before click 8.5


class SizeType(_Bytes):
    """`4GiB`, `512MiB`, or a number of bytes; becomes bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from evener.config.kinds import parse_size

        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(f'"{value}" {error}', param, ctx)


def journal_options(function: Decorated) -> Decorated:
    """Where a broker keeps what it accepted."""
    section = "Journal"
    for decorate in (
        option(
            "--journal-size",
            key="broker.journal_size",
            type=SizeType(),
            metavar="SIZE",
            section=section,
        ),
        option(
            "--journal",
            key="broker.journal",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            section=section,
        ),
    ):
        function = decorate(function)
    return function
