"""A stand-in for `python:3.12-slim`, made of Debian packages: no image registry is needed.

Rules of this file: apt and dpkg unpack into a folder of their own; nothing of the machine's own
package state is read or changed, and root is not needed. The result is cached as an image whose tag
is the hash of the recipe: where the cache is empty, or the recipe newer, it is built again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.engine import docker, has_image

REPOSITORY = "evener-test-base"

_SUITE = "bookworm"
_SOURCES = (
    f"http://deb.debian.org/debian {_SUITE} main",
    f"http://deb.debian.org/debian-security {_SUITE}-security main",
)
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PYTHON = "python3.11"
# A shell and small tools, what wheels link against, and Python with venv, as in the slim image.
_PACKAGES = ("base-files", "dash", "coreutils", "libstdc++6", "ca-certificates", f"{_PYTHON}-venv")
# What those depend on to be configured or documented, and an image without dpkg never uses.
_UNUSED = ("debconf_*", "debianutils_*", "dpkg_*", "mawk_*", "openssl_*", "tar_*")
_DROPPED = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*")


def why_impossible() -> str | None:
    """Why this machine cannot build the image, or None."""
    missing = [tool for tool in ("apt-get", "dpkg-deb", "tar") if shutil.which(tool) is None]
    if missing:
        return f"building a base image needs {', '.join(missing)}"
    return None if _KEYS.exists() else f"building a base image needs {_KEYS}"


def build() -> str:
    """The name of the image, built if it is not there yet (about 5 s)."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    name = f"{REPOSITORY}:{recipe}"
    if not has_image(name):
        with tempfile.TemporaryDirectory(prefix="evener-base-") as folder:
            packages = _download(Path(folder))
            root = _unpack(packages, Path(folder) / "root")
            _import(root, name)
    return name


def _download(folder: Path) -> list[Path]:
    """Fetch the packages and all they depend on, as if for a machine without any."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(
        "".join(f"deb [signed-by={_KEYS}] {source}\n" for source in _SOURCES)
    )
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    _run("apt-get", *options, "--quiet", "update")
    _run("apt-get", *options, "--quiet", "--yes", "--download-only", "install", *_PACKAGES)
    unused = {path for pattern in _UNUSED for path in (folder / "archives").glob(pattern)}
    return sorted(set((folder / "archives").glob("*.deb")) - unused)


def _unpack(packages: list[Path], root: Path) -> Path:
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    drop = [f"--exclude={pattern}" for pattern in _DROPPED]
    for package in packages:
        content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        with content:
            subprocess.run(
                ["tar", "--extract", "--keep-directory-symlink", f"--directory={root}", *drop],
                stdin=content.stdout,
                check=True,
            )
        assert content.returncode == 0, f"{package.name} could not be read"
    (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{_PYTHON}")
    return root


def _import(root: Path, name: str) -> None:
    """Make it an image of one layer, in which everything belongs to root."""
    packed = subprocess.Popen(
        ["tar", "--create", "--owner=0", "--group=0", f"--directory={root}", "."],
        stdout=subprocess.PIPE,
    )
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with packed:
        docker(
            "import", "--change", f"ENV PATH={path}", "--change", "CMD python", "-", name,
            stdin=packed.stdout,
        )  # fmt: skip
    assert packed.returncode == 0, "the folder could not be packed"


def _run(*command: str) -> None:
    environment = os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
