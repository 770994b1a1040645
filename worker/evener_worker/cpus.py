"""How many CPUs this process may use: the least of the machine, its affinity and its cgroup.

Rules of this file: reads /proc and /sys, never fails; what cannot be read does not limit.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

_CGROUP = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = _CGROUP, root: Path = _ROOT) -> int:
    """At least 1. A quota of a part of a CPU counts as one."""
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    quota = cgroup_quota(cgroup, root)
    if quota is not None:
        counts.append(math.ceil(quota))
    return max(1, min(counts))


def cgroup_quota(cgroup: Path = _CGROUP, root: Path = _ROOT) -> float | None:
    """The least CPU quota on the way from this process's cgroup up to the root; None: unlimited."""
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            quotas += [q for folder in _upwards(root, path) if (q := _quota_v2(folder))]
        elif "cpu" in controllers.split(","):
            for mount in (root / "cpu", root / "cpu,cpuacct"):
                quotas += [q for folder in _upwards(mount, path) if (q := _quota_v1(folder))]
    return min(quotas) if quotas else None


def _upwards(mount: Path, path: str) -> list[Path]:
    # In a container the path may be the host's, of which only the mount's root exists here.
    inner = PurePosixPath(path.lstrip("/"))
    return [mount / inner, *(mount / parent for parent in inner.parents), mount]


def _quota_v2(folder: Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return limit / period if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
