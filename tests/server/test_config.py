from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.errors import InvalidOption
from unface.server.config import (
    FILE_VARIABLE,
    GROUPS,
    MAX_MESSAGE_BYTES,
    PREFIX,
    ServerConfig,
    add_arguments,
    address,
    config_from_arguments,
    load_config,
)

ROOT = Path(__file__).parents[2]
FIELDS = ServerConfig.model_fields
# What some options need beside them.
COMPANIONS: dict[str, dict[str, Any]] = {
    "engine_key_file": {"engines": "e"},
    "tls_certificate": {"tls_key": "k"},
    "tls_key": {"tls_certificate": "c"},
    "tls_client_ca": {"tls_certificate": "c", "tls_key": "k"},
    "quality_crops": {"quality_file": "f", "quality_key_file": "k"},
}
CANDIDATES: tuple[Any, ...] = (
    *(True, False, 3, 4, 5, 2048, 4096, 8192, 0.25, 0.5, 0.75, 1.5, 2.5, 3.5),
    *("cpu", "gpu", "json", "text", "debug", "error", "a.b", "c d", "é"),
    *(("png",), ("webp", "jpeg"), ("jpeg",)),
    *(("https://a.example",), ("http://b.example:8080", "https://[::1]"), ("http://c",)),
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (FILE_VARIABLE, *(PREFIX + name.upper() for name in FIELDS)):
        monkeypatch.delenv(name, raising=False)


def parsed(*flags: str) -> ServerConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from_arguments(parser.parse_args(flags))


def accepted(name: str) -> list[Any]:
    """Return values that an option takes as they are, those that are not its default first."""
    values = []
    for value in CANDIDATES:
        try:
            got = getattr(ServerConfig(**{name: value}, **COMPANIONS.get(name, {})), name)
        except InvalidOption:
            continue
        if got == value and type(got) is type(value):
            values.append(value)
    return sorted(values, key=lambda value: value == FIELDS[name].default)


def as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def as_flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", as_text(value)]


def write(folder: Path, **values: Any) -> str:
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (folder / "unface.toml").write_text("\n".join(lines))
    return str(folder / "unface.toml")


# --- where options come from ----------------------------------------------------------------------


def test_nothing_said_gives_the_defaults() -> None:
    assert parsed() == load_config() == ServerConfig()
    for name, field in FIELDS.items():
        assert getattr(ServerConfig(), name) == field.default


@pytest.mark.parametrize("name", FIELDS)
def test_flags_come_before_the_environment_the_file_and_the_default(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = accepted(name)
    in_file, in_environment = values[:2]
    in_flag = values[2] if len(values) > 2 else in_file
    file = write(tmp_path, **COMPANIONS.get(name, {}), **{name: in_file})

    def value(*flags: str) -> Any:
        return getattr(parsed(*flags), name)

    assert value() == FIELDS[name].default != in_file
    assert value("--config", file) == in_file
    monkeypatch.setenv(FILE_VARIABLE, file)
    assert value() == in_file
    assert value(*as_flag(name, in_environment)) == in_environment
    monkeypatch.setenv(PREFIX + name.upper(), as_text(in_environment))
    assert value() == in_environment
    assert value(*as_flag(name, in_flag)) == in_flag != in_environment


def test_the_flag_that_names_the_file_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(FILE_VARIABLE, write(tmp_path / "other", workers=2))
    assert parsed("--config", write(tmp_path, workers=3)).workers == 3


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if f.default is None])
def test_none_takes_back_what_the_file_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = accepted(name)[0]
    file = write(tmp_path, **{name: value})
    if name in ("engine_key_file", "tls_certificate", "tls_key", "tls_client_ca"):
        with pytest.raises(InvalidOption):  # refused as it stands, so it was taken back below
            load_config(file)
    else:
        assert getattr(load_config(file), name) == value
    assert getattr(parsed("--config", file, *as_flag(name, "none")), name) is None
    monkeypatch.setenv(PREFIX + name.upper(), "none")
    assert getattr(load_config(file), name) is None


def test_what_is_said_in_the_call_is_not_mixed_with_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PREFIX + "PORT", "1")
    assert ServerConfig().port == 50051
    assert ServerConfig(workers=2).workers == 2


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)]
)
def test_switches_are_words_in_the_environment(
    text: str, value: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "INSECURE", text)
    assert load_config().insecure is value
    assert parsed("--no-insecure").insecure is False
    monkeypatch.setenv(PREFIX + "INSECURE", "perhaps")
    with pytest.raises(InvalidOption, match="insecure is 'perhaps'"):
        load_config()


@pytest.mark.parametrize("said", ["png,webp", "png, webp", ["png", "webp"], ("png", "webp")])
def test_formats_are_a_list_or_words_with_commas_between(said: Any) -> None:
    assert ServerConfig(formats=said).formats == ("png", "webp")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wurkers", "Workers", "self", "_env_file", "_cli_parse_args", ""])
def test_an_unknown_name_in_the_file_or_the_call_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "unface.toml").write_text(f'"{name}" = true')
    for call in (
        lambda: load_config(str(tmp_path / "unface.toml")),
        lambda: load_config(flags={name: True}),
        lambda: ServerConfig(**{name: True}),
    ):
        with pytest.raises(InvalidOption, match=f"^{name} is no option; `unface serve --help`"):
            call()


def test_a_table_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unface.toml").write_text("[server]\nport = 1")
    with pytest.raises(InvalidOption, match="server is no option"):
        load_config(str(tmp_path / "unface.toml"))


@pytest.mark.parametrize("name", ["UNFACE_SERVE_WURKERS", "unface_serve_wurkers", "UNFACE_SERVE_"])
def test_an_unknown_name_in_the_environment_is_refused_and_its_value_not_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(InvalidOption, match=f"{name} is set in the env.* no such option") as error:
        load_config()
    assert "hunter2" not in str(error.value)


def test_variables_of_others_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFACE_PORT", "tcp://10.0.0.1:50051")  # as Kubernetes has it
    monkeypatch.setenv("UNFACE_ENGINE_KEY", "0" * 64)
    monkeypatch.setenv("UNFACE_KERNELS", "none")
    assert load_config() == ServerConfig()


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("--wurkers", "2")
    assert ended.value.code == 2
    assert "--wurkers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = ", "cannot be read as TOML"),
        (b"port = 1\nport = 2", "cannot be read as TOML"),
        (b"\xff\xfe", "cannot be read as TOML"),
        (b"port = 'many'", "port is 'many': it should be a valid integer"),
        (b"workers = 0\nqueue_size = 0", "workers is 0: .*; queue_size is 0: "),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "unface.toml").write_bytes(content)
    with pytest.raises(InvalidOption, match=message):
        load_config(str(tmp_path / "unface.toml"))


def test_a_file_that_is_not_there_is_refused_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InvalidOption, match=f"{path} is no file"):
            load_config(str(path))
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "absent.toml"))
    with pytest.raises(InvalidOption, match="is no file"):
        load_config()


REFUSED = [
    *[("port", -1), ("port", 65536), ("metrics_port", 65536), ("port", None)],
    *[("device", "tpu"), ("workers", 0), ("workers", 65), ("threads", 0), ("threads", 65)],
    *[("batch_size", 0), ("batch_size", 65), ("batch_delay_ms", -1), ("batch_delay_ms", 1001)],
    *[("worker_seconds", 0), ("max_message_bytes", 0), ("max_message_bytes", 1 << 31)],
    *[("max_pixels", 0), ("max_decoded_pixels", 0), ("queue_size", 0), ("queue_size", 100_001)],
    *[("queue_bytes", 0), ("queue_ms", 0), ("max_streams", 0), ("client_requests", 0)],
    *[("client_streams", 0), ("client_pixels_per_second", 0), ("formats", ""), ("formats", ())],
    *[("formats", "gif"), ("formats", "jpeg,"), ("log_format", "xml"), ("log_level", "loud")],
    *[("drain_seconds", -1), ("grace_seconds", -1), ("grace_seconds", 3601)],
    *[("quality_days", 0), ("trial_share", 0), ("trial_share", 1.1), ("jwt_audience", "")],
    *[("workers", "many"), ("workers", 1.5), ("insecure", "perhaps")],
    *[("http_port", 65536), ("http_batch_bytes", 1), ("http_seconds", 0.5), ("http_host", "")],
    *[("http_names", name) for name in ("*", "a b", "http://a", "a:8080", "a/b", "[a]")],
    *[("http_origins", page) for page in ("*", "null", "a.example", "https://a/", "ftp://a")],
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"{name} is "):
        ServerConfig(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
def test_no_option_takes_what_no_option_can_mean(name: str) -> None:
    for value in (math.nan, math.inf, -math.inf, "", {}, b"\xff", "\ud800"):
        with pytest.raises(InvalidOption, match=f"{name} is "):
            ServerConfig(**{name: value}, **COMPANIONS.get(name, {}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tls_certificate": "c"}, "tls_certificate and tls_key belong together"),
        ({"tls_key": "k"}, "tls_certificate and tls_key belong together"),
        ({"tls_client_ca": "a"}, "tls_client_ca needs tls_certificate"),
        ({"jwt_secret_file": "s", "jwt_jwks_file": "j"}, "exclude each other"),
        ({"quality_crops": True}, "quality_crops needs quality_file"),
        ({"quality_crops": True, "quality_file": "f"}, "quality_crops needs quality_file"),
        ({"engine_key_file": "k"}, "engine_key_file needs engines or plans"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(values: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        ServerConfig(**values)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ServerConfig().port = 1


# --- as TOML --------------------------------------------------------------------------------------

words = st.text(min_size=1)
configurations = st.builds(
    ServerConfig,
    host=words,
    port=st.integers(0, 65535),
    metrics_port=st.none() | st.integers(0, 65535),
    http_port=st.none() | st.integers(0, 65535),
    device=st.sampled_from(["auto", "cpu", "gpu"]),
    engines=words,
    engine_key_file=st.none() | words,
    batch_delay_ms=st.floats(0, 1000),
    max_message_bytes=st.integers(1024, MAX_MESSAGE_BYTES),
    client_pixels_per_second=st.none() | st.integers(1, 1 << 40),
    formats=st.lists(st.sampled_from(["jpeg", "png", "webp"]), min_size=1),
    insecure=st.booleans(),
    jwt_issuer=st.none() | words,
    grace_seconds=st.floats(0, 3600),
    trial_share=st.floats(0, 1, exclude_min=True),
)


@given(configurations)
def test_the_toml_of_a_configuration_gives_it_again(config: ServerConfig) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_text(config.to_toml(), encoding="utf-8")
        assert load_config(file.name) == config


def test_the_toml_names_every_option_in_its_group_and_those_that_are_not_set() -> None:
    text = ServerConfig(metrics_port=None).to_toml()
    assert re.findall(r"^(?:# )?(\w+) =", text, re.M) == list(FIELDS)
    assert re.findall(r"^# ([a-z ]+)$", text, re.M) == list(GROUPS.values())
    assert "# metrics_port =\n" in text


def test_none_is_a_word_in_the_file_where_the_default_is_something_else(tmp_path: Path) -> None:
    file = write(tmp_path, http_port="none")
    assert load_config(file).http_port is None
    assert 'http_port = "none"\n' in load_config(file).to_toml()
    assert load_config(file, {"http_port": 1}).http_port == 1


# --- what it says of itself -----------------------------------------------------------------------


def test_every_option_has_a_help_and_every_group_an_option() -> None:
    assert all(field.description for field in FIELDS.values())
    assert GROUPS.keys() <= FIELDS.keys()
    assert next(iter(GROUPS)) == next(iter(FIELDS))


def test_a_server_listens_to_this_machine_alone_unless_told() -> None:
    assert ServerConfig().host == ServerConfig().metrics_host == "127.0.0.1"


def test_the_devices_and_formats_are_those_of_the_rooms_that_have_them() -> None:
    from unface.anonymize import FORMATS
    from unface.engines.device import DEVICES

    assert get_args(FIELDS["device"].annotation) == DEVICES
    assert set(FIELDS["formats"].default) == set(FORMATS)


def test_tokens_are_needed_as_soon_as_there_is_something_to_check_them_with() -> None:
    assert not ServerConfig().has_tokens
    assert parsed("--jwt-secret-file", "s").has_tokens
    assert ServerConfig(jwt_jwks_file="j").has_tokens


def test_an_ipv6_address_gets_brackets() -> None:
    assert address("::1", 5) == "[::1]:5"
    assert address("127.0.0.1", 5) == "127.0.0.1:5"
    assert ServerConfig(host="::1", port=5).address == "[::1]:5"


def test_importing_the_package_or_its_configuration_brings_in_no_grpc() -> None:
    code = (
        "import sys, unface.server, unface.server.config; "
        "print([m for m in ('grpc', 'numpy', 'cv2') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# --- docs/configuration.md ------------------------------------------------------------------------


def test_the_page_of_options_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "options.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_old_page_would_be_seen(tmp_path: Path) -> None:
    script, page = tmp_path / "options.py", tmp_path / "configuration.md"
    script.write_text((ROOT / "docs" / "options.py").read_text())
    current = (ROOT / "docs" / "configuration.md").read_text()
    page.write_text(current.replace("| `50051` |", "| `50052` |"))
    assert page.read_text() != current
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert checked.returncode == 1
    assert "python docs/options.py" in checked.stderr
    subprocess.run([sys.executable, script], check=True)
    assert page.read_text() == current


def test_the_example_of_the_page_is_a_configuration(tmp_path: Path) -> None:
    example = re.search(
        r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.S
    )
    assert example
    (tmp_path / "unface.toml").write_text(example[1])
    assert load_config(str(tmp_path / "unface.toml")).workers == 4
