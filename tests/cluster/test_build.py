"""The image alone: small, without root, with every part of evener and no tools.

This file comes first by its name, so that the time the image takes is not that of a cluster.
"""

from __future__ import annotations

import json

import pytest

from tests.cluster.engine import docker, inspect
from tests.support import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

_MEGABYTE = 1_000_000


def _python(image: str, program: str) -> str:
    return docker("run", "--rm", "--read-only", "--entrypoint", "python", image, "-c", program)


def test_it_runs_without_root_and_stops_by_sigterm(image: str) -> None:
    config = inspect(image)["Config"]
    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["evener"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == "evener"


def test_it_adds_little_to_its_base(image: str, base: str) -> None:
    assert inspect(image)["Size"] - inspect(base)["Size"] < 20 * _MEGABYTE


def test_every_part_is_in_it_and_no_tools(image: str) -> None:
    program = (
        "import json, importlib.util as u;"
        "names = 'evener evener_wire evener_broker evener_worker zmq pip hatchling pytest'.split();"
        "print(json.dumps([n for n in names if u.find_spec(n)]))"
    )
    parts = ["evener", "evener_wire", "evener_broker", "evener_worker", "zmq"]
    assert json.loads(_python(image, program)) == parts


def test_the_command_is_its_entry_point(image: str) -> None:
    version: dict[str, str] = {}
    exec((ROOT / "client/evener/version.py").read_text(), version)
    assert version["__version__"] in docker("run", "--rm", "--read-only", image, "--version")


def test_typed_packages_are_marked(image: str) -> None:
    program = (
        "from importlib.resources import files;"
        "parts = ('evener', 'evener_wire', 'evener_broker', 'evener_worker');"
        "print(all(files(part).joinpath('py.typed').is_file() for part in parts))"
    )
    assert _python(image, program) == "True"
