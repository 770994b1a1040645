"""Loading an app: every way to name one, and a sentence that helps for every way to err."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evener.app import App
from evener.errors import LoadError, UsageError
from evener.loading import load_app

DEMO = 'from evener.app import App\napp = App("demo")\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder of its own; modules that a test imports are forgotten after it."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.path_importer_cache.pop(str(tmp_path), None)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "target",
    ["ld_demo:app", "ld_demo", "ld_demo.py:app", "ld_demo.py", "./ld_demo.py", "ld_demo:box.app"],
)
def test_every_way_to_name_an_app(folder: Path, target: str) -> None:
    write(folder / "ld_demo.py", DEMO + "class box:\n    app = app\n")
    app = load_app(target)
    assert isinstance(app, App)
    assert app.name == "demo"
    assert app is load_app("ld_demo:app")
    assert app.module == "ld_demo"
    assert sys.path[0] == str(folder)


def test_a_file_elsewhere_finds_its_neighbours(folder: Path) -> None:
    write(folder / "jobs" / "ld_neighbour.py", "name = 'found'\n")
    path = write(
        folder / "jobs" / "ld_work.py", f"import ld_neighbour\n{DEMO}app.name = ld_neighbour.name\n"
    )
    assert load_app("jobs/ld_work.py:app").name == "found"
    assert load_app(f"{path}:app").name == "found"


def test_a_file_in_a_package_is_imported_as_part_of_it(folder: Path) -> None:
    write(folder / "ld_package" / "__init__.py", "")
    write(folder / "ld_package" / "names.py", "NAME = 'relative'\n")
    write(
        folder / "ld_package" / "work.py",
        "from evener.app import App\nfrom .names import NAME\napp = App(NAME)\n",
    )
    assert load_app("ld_package/work.py").name == "relative"
    assert load_app("ld_package.work:app") is load_app("ld_package/work.py")


def test_a_file_named_like_a_module_that_is_there_already(folder: Path) -> None:
    write(folder / "json.py", DEMO)
    assert load_app("json.py").name == "demo"
    import json

    assert json.loads("1") == 1


def test_the_only_app_of_a_module_need_not_be_called_app(folder: Path) -> None:
    write(folder / "ld_only.py", 'from evener.app import App\nworkers = App("only")\n')
    assert load_app("ld_only").name == "only"
    two = 'from evener.app import App\na = App("a")\nb = App("b")\n'
    write(folder / "ld_two.py", two)
    with pytest.raises(LoadError) as caught:
        load_app("ld_two")
    assert str(caught.value) == 'ld_two has no app named "app" (apps in it: a, b)'
    write(folder / "ld_none.py", "x = 1\n")
    with pytest.raises(LoadError, match=r"^ld_none has no evener\.App$"):
        load_app("ld_none")


def test_an_attribute_that_is_not_there_or_no_app(folder: Path) -> None:
    write(folder / "ld_demo.py", DEMO + "number = 7\n")
    with pytest.raises(LoadError) as caught:
        load_app("ld_demo:ap")
    assert str(caught.value) == 'ld_demo has no "ap". Closest: app (apps in it: app)'
    with pytest.raises(LoadError, match=r"ld_demo:number is a builtins\.int, not an evener\.App"):
        load_app("ld_demo:number")


@pytest.mark.parametrize("target", ["", ":", ":app"])
def test_a_target_without_module(folder: Path, target: str) -> None:
    with pytest.raises(UsageError, match="names no module: give module:attribute"):
        load_app(target)


def test_a_module_that_is_not_there(folder: Path) -> None:
    write(folder / "ld_demo.py", DEMO)
    with pytest.raises(LoadError, match=r'^no module "ld_dmo" in .*\. Closest: ld_demo'):
        load_app("ld_dmo:app")
    with pytest.raises(LoadError, match=r'^no module "nope" in ') as caught:
        load_app("nope:app")
    assert "opcode" not in str(caught.value)  # of the standard library, and not near
    write(folder / "ld_package" / "__init__.py", "")
    write(folder / "ld_package" / "work.py", DEMO)
    with pytest.raises(LoadError, match=r'"ld_package\.wrk".*Closest: work$'):
        load_app("ld_package.wrk:app")
    with pytest.raises(LoadError, match=r'^no module "ld_gone" \(for "ld_gone\.work"\)'):
        load_app("ld_gone.work:app")
    with pytest.raises(LoadError, match=r"^no file ld_dmo\.py \(looked in .*Closest: ld_demo\.py"):
        load_app("ld_dmo.py:app")
    with pytest.raises(LoadError, match="is not the name of a module"):
        load_app("ld demo:app")


@pytest.mark.parametrize("target", ["ld_bad:app", "ld_bad.py:app"])
def test_what_fails_inside_is_told_with_their_traceback(folder: Path, target: str) -> None:
    path = write(folder / "ld_bad.py", "def f():\n    import no_such_module_here\nf()\n")
    with pytest.raises(LoadError, match="cannot import ld_bad: ModuleNotFoundError: No") as caught:
        load_app(target)
    lines = caught.value.traceback.splitlines()
    assert lines[1] == f'  File "{path}", line 3, in <module>'
    assert "loading.py" not in caught.value.traceback
    assert "importlib" not in caught.value.traceback


def test_a_module_with_a_syntax_error(folder: Path) -> None:
    write(folder / "ld_syntax.py", "def f(:\n")
    with pytest.raises(LoadError, match="cannot import ld_syntax: SyntaxError") as caught:
        load_app("ld_syntax")
    assert "def f(:" in caught.value.traceback


def test_a_program_that_leaves_when_imported(folder: Path) -> None:
    write(folder / "ld_program.py", DEMO + "raise SystemExit(3)\n")
    with pytest.raises(LoadError, match=r"left with SystemExit\(3\).*__main__"):
        load_app("ld_program.py")


def test_functions_pickled_where_the_file_is_main_are_found_where_it_is_loaded(
    folder: Path,
) -> None:
    write(
        folder / "ld_main.py",
        DEMO
        + "@app.task\ndef add(a, b): return a + b\n"
        + "if __name__ == '__main__':\n    import pickle, sys\n"
        + "    sys.stdout.buffer.write(pickle.dumps(add))\n",
    )
    done = subprocess.run([sys.executable, "ld_main.py"], capture_output=True, check=True)
    import pickle

    app = load_app("ld_main.py")
    assert pickle.loads(done.stdout) is app.functions["demo.add"]
