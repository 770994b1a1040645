"""Fixtures for tests on the real Docker engine: one image, and one compose project for the module.

Rules of this file: where no engine runs, tests are skipped aloud; where one runs they must work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import base_image, images
from tests.cluster.engine import why_missing
from tests.cluster.project import Project
from tests.support import skip_aloud

# A base image with Python and venv that the engine has or can pull, instead of the stand-in.
_BASE = os.environ.get("TEST_BASE_IMAGE")


@pytest.fixture(scope="session")
def base() -> str:
    """The name of the base image."""
    missing = why_missing()
    if missing:
        skip_aloud(missing)
    impossible = None if _BASE else base_image.why_impossible()
    if impossible:
        skip_aloud(f"{impossible}, or TEST_BASE_IMAGE", expected_in_ci=True)
    return _BASE or base_image.build()


@pytest.fixture(scope="session")
def image(base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the image of this checkout."""
    return images.build(base, tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="module")
def _project(image: str, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(image, base, tmp_path_factory.mktemp("project"))
    try:
        yield project
    finally:
        project.close()


@pytest.fixture
def project(_project: Project, tmp_path: Path) -> Iterator[Project]:
    """A cluster of one broker and four workers, all of them running when the test begins."""
    _project.up(workers=4)
    yield _project
    _project.close_drivers()
