"""Control groups of a chaos run: little memory, or little processor time, for some processes.

Rules of this file: both versions of control groups; each group has the run's pid in its name and is
removed with it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


class Group:
    """One group: `memory` in bytes, `cpu` in parts of one processor."""

    def __init__(self, name: str, *, memory: int = 0, cpu: float = 0.0) -> None:
        base = _base("memory" if memory else "cpu")
        if base is None:
            raise OSError("no control groups can be made here")
        self.path = base / f"evener-chaos-{os.getpid()}-{name}"
        self._memory = memory
        self._cpu = cpu

    @staticmethod
    def why_missing(controller: str) -> str | None:
        """Why there are none here, or None."""
        base = _base(controller)
        if base is None:
            return f"no control groups for {controller}"
        probe = base / f"evener-chaos-{os.getpid()}-probe"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            return f"control groups cannot be made here: {error.strerror}"
        return None

    def __enter__(self) -> Group:
        self.path.mkdir()
        try:
            if self._memory:
                name = "memory.limit_in_bytes" if _is_first() else "memory.max"
                (self.path / name).write_text(str(self._memory))
            if self._cpu and _is_first():
                (self.path / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (self.path / "cpu.cfs_quota_us").write_text(str(int(self._cpu * _PERIOD_US)))
            elif self._cpu:
                text = f"{int(self._cpu * _PERIOD_US)} {_PERIOD_US}"
                (self.path / "cpu.max").write_text(text)
        except BaseException:
            self.path.rmdir()
            raise
        return self

    def take(self, pid: int) -> None:
        """Put a process into it, with the children that it will have."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def release(self) -> None:
        """Processes that still are in it go back to where all are."""
        for pid in (self.path / "cgroup.procs").read_text().split():
            try:
                (self.path.parent / "cgroup.procs").write_text(pid)
            except OSError:
                continue  # it is gone

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + 5
        while True:
            self.release()
            try:
                self.path.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _is_first() -> bool:
    return (_ROOT / "memory").is_dir()


def _base(controller: str) -> Path | None:
    if _is_first():
        base = _ROOT / controller
        return base if base.is_dir() else None
    controllers = _ROOT / "cgroup.subtree_control"
    try:
        return _ROOT if controller in controllers.read_text().split() else None
    except OSError:
        return None
