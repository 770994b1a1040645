"""The examples of commands, run as a user runs them: doubling, and the conversion of images."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import ROOT, skip_aloud

EXAMPLES = ROOT / "examples" / "command"

PIXELS = bytes((17 * n) % 256 for n in range(3 * 7 * 5))


def example(name: str) -> ModuleType:
    """A module of the folder of examples."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("language", ["python", "node", "sh"])
def test_double_the_number(language: str) -> None:
    if language == "node" and shutil.which("node") is None:
        skip_aloud("node is not installed: its example was not run")
    done = run("run.py", language)
    assert done.stdout == "".join(f"{number} {2 * number}\n" for number in range(1, 11))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("run.py", ["shell"]), ("convert_images.py", []), ("convert_images.py", ["/no/such/folder"])],
)
def test_wrong_words_get_a_usage_line(name: str, arguments: list[str]) -> None:
    done = run(name, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python {name} ")
    assert done.stderr.count("\n") == 1


def test_the_examples_are_short() -> None:
    for path in (*EXAMPLES.glob("double.*"), EXAMPLES / "converter.py"):
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) <= 20, path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, and one file that is none."""
    png_ppm = example("png_ppm")
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png_ppm.write_png(7, 5, PIXELS))
    (tmp_path / "broken.png").write_bytes(b"not an image")
    return tmp_path


def check_converted(folder: Path) -> None:
    for number in range(3):
        assert example("png_ppm").read_ppm((folder / f"{number}.ppm").read_bytes()) == (
            7,
            5,
            PIXELS,
        )


def test_images_are_converted_by_what_is_there(folder: Path) -> None:
    done = run("convert_images.py", str(folder))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("wrote ")]) == 3
    assert any(line.startswith("failed: RuntimeError: ") for line in lines)
    check_converted(folder)


def test_images_are_converted_by_the_little_program(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = [sys.executable, str(EXAMPLES / "png_ppm.py")]
    assert example("convert_images").main(folder, program) == 1
    assert "broken.png: it is no PNG" in capsys.readouterr().out
    check_converted(folder)


def test_images_are_converted_by_imagemagick(folder: Path) -> None:
    convert_images = example("convert_images")
    name = convert_images.imagemagick()
    if name is None:
        skip_aloud(
            "ImageMagick is not installed (apt-get install imagemagick): images were not converted"
            " by it",
            expected_in_ci=True,
        )
    assert convert_images.main(folder, [name]) == 1
    check_converted(folder)


def test_the_little_program_knows_both_ways_and_all_filters(tmp_path: Path) -> None:
    png_ppm = example("png_ppm")
    (tmp_path / "a.ppm").write_bytes(b"P6\n7 5\n255\n" + PIXELS)
    assert run("png_ppm.py", str(tmp_path / "a.ppm"), str(tmp_path / "a.png")).returncode == 0
    assert png_ppm.read_png((tmp_path / "a.png").read_bytes()) == (7, 5, PIXELS)
    # The five filters of a row, on a row of two pixels below one of (10, 20).
    for kind, row in ((0, (7, 9)), (1, (7, 2)), (2, (253, 245)), (3, (2, 252)), (4, (253, 245))):
        data = bytes([0, 10, 20, kind, *row])
        assert png_ppm.unfilter(data, 2, 2, 1)[2:] == bytes([7, 9]), kind
