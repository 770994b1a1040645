"""Every bound has its reason, and the document that other implementations follow says the same."""

from __future__ import annotations

import re
from typing import Final

import pytest

from evener_wire import limits
from tests.support import ROOT

SOURCE: Final = (ROOT / "wire/evener_wire/limits.py").read_text()
PROTOCOL: Final = (ROOT / "docs/protocol.md").read_text()

VALUES: Final = {name: value for name, value in vars(limits).items() if name.isupper()}
UNITS: Final = {"KIB", "MIB", "MILLISECOND_NS", "SECOND_NS"}

# Rows of the table of limits: | `NAME` | value | unit | what it bounds |
ROW: Final = re.compile(r"^\| `([A-Z_]+)` \| ([\d ]+) \| ([^|]*) \|", re.MULTILINE)
TABLE: Final = PROTOCOL.partition("\n## Limits\n")[2].partition("\n## ")[0]
ROWS: Final = {name: (value, unit.strip()) for name, value, unit in ROW.findall(TABLE)}


def test_all_limits_are_positive_whole_numbers() -> None:
    assert VALUES
    for name, value in VALUES.items():
        assert type(value) is int, name
        assert value > 0 or name == "PRIORITY_MIN", name


def test_every_limit_stands_below_a_comment_with_its_reason() -> None:
    reasoned = False
    for line in SOURCE.splitlines():
        if line.startswith("# "):
            reasoned = not line.startswith("# ---")
        elif not line:
            reasoned = False
        elif match := re.match(r"([A-Z_]+) = ", line):
            assert reasoned or match[1] in UNITS, f"{match[1]} has no reason above it"


@pytest.mark.parametrize("name", sorted(VALUES.keys() - UNITS))
def test_the_document_names_every_limit_with_its_value(name: str) -> None:
    assert name in ROWS, f"docs/protocol.md does not list {name}"
    written, unit = ROWS[name]
    value = int(written.replace(" ", ""))
    factor = {"ns": 1, "ms": limits.MILLISECOND_NS, "s": limits.SECOND_NS}
    factor |= {"KiB": limits.KIB, "MiB": limits.MIB}
    assert value * factor.get(unit, 1) == VALUES[name], f"{name} is {VALUES[name]}"
    if name.endswith("_NS"):
        assert unit in ("ns", "ms", "s"), f"{name} has no unit of time"


def test_the_document_lists_no_limit_that_does_not_exist() -> None:
    assert ROWS.keys() <= VALUES.keys() - UNITS
    mentioned = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*_(?:MAX|MIN|NS|TARGET|BYTES))`", PROTOCOL))
    assert mentioned <= VALUES.keys() | {"EPOCH_MAX", "ATTEMPTS_MAX"}
