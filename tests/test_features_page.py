"""docs/features.md against the house: each page, each name, each command and each test exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from evener.cli.group import cli
from evener.config.schema import SCHEMA

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "features.md"
MODULES = ("evener_worker.child", "evener_worker", "evener")
NOT_YET = "not yet"


class Row(NamedTuple):
    """A line of the table."""

    number: int
    what: str
    page: str
    api: str
    tests: str


def _rows() -> list[Row]:
    rows: list[Row] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| \d+ \|", line):
            number, what, page, api, tests = (cell.strip() for cell in line.strip("|").split("|"))
            rows.append(Row(int(number), what, page, api, tests))
    return rows


ROWS = _rows()
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row{row.number}")


def test_every_row_is_there_once() -> None:
    assert [row.number for row in ROWS] == [*range(1, len(ROWS) + 1)]
    assert len(ROWS) >= 38


@each_row
def test_a_row_is_built_or_says_that_it_is_not_yet(row: Row) -> None:
    cells = (row.page, row.api, row.tests)
    assert all(cells)
    assert [cell == NOT_YET for cell in cells] in ([True] * 3, [False] * 3)


@each_row
def test_its_pages_are_there(row: Row) -> None:
    for target in re.findall(r"\]\((.*?)\)", row.page):
        assert (PAGE.parent / target).is_file(), target
    assert "](" in row.page or row.page == NOT_YET


def _names(api: str) -> Iterator[str]:
    """What stands in backticks; `.name` is another one of the class before it."""
    owner = ""
    for name in re.findall(r"`(.*?)`", api):
        if name.startswith("."):
            assert owner, f"{name} of what?"
            yield owner + name
        else:
            yield name
            owner = name.rpartition(".")[0] if re.search(r"[A-Z]\w*\.\w+$", name) else name


def _check_python(name: str) -> None:
    module = next(m for m in MODULES if name == m or name.startswith(f"{m}."))
    found: object = import_module(module)
    for part in name.removeprefix(module).strip(".").split("."):
        annotated = getattr(found, "__annotations__", {})
        assert hasattr(found, part) or part in annotated, f"{name} does not exist"
        found = getattr(found, part, None)


def _check_command(words: list[str]) -> None:
    command: click.Command = cli
    for word in words:
        if isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"no command {word}"
            command = found
        elif word.startswith("--"):
            assert word in [option for p in command.params for option in p.opts], f"no {word}"
        else:
            kind = command.params[0].type
            assert isinstance(kind, click.Choice), f"evener {command.name} takes no word"
            assert word in kind.choices


@each_row
def test_what_it_names_can_be_used(row: Row) -> None:
    for name in _names(row.api):
        if name.isupper():
            assert name in {variable for key in SCHEMA.values() for variable in key.variables}
        elif name.startswith("evener "):
            _check_command(name.split()[1:])
        else:
            _check_python(name)


@cache
def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


@each_row
def test_its_tests_are_there(row: Row) -> None:
    named = re.findall(r"`(.*?)`", row.tests)
    for name in named:
        path, _, test = name.partition("::")
        assert (ROOT / "tests" / path).is_file(), path
        if path.startswith("typing/"):
            assert not test, "checked by mypy and basedpyright, never run"
        else:
            assert test.startswith("test_")
            assert test in _functions(ROOT / "tests" / path), name
    assert named or row.tests == NOT_YET
