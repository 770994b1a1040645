"""The Docker engine and compose, as the tests use them: thin, and each command's failure is told.

Rules of this file: no fixtures, nothing about evener. Callers
remove only what they created, by its full name.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from typing import IO, Any

_ENGINE_TIMEOUT_S = 300


class EngineError(Exception):
    """Raised when a docker or compose command fails; the text has the command and its output."""


def why_missing() -> str | None:
    """Why no tests with containers can run here, or None."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout=20)
    except (EngineError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine answers: {str(error).splitlines()[-1]}"
    return None if _compose_command() else "there is no `docker compose` and no docker-compose"


def docker(
    *arguments: str,
    stdin: IO[bytes] | None = None,
    env: dict[str, str] | None = None,
    timeout: float = _ENGINE_TIMEOUT_S,
) -> str:
    """What a docker command prints. Raises `EngineError`."""
    return _run(["docker", *arguments], stdin, env, timeout).stdout.strip()


def compose(
    *arguments: str, env: dict[str, str] | None = None, timeout: float = _ENGINE_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a compose command: of the plugin where it is installed, else of the older program."""
    command = _compose_command()
    assert command, why_missing()
    return _run([*command, *arguments], None, env, timeout)


def inspect(name: str) -> dict[str, Any]:
    """All that the engine knows of a container, image or network."""
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


def has_image(name: str) -> bool:
    """Whether the engine has an image of this name."""
    return bool(docker("images", "--quiet", name))


def _run(
    command: list[str], stdin: IO[bytes] | None, env: dict[str, str] | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | (env or {}),
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if done.returncode != 0:
        text = f"{done.stdout[-20_000:]}{done.stderr[-20_000:]}".strip()
        raise EngineError(f"{' '.join(command)} (exit code {done.returncode})\n{text}")
    return done


@functools.cache
def _compose_command() -> tuple[str, ...]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    if plugin.returncode == 0:
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()
