"""Settings: one table, read from flags, environment and one file, with every mistake named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import evener
from evener.cli import exits
from evener.cli.config import example
from evener.cli.group import COMMANDS, cli
from evener.cli.options import Option
from evener.config import ConfigError, settings
from evener.config.files import find, read
from evener.config.schema import SCHEMA
from evener_broker import server as broker_server
from evener_worker import server as worker_server
from tests.configuration_page import PAGE, page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test, with a home beside it in which nothing is."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return here


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read(path)
    return list(raised.value.problems)


# --- The table ------------------------------------------------------------------------------------


def test_the_page_is_drawn_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.configuration_page"


@pytest.mark.parametrize("path", SCHEMA)
def test_defaults_and_examples_can_be_read(path: str) -> None:
    key = SCHEMA[path]
    assert (key.default is None) == bool(key.otherwise), "one of the two says what holds"
    if key.default is not None:
        key.kind.read(key.default)
    assert key.help.endswith("."), path


def _options(command: str) -> list[Option]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return [option for option in found.params if isinstance(option, Option)]


@pytest.mark.parametrize("command", ["up", "broker", "worker"])
def test_every_option_of_what_runs_for_long_is_a_setting(command: str) -> None:
    missing = [option.name for option in _options(command) if option.key is None]
    assert missing == [], "give it a row in evener/config/schema.py, and its option key="


def test_every_setting_is_somebody_s_option_or_the_client_s() -> None:
    used = {o.key.path for name in COMMANDS if name != "config" for o in _options(name) if o.key}
    programs_alone = {"client.insecure", "client.queue_full", "worker.app"}
    assert set(SCHEMA) - used == programs_alone


def test_options_and_settings_have_the_same_name() -> None:
    for command in ("up", "broker", "worker"):
        for option in _options(command):
            assert option.key is not None
            names = {option.name, str(option.name).removeprefix("log_")}
            assert option.key.name in names, (command, option.name)


# --- Which value holds ----------------------------------------------------------------------------


def test_environment_file_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().of(SCHEMA["worker.drain"]) == ("30s", 30.0, "default")
    (folder / "evener.toml").write_text('\n[worker]\nstop-timeout = 7\ndrain = "2m"\n')
    assert settings().of(SCHEMA["worker.drain"]) == ("2m", 120.0, "evener.toml:4")
    assert settings().value("worker.stop_timeout") == 7.0
    monkeypatch.setenv("EVENER_WORKER_DRAIN", "5")
    assert settings().of(SCHEMA["worker.drain"]) == ("5", 5.0, "EVENER_WORKER_DRAIN")
    monkeypatch.setenv("EVENER_BROKER", "one:1")
    assert settings().of(SCHEMA["client.broker"]).source == "EVENER_BROKER"
    monkeypatch.setenv("EVENER_CLIENT_BROKER", "two:2")
    assert settings().of(SCHEMA["client.broker"])[1:] == ("tcp://two:2", "EVENER_CLIENT_BROKER")


@pytest.fixture
def broker_config(monkeypatch: pytest.MonkeyPatch) -> Callable[..., broker_server.BrokerConfig]:
    """How `evener broker` would start a broker."""
    made: list[broker_server.BrokerConfig] = []

    def serve(config: broker_server.BrokerConfig) -> int:
        made.append(config)
        return 0

    monkeypatch.setattr(broker_server, "serve", serve)

    def started(*arguments: str, **environment: str) -> broker_server.BrokerConfig:
        done = run("broker", *arguments, **environment)
        assert done.exit_code == 0, done.output
        return made.pop()

    return started


def test_a_flag_stands_above_all(
    folder: Path, broker_config: Callable[..., broker_server.BrokerConfig]
) -> None:
    assert broker_config().port == 7450
    (folder / "evener.toml").write_text("broker.port = 7001\n[log]\nlevel = 'error'\n")
    config = broker_config()
    assert (config.port, config.log_level) == (7001, "error")
    assert broker_config(EVENER_BROKER_PORT="7002").port == 7002
    assert broker_config("--port", "7003", EVENER_BROKER_PORT="7002").port == 7003
    other = folder / "other.toml"
    other.write_text("[broker]\nport = 7004\njournal_size = '1GiB'\nmax_tasks = 5\n")
    config = broker_config("--config", "other.toml")
    assert (config.port, config.journal_size, config.max_tasks) == (7004, 1 << 30, 5)
    assert broker_config(EVENER_CONFIG=str(other)).port == 7004
    assert os.environ.get("EVENER_CONFIG", "") == "", "a command leaves the environment as it was"


def test_what_permits_something_is_taken_from_files_but_not_from_the_environment(
    folder: Path, broker_config: Callable[..., broker_server.BrokerConfig]
) -> None:
    assert not broker_config(EVENER_BROKER_INSECURE="1").insecure
    (folder / "evener.toml").write_text("[broker]\ninsecure = true\nhost = '0.0.0.0'\n")
    assert broker_config().insecure


def test_workers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def serve(config: Any, line: object) -> int:
        made.append(config)
        return 0

    monkeypatch.setattr(worker_server, "serve", serve)
    (folder / "evener.toml").write_text(
        '[worker]\napp = "a:b"\nbroker = "h:1"\nworkers = 3\nqueues = ["x", "y"]\nname = "n"\n'
        'max_worker_memory = "1GiB"\nstart_timeout = 0\n'
    )
    assert run("worker").exit_code == 0
    config = made.pop()
    assert (config.app, config.broker, config.workers) == ("a:b", "tcp://h:1", 3)
    assert (config.queues, config.name) == (("x", "y"), "n")
    assert (config.max_worker_memory, config.start_seconds) == (1 << 30, 0)
    done = run("worker", "c:d", "-n", "2", "-q", "z", EVENER_BROKER="k:2", EVENER_WORKERS="9")
    assert done.exit_code == 0, done.output
    config = made.pop()
    assert (config.app, config.broker, config.workers) == ("c:d", "tcp://k:2", 2)
    assert config.queues == ("z",)
    assert run("worker", EVENER_WORKER_QUEUES="v w").exit_code == 0
    assert made.pop().queues == ("v", "w")
    (folder / "evener.toml").write_text('worker = {queues = "one two", broker = "h", app = "a:b"}')
    assert run("worker").exit_code == 0
    assert made.pop().queues == ("one", "two")
    assert run("worker", EVENER_WORKERS="auto").exit_code == 0
    assert made.pop().workers == 0


def test_a_cluster_without_workers_by_file(folder: Path) -> None:
    (folder / "evener.toml").write_text("[worker]\nworkers = 0\n")
    with evener.LocalCluster() as cluster:
        assert cluster.address == "inline"
    done = run("up", "a:b")
    assert done.exit_code == exits.USAGE
    assert '"0" is neither a number from 1' in done.stderr


# --- Which file holds -----------------------------------------------------------------------------


def test_one_file_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find() is None
    home = folder.parent / "home" / ".config" / "evener" / "config.toml"
    home.parent.mkdir(parents=True)
    home.write_text("")
    assert find() == home
    project = folder / "pyproject.toml"
    project.write_text("[tool.other]\nevener = 1\n")
    assert find() == home
    project.write_text('[project]\nname = "x"\n\n[tool.evener.worker]\nworkers = 6\n')
    assert find() == project
    assert settings().of(SCHEMA["worker.workers"]) == (6, 6, "pyproject.toml:5")
    (folder / "evener.toml").write_text("")
    assert find() == folder / "evener.toml"
    assert settings().value("worker.workers") is None, "nothing is merged"
    monkeypatch.setenv("EVENER_CONFIG", str(home))
    assert find() == home


def test_a_file_that_anybody_may_write_is_not_believed(folder: Path) -> None:
    path = folder / "evener.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="may be from anybody"):
        find()
    assert run("config", "show", "--config", "evener.toml").exit_code == 0
    done = run("ping")
    assert done.exit_code == exits.CONFIG
    assert "EVENER_CONFIG=" in done.stderr


def test_where_nothing_can_be_looked_at_nothing_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rmdir()
    monkeypatch.setenv("HOME", "/proc/1/cwd/nowhere")
    assert find() is None
    with evener.LocalCluster(workers=0) as cluster:
        assert cluster.workers == 0
    assert read(Path("/dev/null")).values == {}


# --- Mistakes -------------------------------------------------------------------------------------


def test_every_mistake_is_named_with_its_line(folder: Path) -> None:
    text = (
        "# first\nworkers = 3\n\n[workr]\nname = 'n'\n\n[ broker ]  # the queue\n"
        "heartbeat = 1\nprot = 1\nport = 70000\njournal_size = '1kB'\nmax_tasks = true\n"
        "insecure = 'maybe'\nmax-tasks = 5\n\n[log]\nlevel = 'warn'\n\n"
        '[worker]\nqueues = []\nname = 7\nworkers = "many"\nmax_bytes = "1GiB"\n'
        '\n[client]\nbroker = "http://x"\nconnect_timeout = -1\n'
    )
    found = problems(folder / "e.toml", text)
    assert found == [
        'e.toml:2: unknown key "workers" outside of all sections. It belongs into [worker].',
        (
            'e.toml:4: unknown section [workr]. Did you mean "worker"? '
            "Sections: broker, worker, client, log"
        ),
        'e.toml:8: unknown key "heartbeat" in [broker].',
        'e.toml:9: unknown key "prot" in [broker]. Did you mean "port"?',
        "e.toml:10: port in [broker] is 70000: give a whole number from 0 to 65,535",
        (
            'e.toml:11: journal_size in [broker] is "1kB": it is not a size; write 512MiB, '
            "4GiB or a number"
        ),
        "e.toml:12: max_tasks in [broker] is true: give a whole number from 1 to 100,000,000",
        'e.toml:13: insecure in [broker] is "maybe": give true or false',
        (
            'e.toml:17: level in [log] is "warn": give one of debug, info, warning, error; did you '
            'mean "warning"?'
        ),
        'e.toml:20: queues in [worker] is []: give a list of names such as ["default", "slow"]',
        "e.toml:21: name in [worker] is 7: give a text in quotes",
        'e.toml:22: workers in [worker] is "many": give a whole number from 0 to 4,096, or "auto"',
        'e.toml:23: unknown key "max_bytes" in [worker]. It belongs into [broker].',
        (
            'e.toml:26: broker in [client] is "http://x": give an address such as '
            '"tcp://127.0.0.1:7450"'
        ),
        (
            'e.toml:27: connect_timeout in [client] is -1: give a duration such as "90s", "5m", '
            '"250ms", or a number of seconds'
        ),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[broker\n", "p.toml:1: this is no TOML: Expected ']'"),
        ("a = 1\na = 2\n", "p.toml:2: this is no TOML: Cannot overwrite a value"),
        ("broker = 5\n", "p.toml:1: broker is a section: write [broker]"[:24]),
        ("[broker]\nport = 1\nport-x = 2\n", 'p.toml:3: unknown key "port-x" in [broker].'),
        ("[worker]\nmax-worker-age = 1\nmax_worker_age = 2\n", "p.toml:3: max_worker_age in"),
        ("broker = { port = 'x' }\n", 'p.toml:1: port in [broker] is "x"'),
        ('["broker"]\n"port" = []\n', "p.toml:2: port in [broker] is []"),
    ],
)
def test_odd_files(folder: Path, text: str, problem: str) -> None:
    assert problems(folder / "p.toml", text)[0].startswith(problem)


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        read(folder / "gone.toml")
    with pytest.raises(ConfigError, match="/dev/zero: this is larger than any file of settings"):
        read(Path("/dev/zero"))
    (folder / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match=r"latin\.toml: this is no UTF-8 text"):
        read(folder / "latin.toml")


def test_a_mistake_ends_every_command_that_would_read_it(folder: Path) -> None:
    (folder / "evener.toml").write_text("[client]\nbrokr = 1\n")
    line = 'evener.toml:2: unknown key "brokr" in [client]. Did you mean "broker"?'
    for command in (
        ["ping"],
        ["status"],
        ["up", "a:b"],
        ["config", "show"],
        ["config", "validate"],
    ):
        done = run(*command)
        assert done.exit_code == exits.CONFIG, command
        assert done.stderr == f"evener: {line}\n"
    with pytest.raises(ConfigError, match="unknown key"):
        evener.Client()
    assert run("--version").exit_code == 0
    assert run("config", "init", "-").exit_code == 0


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("EVENER_CLIENT_CONNECT_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match='EVENER_CLIENT_CONNECT_TIMEOUT is "soon": give a dur'):
        evener.Client("tcp://127.0.0.1:1")
    assert run("ping").exit_code == exits.USAGE


# --- The command ----------------------------------------------------------------------------------


def test_show(folder: Path) -> None:
    (folder / "evener.toml").write_text("[worker]\nqueues = ['a', 'b']\ninsecure = true\n")
    done = run("config", "show", "worker", EVENER_WORKERS="4")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert ["file:", str(folder / "evener.toml")] in lines
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert shown["worker.queues"].split() == ["a,", "b", "evener.toml:2"]
    assert shown["worker.insecure"].split() == ["true", "evener.toml:3"]
    assert shown["worker.workers"].split() == ["4", "EVENER_WORKERS"]
    assert shown["worker.drain"].split() == ["30s", "default"]
    assert "broker.port" not in shown
    body = json.loads(run("config", "show", "--json").stdout)
    assert body["file"] == str(folder / "evener.toml")
    assert len(body["settings"]) == len(SCHEMA)
    (workers,) = (item for item in body["settings"] if item["setting"] == "worker.workers")
    assert workers == {
        "setting": "worker.workers",
        "value": None,
        "source": "default",
        "default": None,
        "variables": ["EVENER_WORKER_WORKERS", "EVENER_WORKERS"],
    }


def test_init_and_validate(folder: Path) -> None:
    assert run("config", "validate").exit_code == exits.USAGE
    assert run("config", "init").exit_code == 0
    path = folder / "evener.toml"
    assert path.read_text() == example() == run("config", "init", "-").stdout
    done = run("config", "init")
    assert done.exit_code == exits.USAGE
    assert "is there already" in done.stderr
    assert run("config", "validate").stdout.endswith("0 settings, ok\n")
    # What the comments show can be used as it stands.
    live = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line
        for line in example().splitlines()
    )
    path.write_text(live)
    assert run("config", "validate", "evener.toml").stdout.endswith(f"{len(SCHEMA)} settings, ok\n")
