"""What an operator may choose: one table of fields, read from a file, the environment and flags."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from unface.errors import InvalidOption

MAX_MESSAGE_BYTES = 1 << 30  # gRPC counts in 31 bits
# Not UNFACE_: Kubernetes gives every container UNFACE_PORT where a service is called unface.
PREFIX = "UNFACE_SERVE_"
FILE_VARIABLE = PREFIX + "CONFIG"
NONE = "none"  # as text: without it, whatever the default or the file says

Count = Annotated[int, Field(ge=1, le=100_000)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 50)]
Pixels = Annotated[int, Field(ge=1, le=1 << 40)]
Seconds = Annotated[float, Field(ge=0, le=3600)]
Name = Annotated[str, Field(min_length=1)]
File = Name  # its path; secrets are in files alone, so that every value here may be shown
Format = Literal["jpeg", "png", "webp"]
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]")  # without a port
_ORIGIN = re.compile(rf"https?://(?:{_HOST.pattern})(?::[0-9]{{1,5}})?")
GROUPS = {  # by the first option of each
    "host": "where it listens",
    "http_host": "http",
    "device": "engines",
    "workers": "workers and batches",
    "max_message_bytes": "limits",
    "insecure": "security",
    "log_format": "what it tells",
    "drain_seconds": "life cycle",
    "quality_file": "quality",
}


def _option(default: Any, help: str, **limits: Any) -> Any:
    return Field(default, description=help, **limits)


class ServerConfig(BaseSettings):
    """The configuration of a server: what is said here, and defaults; `load_config` reads more.

    Raises `InvalidOption` naming the field, for a name that is no field too.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_parse_none_str=NONE, frozen=True)

    host: Name = _option("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = _option(50051, "port to listen on; 0 takes a free one", ge=0, le=65535)
    metrics_host: Name = _option("127.0.0.1", "address of /metrics, /healthz and /readyz")
    metrics_port: int | None = _option(None, "their port; default: none of them", ge=0, le=65535)

    http_host: Name = _option("127.0.0.1", "address of the page and of REST")
    http_port: int | None = _option(
        8080, "their port; 0 takes a free one, none: neither of them", ge=0, le=65535
    )
    http_names: Annotated[tuple[Name, ...], NoDecode] = _option(
        (), "names by which clients reach them, beside localhost and http_host"
    )
    http_origins: Annotated[tuple[Name, ...], NoDecode] = _option(
        (), "other pages that may call them, such as https://photos.example (CORS)"
    )
    http_batch_bytes: Bytes = _option(512 << 20, "bytes of one POST /v1/batch, each way")
    http_seconds: float = _option(60, "a picture must have come after so long", ge=1, le=3600)

    device: Literal["auto", "cpu", "gpu"] = _option(
        "auto", "auto: a GPU if there is one; gpu: warn without one; or cpu"
    )
    plans: Name | None = _option(None, "folder[:precision] of TensorRT plans for the GPU")
    precision: Name = _option("fp32", "engines of calls whose profile names none: fp32 or int8")
    engines: File | None = _option(None, "folder of your own engines; default: those that ship")
    engine_key_file: File | None = _option(
        None, "key of encrypted engines or plans; unface engines new-key"
    )
    allow_uncertified: bool = _option(False, "use engines that have not passed the gate")

    workers: int = _option(1, "processes that do the work", ge=1, le=64)
    threads: int | None = _option(
        None, "CPU threads of each worker; default: its part of all cores", ge=1, le=64
    )
    batch_size: int = _option(8, "pictures done together at most", ge=1, le=64)
    batch_delay_ms: float = _option(
        0, "milliseconds that a picture may wait for others to join it", ge=0, le=1000
    )
    worker_seconds: float = _option(
        120, "a worker that gives no answer for so long is replaced", ge=1, le=3600
    )

    max_message_bytes: int = _option(
        64 << 20, "bytes of the largest picture, each way", ge=1024, le=MAX_MESSAGE_BYTES
    )
    max_pixels: Pixels = _option(100_000_000, "width x height of the largest picture")
    max_decoded_pixels: Pixels = _option(
        200_000_000, "pixels of all pictures in the workers at once, 3 bytes each"
    )
    min_threshold: float = _option(
        0.05, "least threshold that a request may ask for; less costs seconds", gt=0, lt=1
    )
    formats: Annotated[tuple[Format, ...], NoDecode] = _option(
        ("jpeg", "png", "webp"), "formats accepted, with commas between", min_length=1
    )
    queue_size: Count = _option(64, "requests that may wait; more are refused at once")
    queue_bytes: Bytes = _option(512 << 20, "bytes that all requests may hold together")
    queue_ms: float = _option(
        2000, "a request that would wait longer is refused at once", ge=1, le=3_600_000
    )
    max_streams: Count = _option(16, "streams open at once; more are refused")
    client_requests: Count | None = _option(None, "requests of one client at once; default: any")
    client_streams: Count | None = _option(None, "streams of one client at once; default: any")
    client_pixels_per_second: Pixels | None = _option(
        None, "pixels of one client in a second; default: any"
    )

    insecure: bool = _option(False, "serve other machines without TLS and tokens")
    tls_certificate: File | None = _option(None, "PEM file; read again when it changes")
    tls_key: File | None = _option(None, "PEM file of its private key")
    tls_client_ca: File | None = _option(None, "PEM file: clients need a certificate signed by it")
    jwt_secret_file: File | None = _option(None, "tokens are signed with this secret (HS256)")
    jwt_jwks_file: File | None = _option(None, "or with one of these keys (RS256, ES256, EdDSA)")
    jwt_audience: Name = _option("unface", "audience that tokens must name")
    jwt_issuer: Name | None = _option(None, "issuer that tokens must name; default: any")
    audit_key_file: File | None = _option(
        None, "Ed25519 private key (PEM) that signs audit records; default: not signed"
    )

    log_format: Literal["text", "json"] = _option("text", "text or json")
    log_level: Literal["debug", "info", "warning", "error"] | None = _option(
        None, "least level told; default: warning as text, info as json"
    )
    trace_endpoint: Name | None = _option(
        None, "OTLP/gRPC collector, such as http://localhost:4317"
    )

    drain_seconds: Seconds = _option(0, "time to go on after SIGTERM while readiness says no")
    grace_seconds: Seconds = _option(10, "time to finish what is under way when told to stop")

    quality_file: File | None = _option(None, "SQLite file of reports and trials; default: none")
    quality_crops: bool = _option(False, "keep an encrypted crop of each reported place")
    quality_key_file: File | None = _option(None, "key of the crops; unface engines new-key")
    quality_days: float = _option(30, "reports are deleted after so many days", gt=0, le=3650)
    trial_profile: Name | None = _option(None, "another profile to try on part of the requests")
    trial_share: float = _option(0.1, "that part, chosen by request id", gt=0, le=1)
    trial_shadow: bool = _option(False, "run it beside the first and compare; do not answer by it")

    def __init__(self, /, **values: Any) -> None:
        for name in values.keys() - type(self).model_fields.keys():
            raise InvalidOption(f"{name} is no option; `unface serve --help` lists them")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidOption("; ".join(map(_words, error.errors()))) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what the call says and nothing else: `load_config` looks elsewhere."""
        return (init_settings,)

    @field_validator("formats", "http_names", "http_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("http_names")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _HOST.fullmatch(name):
                raise ValueError(f"{name} is no host name or address, such as faces.example")
        return tuple(name.lower() for name in value)

    @field_validator("http_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is no origin, such as https://photos.example")
        return tuple(origin.lower() for origin in value)

    @model_validator(mode="after")
    def _fits_together(self) -> ServerConfig:
        if self.engine_key_file and not (self.engines or self.plans):
            raise ValueError("engine_key_file needs engines or plans, which it opens")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if self.jwt_secret_file and self.jwt_jwks_file:
            raise ValueError("jwt_secret_file and jwt_jwks_file exclude each other")
        if self.quality_crops and not (self.quality_file and self.quality_key_file):
            raise ValueError("quality_crops needs quality_file and quality_key_file")
        return self

    @property
    def address(self) -> str:
        """`host:port` as gRPC wants it."""
        return address(self.host, self.port)

    @property
    def has_tokens(self) -> bool:
        """Whether calls need a token."""
        return bool(self.jwt_secret_file or self.jwt_jwks_file)

    def to_toml(self) -> str:
        """Return the configuration as the TOML file that gives it."""
        lines = []
        for name, value in self:
            if name in GROUPS:
                lines.append(f"\n# {GROUPS[name]}")
            if value is None and type(self).model_fields[name].default is None:
                lines.append(f"# {name} =")
            else:
                lines.append(f"{name} = {to_toml_value(NONE if value is None else value)}")
        return "\n".join(lines).lstrip() + "\n"


def load_config(file: str | None = None, flags: Mapping[str, Any] | None = None) -> ServerConfig:
    """Read the configuration: defaults, then a TOML file, the environment, and flags.

    Each overrides those before it. `file` None takes the one that `UNFACE_SERVE_CONFIG` names, if
    any. In the environment a field is `UNFACE_SERVE_` and its name; as text, "none" is None. Raises
    `InvalidOption` naming the field, for an unknown key too, and for a file that cannot be read.
    """
    path = file or os.environ.get(FILE_VARIABLE)
    values = _read_toml(path) if path else {}
    values = {name: None if value == NONE else value for name, value in values.items()}
    _check_environment()
    values |= EnvSettingsSource(ServerConfig)()
    return ServerConfig(**values | dict(flags or {}))


def address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field, such as `--queue-size`, `--config` and `--print-config`."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file of these options (or {FILE_VARIABLE})"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print what would be served, as TOML, and stop"
    )
    group: argparse._ActionsContainer = parser
    for name, field in ServerConfig.model_fields.items():
        if name in GROUPS:
            group = parser.add_argument_group(GROUPS[name])
        flag, help = "--" + name.replace("_", "-"), field.description
        if field.annotation is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help)
            continue
        shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        group.add_argument(
            flag,
            metavar=name.rsplit("_", 1)[-1].upper(),
            help=help if shown in (None, "") else f"{help} ({shown})",
        )


def config_from_arguments(arguments: argparse.Namespace) -> ServerConfig:
    """Return the configuration that the flags of `add_arguments` say; see `load_config`."""
    given = {name: getattr(arguments, name) for name in ServerConfig.model_fields}
    flags = {
        name: None if value == NONE else value for name, value in given.items() if value is not None
    }
    return load_config(arguments.config, flags)


def _check_environment() -> None:
    """Raise `InvalidOption` for a variable that no field reads: it would be ignored in silence."""
    known = {PREFIX + name.upper() for name in ServerConfig.model_fields} | {FILE_VARIABLE}
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise InvalidOption(f"{name} is set in the environment, but there is no such option")


def _read_toml(path: str) -> dict[str, Any]:
    if not Path(path).is_file():  # which the source below would pass over
        raise InvalidOption(f"{path} is no file; config names a TOML file")
    try:
        return dict(TomlConfigSettingsSource(ServerConfig, toml_file=path).toml_data)
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise InvalidOption(f"{path} cannot be read as TOML: {error}") from error


def _words(error: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as a sentence that names the field and the value."""
    name = ".".join(map(str, error["loc"][:1]))
    if not name:
        return str(error["msg"]).removeprefix("Value error, ")
    message = str(error["msg"]).replace("Input should", "it should")
    return f"{name} is {error['input']!r}: {message}"


def to_toml_value(value: Any) -> str:
    """Return a value as TOML; JSON's strings, numbers and lists are TOML's too, but for DEL."""
    plain = list(value) if isinstance(value, tuple) else value
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
