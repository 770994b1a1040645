"""All rows of the table, in its order."""

from __future__ import annotations

from tests.chaos import rows_broker, rows_compose, rows_disk, rows_network, rows_process
from tests.chaos.run import Row


def _number(row: Row) -> tuple[int, str]:
    digits = "".join(c for c in row.name if c.isdigit())
    return int(digits), row.name


_FILES = (rows_process, rows_network, rows_broker, rows_disk, rows_compose)

ROWS: tuple[Row, ...] = tuple(sorted((row for file in _FILES for row in file.ROWS), key=_number))
