"""docs/bounds.md against the source: each container that lives long is there, each name exists.

Rules of this file: it reads files and imports nothing of evener. A container is what an `__init__`
makes empty; what a function makes for itself ends with it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bounds.md"
PACKAGES = [
    ROOT / "wire" / "evener_wire",
    ROOT / "broker" / "evener_broker",
    ROOT / "worker" / "evener_worker",
    ROOT / "client" / "evener",
]

CONTAINERS = {"dict", "list", "set", "deque", "Counter", "OrderedDict", "Queue", "SimpleQueue"}

# Of the client, what a program makes or what only starts others: as long as the program says.
OTHERS = {"App", "Child", "LocalCluster", "Execution", "Loaded", "_Shape"}
OTHER_FOLDERS = {"cli", "demo"}


def _files() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            if not OTHER_FOLDERS & set(path.parts):
                yield path


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _makes_container(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List | ast.Set):
        return not value.elts
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2].partition("[")[0] in CONTAINERS
    return False


def _containers() -> set[str]:
    """`Class.attribute` of each."""
    found: set[str] = set()
    for path in _files():
        for owner in _tree(path).body:
            if not isinstance(owner, ast.ClassDef) or owner.name in OTHERS:
                continue
            for method in owner.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    found |= {f"{owner.name}.{name}" for name in _made_in(method)}
    return found


def _made_in(method: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(method):
        if isinstance(node, ast.Assign | ast.AnnAssign) and _makes_container(node.value):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                yield target.attr


def _limits() -> set[str]:
    """Names that modules give to numbers."""
    found: set[str] = set()
    for path in _files():
        for node in _tree(path).body:
            if isinstance(node, ast.Assign):
                found |= {ast.unparse(target) for target in node.targets}
            elif isinstance(node, ast.AnnAssign):
                found.add(ast.unparse(node.target))
    return found


def _named(pattern: str) -> set[str]:
    return set(re.findall(pattern, PAGE.read_text(encoding="utf-8")))


def test_every_container_has_its_bound_on_the_page() -> None:
    missing = _containers() - _named(r"`(_?[A-Z]\w*\._?[a-z]\w*)`")
    assert missing == set(), f"say in {PAGE.name} what bounds them, in entries and in bytes"


def test_the_page_names_no_container_that_is_gone() -> None:
    gone = _named(r"`(_?[A-Z]\w*\._?[a-z]\w*)`") - _containers()
    assert gone == set()


def test_the_page_names_limits_that_exist() -> None:
    named = _named(r"`(_?[A-Z][A-Z0-9]+_[A-Z0-9_]+)`")
    assert len(named) > 30
    assert named - _limits() == set()


def test_every_bound_on_what_peers_may_take_is_on_the_page() -> None:
    limits = ROOT / "wire" / "evener_wire" / "limits.py"
    names = {
        ast.unparse(node.targets[0]) for node in _tree(limits).body if isinstance(node, ast.Assign)
    }
    of_peers = re.compile("(BROKER|CLIENT|PARKED|PEER|FLIGHT|TURN|SESSION)")
    of_broker = {name for name in names if of_peers.match(name)}
    missing = of_broker - _named(r"`(_?[A-Z][A-Z0-9]+_[A-Z0-9_]+)`")
    assert missing == set()
