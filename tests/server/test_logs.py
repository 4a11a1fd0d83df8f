"""What the server writes to stderr: from real processes, as whoever reads it gets it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import ANSWERED, REFUSED

from unface.server.logs import MAX_LINES, AccessLog, JsonLines, LineHandler, TextLines

TESTS = Path(__file__).parents[1]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
BEGIN = (
    "import logging\nfrom records import ANSWERED, FAILED, REFUSED, answered\n"
    "from unface.server.logs import AccessLog, set_up_logging\n"
    "log, access = logging.getLogger('unface.server'), AccessLog()\n"
)


def written(code: str, format: str = "json", level: str = "info") -> list[str]:
    """Return the lines that a process writes whose log is set up so."""
    result = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}set_up_logging({format!r}, {level!r})\n{code}"],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    return result.stderr.splitlines()


def test_a_request_is_one_line_of_json() -> None:
    lines = written("access.observe(ANSWERED)")
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert re.fullmatch(TIME, entry.pop("time"))
    assert re.fullmatch("[0-9a-f]{12}", entry.pop("client"))
    assert entry == {
        "level": "info",
        "logger": "unface.access",
        "message": "request",
        "request_id": ANSWERED.request_id,
        "method": "Detect",
        "code": "OK",
        "ms": 40.0,
        "steps_ms": ANSWERED.steps_ms,
        "pixels": 1920 * 1080,
        "faces": 2,
        "backend": "native",
        "precision": "fp32",
        "profile": "accurate",
    }


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("FAILED", ("warning", "UNAVAILABLE", "WorkerLost")),
        ("REFUSED", ("info", "RESOURCE_EXHAUSTED", "Overloaded")),
    ],
)
def test_the_server_s_faults_are_warnings_and_what_it_refuses_is_not(
    record: str, told: tuple[str, ...]
) -> None:
    entry = json.loads(written(f"access.observe({record})")[0])
    assert (entry["level"], entry["code"], entry["reason"]) == told


def test_a_client_is_one_hash_in_one_process_and_another_in_the_next() -> None:
    code = "access.observe(ANSWERED); access.observe(ANSWERED); access.observe(REFUSED)"
    first, second = written(code), written(code)
    assert "alice" not in "".join(first + second)
    assert "example.com" not in "".join(first + second)
    hashes = [json.loads(line)["client"] for line in first]
    assert hashes[0] == hashes[1] != hashes[2]
    assert json.loads(second[0])["client"] not in hashes


def test_as_text_only_requests_that_failed_are_told() -> None:
    code = "access.observe(ANSWERED); access.observe(FAILED); log.info('warm')"
    lines = written(code, "text")
    assert len(lines) == 2
    shown = (
        "WARNING unface.access: request request_id=0a1b2c3d4e5f6071 method=Anonymize "
        "code=UNAVAILABLE reason=WorkerLost ms=0.5 pixels=0 faces=0 client="
    )
    assert re.fullmatch(f"{TIME} {re.escape(shown)}[0-9a-f]{{12}}", lines[0])
    assert re.fullmatch(f"{TIME} INFO unface.server: warm", lines[1])


def test_as_text_all_requests_are_told_when_asked_to_debug() -> None:
    lines = written("access.observe(ANSWERED)", "text", "debug")
    assert len(lines) == 1
    assert "steps_ms=queue:2.0,decode:8.0,detect:25.0,pnet:15.0,rnet:6.0," in lines[0]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("format", ["text", "json"])
def test_the_level_is_the_least_that_is_told(level: str, told: list[str], format: str) -> None:
    code = (
        "[getattr(log, name)(name) for name in ('debug', 'info', 'warning', 'error')]\n"
        "access.observe(ANSWERED); access.observe(FAILED)"
    )
    lines = written(code, format, level)
    own = [line for line in lines if "unface.access" not in line]
    assert [re.split(r'[ "]+', line.rstrip('"}'))[-1] for line in own] == told
    requests = {"debug": 2, "info": 2 if format == "json" else 1, "warning": 1, "error": 0}
    assert len(lines) - len(own) == requests[level]


def test_libraries_are_heard_from_warning_on() -> None:
    code = "other = logging.getLogger('asyncio'); other.info('x'); other.warning('y')"
    assert [json.loads(line)["message"] for line in written(code, level="debug")] == ["y"]
    assert written(code, level="error") == []


def test_setting_up_twice_does_not_write_twice() -> None:
    code = "set_up_logging('json', 'info'); log.info('once')"
    assert len(written(code)) == 1


FORGED = "x\n2026-01-01T00:00:00.000Z INFO unface.server: forged\r\x1b[2J\x85\u2028\x00\x7f\u202e"


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize(
    "code",
    [
        f"log.warning('from %s', {FORGED!r})",
        f"access.observe(answered(request_id={FORGED!r}, method={FORGED!r}, reason={FORGED!r}))",
        f"log.warning('w', extra={{'fields': {{'who': {FORGED!r}}}}})",
    ],
)
def test_nobody_can_forge_a_line(code: str, format: str) -> None:
    lines = written(code, format, "debug")
    assert len(lines) == 1
    assert "forged" in lines[0]
    assert lines[0].isprintable()


def test_a_value_with_blanks_cannot_pose_as_two() -> None:
    lines = written("access.observe(answered(profile='a code=OK'))", "text", "debug")
    assert 'profile="a code=OK"' in lines[0]


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_is_told_and_what_its_error_quotes_is_cut(format: str) -> None:
    code = (
        "try:\n    raise ValueError('\\x1bpicture ' + 'p' * 5000 + '\\nforged')\n"
        "except ValueError:\n    log.exception('failed')"
    )
    lines = written(code, format)
    text = "\n".join(lines)
    assert "Traceback" in text
    assert "ValueError: \\x1bpicture ppp" in text.replace("\\\\", "\\")
    assert "p" * 200 not in text
    assert "\x1b" not in text
    if format == "json":
        assert len(lines) == 1
        assert json.loads(lines[0])["traceback"][0].startswith("Traceback")
    else:
        assert all(line.startswith("    ") for line in lines[1:])


def test_grpc_says_nothing_of_clients_that_left() -> None:
    code = (
        "grpc = logging.getLogger('grpc._cython.cygrpc')\n"
        "grpc.error('ExecuteBatchError raised in core by servicer method')\ngrpc.error('other')"
    )
    assert [json.loads(line)["message"] for line in written(code)] == ["other"]


def test_everything_is_written_before_the_process_ends() -> None:
    lines = written("[log.info('entry %d', number) for number in range(5000)]")
    assert [json.loads(line)["message"] for line in lines] == [f"entry {n}" for n in range(5000)]


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)"])
def test_a_reader_that_stands_still_costs_lines_and_neither_time_nor_the_exit(ending: str) -> None:
    """Far more than a pipe holds; nobody reads until the process has ended."""
    reader, writer = os.pipe()
    code = (
        f"{BEGIN}set_up_logging('json', 'info')\n"
        f"for number in range({MAX_LINES + 3000}): log.info('entry %d', number)\n"
        f"print('done', flush=True)\n{ending}"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as left:
        assert json.loads(left.readline())["message"] == "entry 0"
    assert process.stdout == b"done\n"
    assert process.returncode == (3 if ending else 0)


def test_lines_that_were_dropped_are_counted() -> None:
    reader, writer = os.pipe()
    handler = LineHandler(writer)
    handler.setFormatter(JsonLines())
    log = logging.Logger("unface.test")
    log.addHandler(handler)
    total = MAX_LINES + 3000
    for number in range(total):
        log.info("entry %d", number)
    with os.fdopen(reader, encoding="ascii") as lines:
        messages = [json.loads(lines.readline())["message"] for _ in range(5000)]
        log.info("end")  # there is room again
        while messages[-1] != "end":
            messages.append(json.loads(lines.readline())["message"])
    handler.close()
    os.close(writer)
    told = [message for message in messages if message.startswith("entry ")]
    dropped = [int(found[1]) for m in messages if (found := re.match(r"(\d+) lines were drop", m))]
    assert sum(dropped) == total - len(told) > 0


ENTRIES = st.dictionaries(st.text(max_size=10), st.one_of(st.text(), st.integers(), st.floats()))


def entry(message: str, fields: dict[str, Any]) -> logging.LogRecord:
    made = logging.LogRecord("unface", logging.INFO, "", 0, "%s", (message,), None)
    made.fields = fields
    return made


@given(st.text(), ENTRIES)
def test_any_entry_is_one_printable_line(message: str, fields: dict[str, Any]) -> None:
    line = JsonLines().format(entry(message, fields))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert told["message"] == message
    text = TextLines().format(entry(message, fields))
    assert len(text.splitlines()) == 1
    text.encode()


def test_an_observer_that_nobody_hears_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "unface.access"):
        AccessLog().observe(ANSWERED)
        AccessLog().observe(REFUSED)
    assert caplog.records == []


def test_the_examples_in_the_documentation_are_what_is_written() -> None:
    text = (TESTS.parent / "docs" / "monitoring.md").read_text()
    shown = re.search(r"^```\n(.+)\n```", text, re.M)
    json_shown = re.search(r"^```json\n(.+)\n```", text, re.M)
    assert shown
    assert json_shown
    assert nameless(shown[1]) == nameless(written("access.observe(FAILED)", "text")[0])
    assert nameless(json_shown[1]) == nameless(written("access.observe(ANSWERED)")[0])


def nameless(line: str) -> str:
    """Return a line without what no two processes have in common."""
    return re.sub(r'client(=|": ")[0-9a-f]{12}', "client", re.sub(TIME, "time", line))
