"""The image under test, built from the checkout as a user would, but without any network.

Rules of this file: the build runs in a copy of what the image is made of, beside a wheelhouse for
the Python of the base image. The image's tag is the hash of its input, so an unchanged checkout
builds once; images of this file that are older than a day are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.cluster.engine import EngineError, compose, docker, has_image, inspect
from tests.support import ROOT

REPOSITORY = "evener-test"

_INPUT = (
    "Dockerfile", ".dockerignore", "docker-compose.yml", "pyproject.toml", "README.md", "LICENSE",
    "wire", "broker", "client", "worker",
)  # fmt: skip
_TAGS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")  # wheels that a slim image can use


def build(base: str, folder: Path) -> str:
    """The name of the image, built in `folder` if the engine does not have it yet."""
    files = sorted(_files())
    digest = hashlib.sha256(docker("inspect", "--format", "{{.Id}}", base).encode())
    for path in files:
        digest.update(f"\0{path.relative_to(ROOT)}\0{os.access(path, os.X_OK)}\0".encode())
        digest.update(path.read_bytes())
    name = f"{REPOSITORY}:{digest.hexdigest()[:12]}"
    with _one_at_a_time():
        if not has_image(name):
            _remove_old()
            _copy(files, folder)
            shutil.copytree(_wheelhouse(base), folder / "wheelhouse")
            compose(
                "--project-directory", str(folder), "--file", str(folder / "docker-compose.yml"),
                "build", "--force-rm", "broker",
                env={"EVENER_IMAGE": name, "EVENER_BASE": base},
            )  # fmt: skip
    return name


def _files() -> Iterator[Path]:
    for name in _INPUT:
        path = ROOT / name
        yield from [path] if path.is_file() else (p for p in path.rglob("*") if _is_source(p))


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _copy(files: list[Path], folder: Path) -> None:
    for path in files:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _wheelhouse(base: str) -> Path:
    """A folder with every wheel that the build wants, for the Python of the base image."""
    version = docker("run", "--rm", "--entrypoint", "python", base, "-c",
                     "import sys; print('%d.%d' % sys.version_info[:2])")  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    platforms = [f"--platform={tag}_{platform.machine()}" for tag in _TAGS]
    key = hashlib.sha256(repr((version, sorted(wanted), platforms)).encode()).hexdigest()[:12]
    folder = _cache() / f"wheelhouse-{key}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                "--only-binary=:all:", "--implementation=cp", f"--python-version={version}",
                *platforms, "--dest", folder, *wanted,
            ],
            check=True,
        )  # fmt: skip
        (folder / "complete").touch()
    return folder


def _remove_old() -> None:
    """Images of earlier checkouts, and the stages they were built in; what is in use stays."""
    stage = "label=org.opencontainers.image.title=evener-build"
    docker("image", "prune", "--force", "--filter", stage, "--filter", "until=24h")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for name in dict.fromkeys(docker("images", "--quiet", REPOSITORY).split()):
        image = inspect(name)
        # Nanoseconds are more digits than Python reads.
        created = datetime.fromisoformat(image["Created"][:19]).replace(tzinfo=UTC)
        for tag in image["RepoTags"] if created < yesterday else ():
            try:
                docker("rmi", tag)
            except EngineError:
                continue


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "evener-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Test runs that begin together build one after the other: the later ones find it done."""
    with open(_cache() / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
