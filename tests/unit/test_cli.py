"""The command line without a broker: help, mistakes, exit codes, and what is loaded when."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from evener import errors, texts
from evener.cli import exits, logs, main, output
from evener.cli.banner import reachable
from evener.cli.group import COMMANDS, cli
from evener.cli.options import ADDRESS, DURATION

# A cold start of Python itself takes 10 to 20 ms; the goals are 80 and 150. Modules that are not
# loaded cannot slow anything down, so these are what is tested, and not a clock on a busy machine.
SLOW_MODULES = ("zmq", "msgpack", "psutil", "cloudpickle", "asyncio", "evener.client")


def run(*arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), prog_name="evener", env=settings)


def imported(*arguments: str) -> set[str]:
    """What `evener ARGUMENTS` loads, as `-X importtime` tells."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "evener", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


# --- Fast -----------------------------------------------------------------------------------------


def test_version_loads_not_even_click() -> None:
    loaded = imported("--version")
    assert "evener.version" in loaded
    assert loaded.isdisjoint({*SLOW_MODULES, "click", "evener.cli.group"})


def test_help_loads_no_command_and_no_zmq() -> None:
    loaded = imported("--help")
    assert loaded.isdisjoint(SLOW_MODULES)
    assert "evener.cli.group" in loaded
    assert "evener.cli.options" not in loaded  # every command needs it


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_no_zmq(name: str) -> None:
    loaded = imported(name, "--help")
    assert "evener.cli.options" in loaded
    assert loaded.isdisjoint(SLOW_MODULES)


def test_a_mistake_in_an_option_loads_no_zmq() -> None:
    assert imported("status", "--jsno").isdisjoint(SLOW_MODULES)


# --- Help -----------------------------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == exits.OK
    assert capsys.readouterr().out == f"evener {__import__('evener').__version__}\n"
    assert run("--version").output == f"evener {__import__('evener').__version__}\n"


def test_help_names_commands_and_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == exits.OK
    for name, entry in COMMANDS.items():
        assert name in result.output
        assert entry.summary in result.output
    for code, meaning in exits.MEANINGS:
        assert f"{code}  " in result.output
        assert meaning in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_summary_examples_and_explained_options(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == exits.OK
    assert COMMANDS[name].summary in result.output
    assert "Examples:" in result.output
    assert result.output.count("evener " + name) >= 2
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"


def test_defaults_and_variables_are_shown() -> None:
    text = run("status", "--help").output
    assert "EVENER_BROKER" in text
    assert "5s" in text


# --- Mistakes -------------------------------------------------------------------------------------


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.exit_code == exits.USAGE
    assert "Commands" in result.output or "Start:" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["statsu"], 'no such command "statsu". Did you mean "status"?'),
        (["zzz"], 'no such command "zzz".'),
        (["ls", "worker"], 'Did you mean "workers"?'),
        (["ls", "queues", "--state", "queued"], "--state is for tasks only"),
        (["status", "--jsno"], "--json"),
        (["ping", "--connect-timeout", "3x"], '"3x" is not a duration; write 90s'),
        (["ping", "--broker", "http://x"], "'http://x' is no address: write tcp://host:port"),
        (["worker", "demo:app", "-n", "0"], '"0" is neither a number from 1 to 4,096 nor auto'),
        (["up", "demo:app", "-n", "x"], '"x" is neither a number from 1 to 4,096 nor auto'),
        (["broker", "--host", "0.0.0.0"], "add --insecure"),
        (["up", "demo:app", "--host", "10.0.0.5"], "add --insecure"),
        (["cancel", "nothex"], '"nothex" is not the beginning of a task id'),
        (["submit", "demo.add", "1", "--stdin"], "--stdin takes the arguments from stdin"),
        (["submit", "--wiat", "demo.add"], "--wait"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == exits.USAGE
    assert result.stdout == ""
    assert message in result.stderr
    assert "try: evener" in result.stderr
    assert "Traceback" not in result.stderr


def test_insecure_is_not_taken_from_the_environment() -> None:
    result = run("broker", "--host", "0.0.0.0", EVENER_BROKER_INSECURE="1")
    assert result.exit_code == exits.USAGE


def test_values_come_from_the_environment() -> None:
    result = run("ping", EVENER_PING_CONNECT_TIMEOUT="soon")
    assert result.exit_code == exits.USAGE
    assert '"soon" is not a duration' in result.stderr


# --- Exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BrokerUnreachable("tcp://x:1"), 69),
        (errors.BrokerRefused("protocol"), 76),
        (errors.BrokerRefused("key"), 77),
        (errors.TaskTimeout("run"), 75),
        (errors.LoadError("no module"), 2),
        (errors.RemoteError("ValueError"), 1),
        (errors.TaskLost("poison"), 1),
    ],
)
def test_errors_become_exit_codes(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("evener.cli.ping.connected", fail)
    result = run("ping")
    assert result.exit_code == code
    assert result.stderr == f"evener: {error}\n"


def test_mistakes_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("evener.cli.ping.connected", fail)
    assert isinstance(run("ping").exception, ZeroDivisionError)


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evener.cli.ping.connected", interrupt)
    assert run("ping").exit_code == exits.INTERRUPTED


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evener", "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (exits.FAILED, b"")


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("5m", 300.0), ("250ms", 0.25), ("2h", 7200.0), ("3", 3.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://10.0.0.5:7450", "tcp://10.0.0.5:7450"),
        ("10.0.0.5", "tcp://10.0.0.5:7450"),
        ("broker:7000", "tcp://broker:7000"),
        ("[::1]:7000", "tcp://[::1]:7000"),
        ("tcp://[::1]", "tcp://[::1]:7450"),
        ("ipc:///tmp/x", "ipc:///tmp/x"),
    ],
)
def test_addresses_are_completed(text: str, address: str) -> None:
    assert ADDRESS.convert(text, None, None) == address


def test_a_wildcard_becomes_an_address_for_others() -> None:
    assert reachable("tcp://127.0.0.1:7450") == "tcp://127.0.0.1:7450"
    assert "0.0.0.0" not in reachable("tcp://0.0.0.0:7450")
    assert reachable("tcp://0.0.0.0:7450").endswith(":7450")


# --- Output ---------------------------------------------------------------------------------------


def test_tables_align(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(
        ["NAME", "RUNS", "MEAN"],
        [["demo.add", 12_000, output.duration(1.5)], ["x\x1b[31m", None, output.duration(None)]],
    )
    assert capsys.readouterr().out.splitlines() == [
        "NAME         RUNS  MEAN",
        "demo.add   12,000  2 ms",
        "x\\x1b[31m       -     -",
    ]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (output.humanised(12_431), "12.4 k (12,431)"),
        (output.humanised(999), "999"),
        (output.duration(0.25), "250 µs"),
        (output.duration(125_000), "2 min 5 s"),
        (output.duration(90_061_000), "1 d 1 h"),
        (output.bytes_text(1536), "1.5 KiB"),
        (texts.plural(1, "task"), "1 task"),
        (texts.plural(1204, "task"), "1,204 tasks"),
        (output.clean("a\rb\x1b[2J\nc"), "a\\rb\\x1b[2J\nc"),
    ],
)
def test_numbers_for_people(shown: str, text: str) -> None:
    assert shown == text


def test_json_has_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"id": b"\x01\xff", "names": ("a", "b")})
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "id": "01ff", "names": ["a", "b"]}


# --- Logs -----------------------------------------------------------------------------------------


def _record(text: str = "task done", **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("evener.broker", logging.INFO, "f.py", 1, text, (), None)
    record.__dict__.update(extra, created=0.25)
    return record


def test_log_forms() -> None:
    assert logs.PlainLines("broker").format(_record()) == (
        "1970-01-01T00:00:00.250Z broker INFO task done"
    )
    short = logs.ShortLines("broker", colour=False).format(_record(worker="node-7:3"))
    assert short.endswith(" node-7:3 INFO    task done")
    line = json.loads(logs.JsonLines("agent").format(_record(task_id="7f3a")))
    assert (line["role"], line["level"], line["msg"]) == ("agent", "info", "task done")
    assert line["task_id"] == "7f3a"


def test_a_log_line_cannot_be_forged() -> None:
    line = logs.PlainLines("broker").format(_record("name\n2026-01-01 broker INFO all is well"))
    assert "\n" not in line


@pytest.mark.parametrize("form", ["auto", "short", "plain", "json"])
def test_logs_go_to_stderr_once(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("evener")
    before = (logger.handlers[:], logger.level, logger.propagate)
    try:
        logs.set_up("broker", "info", form)
        logs.set_up("broker", "info", form)
        logging.getLogger("evener.broker").info("ready on %s", "tcp://x")
        logging.getLogger("evener.broker").debug("unseen")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("ready on tcp://x") == 1
    assert "unseen" not in captured.err


def test_python_m_evener_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evener", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("evener ")
