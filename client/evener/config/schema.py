"""The table of all settings: options, variables, keys of files and their docs come from it.

Rules of this file: data. A setting that is not here exists nowhere else; what belongs to one call
alone (the arguments of `submit`, `--json`, `--yes`) is no setting.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from evener.config import kinds as k


class Key(NamedTuple):
    """One setting. `default` is as one would write it; without it `otherwise` says what holds."""

    section: str
    name: str
    kind: k.Kind
    help: str
    default: str | None = None
    otherwise: str = ""
    short: tuple[str, ...] = ()
    """Variables beside that of section and name, which stands above them."""
    in_environment: bool = True

    @property
    def path(self) -> str:
        """`broker.port`."""
        return f"{self.section}.{self.name}"

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables that set it, the first that is set holds."""
        if not self.in_environment:
            return ()
        named = f"EVENER_{self.section}_{self.name}".upper()
        return tuple(dict.fromkeys((named, *self.short)))


SECTIONS: Final = {
    "broker": "Of `evener broker`, and of the broker that `evener up` starts.",
    "worker": "Of `evener worker`, and of the workers that `evener up` starts.",
    "client": "Of programs (`evener.Client`), and of the commands that ask a broker.",
    "log": "Of the commands that run for long.",
}

_BY_MEMORY: Final = "by memory"
_ADDRESS: Final = "the broker that runs on this host"

_KEYS: Final = (
    Key(
        "broker",
        "host",
        k.TEXT,
        "Address to listen on; 0.0.0.0 for all of this host's.",
        "127.0.0.1",
    ),
    Key(
        "broker",
        "port",
        k.PORT,
        "Port to listen on; 0 takes any free one.",
        otherwise="7450; evener up takes the next free one",
    ),
    Key(
        "broker",
        "insecure",
        k.FLAG,
        "Accept other machines without encryption and keys: whoever reaches the port can run code "
        "on the workers.",
        "false",
        in_environment=False,
    ),
    Key(
        "broker",
        "journal",
        k.FILE,
        "Keep accepted tasks and results in this file, made if it is missing; without one they "
        "live as long as the broker.",
        otherwise="none",
    ),
    Key(
        "broker",
        "journal_size",
        k.SIZE,
        "How large the journal may become; new tasks are refused before it is full.",
        "4GiB",
    ),
    Key(
        "broker",
        "max_tasks",
        k.COUNT,
        "Tasks held for all clients together; more wait at their clients.",
        otherwise=_BY_MEMORY,
    ),
    Key(
        "broker",
        "max_bytes",
        k.SIZE,
        "Calls and results held for all clients together.",
        otherwise=_BY_MEMORY,
    ),
    Key("broker", "max_client_tasks", k.COUNT, "Tasks held for one client.", otherwise=_BY_MEMORY),
    Key(
        "broker",
        "max_client_bytes",
        k.SIZE,
        "Calls and results held for one client.",
        otherwise=_BY_MEMORY,
    ),
    Key(
        "broker",
        "memory_limit",
        k.SIZE,
        "Above this size of the process nothing new is accepted.",
        otherwise="80% of the memory",
    ),
    Key(
        "worker",
        "app",
        k.TEXT,
        "The app, module:attribute, where the command names none.",
        otherwise="none",
    ),
    Key(
        "worker",
        "workers",
        k.WORKERS,
        "Number of worker processes, or auto; 0 is for LocalCluster alone, which then starts none.",
        otherwise="one for each usable CPU",
        short=("EVENER_WORKERS",),
    ),
    Key(
        "worker",
        "queues",
        k.NAMES,
        "Queue to serve; may be given several times.",
        otherwise="default",
    ),
    Key(
        "worker",
        "name",
        k.TEXT,
        "Name of this host in lists and logs.",
        otherwise="the host's name",
    ),
    Key(
        "worker",
        "broker",
        k.ADDRESS,
        "Address of the broker.",
        otherwise=_ADDRESS,
        short=("EVENER_BROKER",),
    ),
    Key(
        "worker",
        "insecure",
        k.FLAG,
        "Let a broker on another machine send pickles, which can run code here.",
        "false",
        in_environment=False,
    ),
    Key(
        "worker",
        "drain",
        k.DURATION,
        "At Ctrl-C or SIGTERM, how long running tasks may take to end.",
        "30s",
    ),
    Key(
        "worker",
        "start_timeout",
        k.DURATION,
        "How long a worker may take to import the app and run its start hooks; 0 for ever.",
        "10m",
    ),
    Key(
        "worker",
        "stop_timeout",
        k.DURATION,
        "How long the stop hooks of a worker may take.",
        "5s",
    ),
    Key(
        "worker",
        "max_tasks_per_worker",
        k.TASKS,
        "Replace a worker that ran so many tasks, or up to a fifth fewer.",
        otherwise="none",
        short=("EVENER_MAX_TASKS_PER_WORKER",),
    ),
    Key(
        "worker",
        "max_worker_age",
        k.DURATION,
        "Replace a worker that is older, or up to a fifth younger.",
        otherwise="none",
        short=("EVENER_MAX_WORKER_AGE",),
    ),
    Key(
        "worker",
        "max_worker_memory",
        k.SIZE,
        "Replace a worker that takes more memory, between two tasks.",
        otherwise="none",
        short=("EVENER_MAX_WORKER_MEMORY",),
    ),
    Key(
        "worker",
        "ping_timeout",
        k.DURATION,
        "Replace a worker that has nothing to do and does not answer for so long.",
        "30s",
    ),
    Key(
        "worker",
        "reload",
        k.FLAG,
        "For development: replace the workers when files of the app change.",
        "false",
    ),
    Key(
        "client",
        "broker",
        k.ADDRESS,
        "Address of the broker.",
        otherwise=_ADDRESS,
        short=("EVENER_BROKER",),
    ),
    Key("client", "connect_timeout", k.DURATION, "How long to look for the broker.", "5s"),
    Key(
        "client",
        "insecure",
        k.FLAG,
        "Let programs exchange pickles with a broker on another machine, which can run code here.",
        "false",
        in_environment=False,
    ),
    Key(
        "client",
        "queue_full",
        k.choice(("wait", "raise")),
        "What submit does when as many tasks are open as the broker takes.",
        "wait",
    ),
    Key(
        "log",
        "level",
        k.choice(("debug", "info", "warning", "error")),
        "The least level to log.",
        "info",
    ),
    Key(
        "log",
        "format",
        k.choice(("auto", "short", "plain", "json")),
        "auto is short on a terminal and plain elsewhere.",
        "auto",
    ),
    Key("log", "quiet", k.FLAG, "No banner, and only warnings and errors.", "false"),
)

SCHEMA: Final = {key.path: key for key in _KEYS}

assert len(SCHEMA) == len(_KEYS)
assert all(key.section in SECTIONS for key in _KEYS)
