"""Tests over the source itself: sizes, direction of imports, what cores and the broker may not do.

Rules of this file: it reads files and imports nothing of evener. The lists of exceptions below only
shrink; a name on them that needs no exception any more fails too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 400
FUNCTION_LINES_MAX = 70

PACKAGES = {
    "evener_wire": ROOT / "wire",
    "evener_broker": ROOT / "broker",
    "evener": ROOT / "client",
    "evener_worker": ROOT / "worker",
}

# Who may import whom, at any place in a file.
MAY_IMPORT = {
    "evener_wire": {"evener_wire"},
    "evener_broker": {"evener_wire", "evener_broker"},
    "evener": {"evener_wire", "evener"},
    "evener_worker": {"evener_wire", "evener", "evener_worker"},
}

# The command line alone looks up, and only inside the functions that start a broker or an agent.
LAZY = {"client/evener/cli": {"evener_broker", "evener_worker"}}

# The deciding parts. In the broker they are everything but these shells; elsewhere they are named.
BROKER_SHELLS = {
    "__main__.py",
    "intake.py",
    "journal.py",
    "journal_damage.py",
    "journal_schema.py",
    "journal_store.py",
    "roster_file.py",
    "runtime.py",
    "server.py",
    "shell.py",
}
CLIENT_CORES = {
    "deadlines.py",
    "expiry.py",
    "session.py",
    "session_records.py",
    "session_state.py",
    "session_streams.py",
    "session_work.py",
    "submissions.py",
}
WORKER_CORES = {
    "attempts.py",
    "care.py",
    "channel.py",
    "core.py",
    "effects.py",
    "ending.py",
    "estimates.py",
    "events.py",
    "handout.py",
    "health.py",
    "ledger.py",
    "local/calls.py",
    "local/desk.py",
    "local/errors.py",
    "local/feed_items.py",
    "local/feed_steps.py",
    "local/feeding.py",
    "local/ledger.py",
    "local/lives.py",
    "local/machine.py",
    "local/seats.py",
    "local/stimuli.py",
    "local/talk.py",
    "local/waits.py",
    "pool.py",
    "questions.py",
    "recycling.py",
    "rolling.py",
    "reports.py",
    "session.py",
    "slots.py",
    "stopping.py",
    "streams.py",
}
WIRE_EXTRA_BANS = {"socket", "os", "select", "selectors", "pathlib", "threading", "subprocess"}
CORE_BANS = {
    "zmq",
    "sqlite3",
    "time",
    "asyncio",
    "logging",
    "socket",
    "threading",
    "subprocess",
    "secrets",
}

# Names that would turn received bytes into objects or code.
EXECUTING = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"}
EXECUTING_CALLS = {"eval", "exec", "compile", "__import__", "recv_pyobj", "send_pyobj"}

# Not tests and not packages: no rule on direction of imports, but all on size.
OTHER_FOLDERS = ("tests", "benchmarks", "examples")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _package_files(package: str) -> list[Path]:
    return sorted((PACKAGES[package] / package).rglob("*.py"))


def _all_files() -> list[Path]:
    files = [path for package in PACKAGES for path in _package_files(package)]
    for folder in OTHER_FOLDERS:
        files += sorted((ROOT / folder).rglob("*.py"))
    return files


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each imported top-level module with its line, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield (node.module or "").partition(".")[0], node.lineno


def _imports_at_top(tree: ast.Module) -> set[int]:
    """The lines of the imports that run when the module is imported."""
    inside = {
        child.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
        if isinstance(child, ast.Import | ast.ImportFrom)
    }
    return {line for _, line in _imports(tree)} - inside


# --- Sizes ----------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    long = {_name(path): len(path.read_text().splitlines()) for path in _all_files()}
    assert {name: lines for name, lines in long.items() if lines > LINES_MAX} == {}


def test_functions_are_short() -> None:
    long = {
        f"{_name(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in _all_files()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    files = [path for path in _all_files() if path.read_text().strip()]
    assert [_name(path) for path in files if ast.get_docstring(_tree(path)) is None] == []


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong: list[str] = []
    for path in _package_files(package):
        tree = _tree(path)
        at_top = _imports_at_top(tree)
        for module, line in _imports(tree):
            if module not in PACKAGES or module in MAY_IMPORT[package]:
                continue
            lazy = [allowed for folder, allowed in LAZY.items() if _name(path).startswith(folder)]
            if line in at_top or not any(module in allowed for allowed in lazy):
                wrong.append(f"{_name(path)}:{line} imports {module}")
    assert wrong == []


def test_a_root_holds_its_package_and_a_readme() -> None:
    for package, root in PACKAGES.items():
        held = {path.name for path in root.iterdir()} - {"__pycache__"}
        assert held == {package, "README.md"}, root
        assert (root / package / "py.typed").exists(), f"{package} has no py.typed"


def _cores() -> list[Path]:
    broker = [path for path in _package_files("evener_broker") if path.name not in BROKER_SHELLS]
    client = [PACKAGES["evener"] / "evener" / name for name in CLIENT_CORES]
    worker = [PACKAGES["evener_worker"] / "evener_worker" / name for name in WORKER_CORES]
    return [*broker, *client, *worker, *_package_files("evener_wire")]


def test_cores_do_no_io() -> None:
    wrong: list[str] = []
    for path in _cores():
        bans = CORE_BANS | (WIRE_EXTRA_BANS if "evener_wire" in path.parts else set())
        if not path.exists():
            wrong.append(f"{_name(path)} is named as a core and does not exist")
            continue
        tree = _tree(path)
        for module, line in _imports(tree):
            if module in bans:
                wrong.append(f"{_name(path)}:{line} imports {module}")
        wrong += [
            f"{_name(path)}:{line} makes its own randomness" for line in _own_randomness(tree)
        ]
    assert wrong == []


def _own_randomness(tree: ast.Module) -> Iterator[int]:
    """Lines that do more with `random` than to name the type of the generator handed in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random":
            if node.attr != "Random":
                yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "random.Random":
            yield node.lineno


@pytest.mark.parametrize("package", ["evener_wire", "evener_broker"])
def test_nothing_received_becomes_an_object(package: str) -> None:
    wrong: list[str] = []
    for path in _package_files(package):
        tree = _tree(path)
        wrong += [f"{_name(path)}:{n} imports {m}" for m, n in _imports(tree) if m in EXECUTING]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                if called in EXECUTING_CALLS and ast.unparse(node.func) != "re.compile":
                    wrong.append(f"{_name(path)}:{node.lineno} calls {called}")
    assert wrong == []


# --- Errors ---------------------------------------------------------------------------------------


def test_no_error_is_swallowed_unread() -> None:
    """No bare `except:`, and no handler for all exceptions that does nothing."""
    wrong: list[str] = []
    for path in _all_files():
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(statement, ast.Pass) for statement in node.body)
            if node.type is None or (broad and silent):
                wrong.append(f"{_name(path)}:{node.lineno}")
    assert wrong == []


# --- Limits, messages, documents ------------------------------------------------------------------

LIMITS = ROOT / "wire" / "evener_wire" / "limits.py"
MESSAGES = ROOT / "wire" / "evener_wire" / "messages.py"
DECODERS = ROOT / "wire" / "evener_wire" / "decoders.py"
PROTOCOL = ROOT / "docs" / "protocol.md"

# Units, and limits that the line above explains for a whole group.
PLAIN_LIMITS = {"KIB", "MIB", "MICROSECOND_NS", "MILLISECOND_NS", "SECOND_NS", "ID_BYTES"}


def _explained(lines: list[str], line: int) -> bool:
    """Whether a comment stands behind an assignment, or above the block of lines it is in."""
    if "  # " in lines[line - 1]:
        return True
    above = line - 2
    while above >= 0 and lines[above].strip() and not lines[above].startswith("#"):
        above -= 1
    return above >= 0 and lines[above].startswith("#")


def test_every_limit_has_its_reason() -> None:
    lines = LIMITS.read_text().splitlines()
    bare = {
        ast.unparse(node.targets[0])
        for node in _tree(LIMITS).body
        if isinstance(node, ast.Assign) and not _explained(lines, node.lineno)
    }
    assert bare - PLAIN_LIMITS == set()


def _messages() -> list[str]:
    return [
        node.name
        for node in _tree(MESSAGES).body
        if isinstance(node, ast.ClassDef)
        if any("KIND" in ast.unparse(statement) for statement in node.body)
    ]


def test_every_message_is_decoded_and_specified() -> None:
    names = _messages()
    assert len(names) > 15
    decoders = DECODERS.read_text()
    assert [name for name in names if not re.search(rf"\b_?{name}\b", decoders)] == []
    if PROTOCOL.exists():
        text = PROTOCOL.read_text()
        assert [name for name in names if name.upper() not in text] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/*.md"])
def test_documents_name_targets_that_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in ROOT.glob(document):
        named = set(re.findall(r"(?:`|^|\$ )make ([a-z]+)", path.read_text(), re.MULTILINE))
        assert named <= targets, f"{_name(path)} names {sorted(named - targets)}"


def test_switched_off_rules_have_reasons() -> None:
    """Rules ignored and bounds in pyproject.toml have a comment on the line or right above."""
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if re.search(r'^\s*"[A-Z]+\d+",|^\s*"[\w-]+>=', line) or '= "none"' in line
        if "#" not in line and not above.strip().startswith("#")
    ]
    assert bare == []
