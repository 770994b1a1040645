"""The page that other implementations follow describes the messages that the code has."""

from __future__ import annotations

import re
from dataclasses import fields as dataclass_fields
from typing import Any, Final, get_args

import pytest

from evener_wire import messages as m
from tests.support import ROOT

PAGE: Final = (ROOT / "docs/protocol.md").read_text()

# The part of the page about each message: its kind, and the first column of its first table.
SECTION: Final = re.compile(
    r"^### ([A-Z]+) \((\d+)\) (.*?)\n(.*?)(?=^##)", re.MULTILINE | re.DOTALL
)
SECTIONS: Final = {name: (int(kind), body) for name, kind, _, body in SECTION.findall(PAGE)}
MESSAGES: Final = {message.__name__.upper(): message for message in get_args(m.Message)}


def first_table(text: str) -> list[list[str]]:
    """The cells of the first table in a text, without its header."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def test_every_message_has_its_section_with_its_kind() -> None:
    assert {name: kind for name, (kind, _) in SECTIONS.items()} == {
        name: message.KIND for name, message in MESSAGES.items()
    }


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_fields_stand_in_their_order(name: str) -> None:
    rows = first_table(SECTIONS[name][1])
    fields = [field.name for field in dataclass_fields(MESSAGES[name])]
    assert [row[0] for row in rows] == fields
    assert all(row[1] for row in rows), "a field without a type"


def test_the_options_stand_in_their_order_with_their_defaults() -> None:
    text = SECTIONS["SUBMIT"][1].partition("| option |")[2]
    rows = first_table("| option |" + text)
    assert [row[0] for row in rows] == list(m.Options._fields)
    for (name, _, default), value in zip(rows, m.DEFAULT_OPTIONS, strict=True):
        stated = default.partition(";")[0].partition(":")[0].strip("`")
        named: dict[str, Any] = {
            "PRIORITY_DEFAULT": m.DEFAULT_OPTIONS.priority,
            "MAX_STARTS_DEFAULT": m.DEFAULT_OPTIONS.max_starts,
            "empty": (),
            "false": False,
            "default": "default",
        }
        assert named.get(stated, stated) == value or int(stated) == value, name


@pytest.mark.parametrize(
    ("section", "words"), [("TERMINAL", m.TERMINAL_STATES), ("RESULT", m.OUTCOMES)]
)
def test_states_and_outcomes_have_their_numbers(section: str, words: tuple[str, ...]) -> None:
    rows = re.findall(r"^\| (\d) \| ([a-z ]+) \|", SECTIONS[section][1], re.MULTILINE)
    assert [(int(number), word.replace(" ", "_")) for number, word in rows] == list(
        enumerate(words)
    )


def test_what_the_broker_takes_is_what_its_table_says() -> None:
    listed = dict(re.findall(r"from (a client|an agent) ((?:[A-Z]+, )*[A-Z]+)[;.]", PAGE))
    core = (ROOT / "broker/evener_broker/core.py").read_text()
    for who, handlers in (("a client", "_client_handlers"), ("an agent", "_agent_handlers")):
        block = re.search(rf"self\.{handlers}[^{{]*{{(.*?)}}", core, re.DOTALL)
        assert block, handlers
        taken = {name.upper() for name in re.findall(r"m\.(\w+):", block[1])}
        assert set(listed[who].split(", ")) == taken
