"""A .proto as facts: what may never change once clients rely on it, and what is good form.

    python tests/contract.py > proto/unface/v1/baseline.txt

writes down the contract as it is now, when it is released.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

PROTO = Path(__file__).parents[1] / "proto" / "unface" / "v1" / "unface.proto"
BASELINE = PROTO.with_name("baseline.txt")
HEADER = """\
# The contract: names, numbers and types that clients rely on. What stands here stays, or is
# reserved once it is removed. `python tests/contract.py` writes it, for each release.
"""


def read_proto(path: Path) -> FileDescriptorProto:
    """Compile a .proto file; the result has its comments too."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{path.parent}"]
        command += ["--include_source_info", f"--descriptor_set_out={out}", path.name]
        subprocess.run(command, check=True, capture_output=True, cwd=path.parent)
        (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    return file


# What must stay -------------------------------------------------------------------------------


def facts(file: FileDescriptorProto) -> dict[str, str]:
    """Return what clients rely on: a name or a number, and what it stands for."""
    found = {"package": file.package, "syntax": file.syntax}
    for message in file.message_type:
        found.update(_message_facts(message, message.name))
    for enum in file.enum_type:
        found.update(_enum_facts(enum, enum.name))
    for service in file.service:
        found[f"service {service.name}"] = ""
        for rpc in service.method:
            flow = ["stream " * rpc.client_streaming, "stream " * rpc.server_streaming]
            found[f"rpc {service.name}.{rpc.name}"] = (
                f"({flow[0]}{rpc.input_type}) returns ({flow[1]}{rpc.output_type})"
            )
    return found


def to_text(found: dict[str, str]) -> str:
    """Return facts as lines that a person can compare."""
    return HEADER + "".join(f"{key}: {value}".rstrip() + "\n" for key, value in found.items())


def from_text(text: str) -> dict[str, str]:
    """Return the facts of `to_text`."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def breaks(released: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return what clients of the released contract would trip over; empty: nothing."""
    wrong = []
    for key, value in released.items():
        if now.get(key) == value:
            continue
        if key in now:
            wrong.append(f"{key} was {value!r} and is {now[key]!r}")
        elif not _is_reserved(key, value, now):
            wrong.append(f"{key} ({value}) is gone; reserve its number and its name")
    return wrong


def _message_facts(message: DescriptorProto, name: str) -> Iterator[tuple[str, str]]:
    yield f"message {name}", ""
    for field in message.field:
        kind = field.type_name or FieldDescriptorProto.Type.Name(field.type)
        label = FieldDescriptorProto.Label.Name(field.label)
        if field.proto3_optional:
            group = "optional"
        elif field.HasField("oneof_index"):
            group = "oneof " + message.oneof_decl[field.oneof_index].name
        else:
            group = ""
        yield f"field {name}.{field.name}", f"{field.number} {kind} {label} {group}".rstrip()
    for span in message.reserved_range:
        for number in range(span.start, span.end):
            yield f"reserved {name}.{number}", ""
    for reserved in message.reserved_name:
        yield f"reserved {name}.{reserved}", ""
    for nested in message.nested_type:
        yield from _message_facts(nested, f"{name}.{nested.name}")
    for enum in message.enum_type:
        yield from _enum_facts(enum, f"{name}.{enum.name}")


def _enum_facts(enum: EnumDescriptorProto, name: str) -> Iterator[tuple[str, str]]:
    yield f"enum {name}", ""
    for value in enum.value:
        yield f"value {name}.{value.name}", str(value.number)
    for span in enum.reserved_range:  # here the end is included
        for number in range(span.start, span.end + 1):
            yield f"reserved {name}.{number}", ""
    for reserved in enum.reserved_name:
        yield f"reserved {name}.{reserved}", ""


def _is_reserved(key: str, value: str, now: dict[str, str]) -> bool:
    """Return whether a field or enum value that is gone can never come back as another."""
    kind, _, name = key.partition(" ")
    if kind not in ("field", "value"):
        return False
    parent, number = name.rpartition(".")[0], value.split()[0]
    return f"reserved {name}" in now and f"reserved {parent}.{number}" in now


# What is good form ----------------------------------------------------------------------------
# After https://buf.build/docs/lint/rules: PACKAGE_VERSION_SUFFIX, *_SNAKE_CASE, *_PASCAL_CASE,
# ENUM_VALUE_PREFIX, ENUM_ZERO_VALUE_SUFFIX, COMMENT_*.

PASCAL = r"[A-Z][A-Za-z0-9]*"
LOWER_SNAKE = r"[a-z][a-z0-9]*(_[a-z0-9]+)*"


def lint(file: FileDescriptorProto) -> list[str]:
    """Return what is against the rules of form; empty: nothing."""
    commented = {
        tuple(place.path)
        for place in file.source_code_info.location
        if place.leading_comments.strip() or place.trailing_comments.strip()
    }
    wrong = []
    if not re.fullmatch(r"[a-z.]+\.v[1-9]\d*", file.package):
        wrong.append(f"package {file.package} has no version at its end")
    # The numbers are those of the fields of descriptor.proto, as in SourceCodeInfo.Location.path.
    for index, message in enumerate(file.message_type):
        wrong += _lint_message(message, (4, index), commented)
    for index, enum in enumerate(file.enum_type):
        wrong += _lint_enum(enum, (5, index), commented)
    for index, service in enumerate(file.service):
        wrong += _lint_service(service, (6, index), commented)
    return wrong


Commented = set[tuple[int, ...]]


def _lint_message(
    message: DescriptorProto, path: tuple[int, ...], commented: Commented
) -> Iterator[str]:
    yield from _form(f"message {message.name}", message.name, PASCAL, path, commented)
    optional = {field.oneof_index for field in message.field if field.proto3_optional}
    for index, field in enumerate(message.field):
        name = f"field {message.name}.{field.name}"
        yield from _form(name, field.name, LOWER_SNAKE, (*path, 2, index), commented)
    for index, oneof in enumerate(message.oneof_decl):
        if index not in optional:  # protoc makes one for each of those
            name = f"oneof {message.name}.{oneof.name}"
            yield from _form(name, oneof.name, LOWER_SNAKE, (*path, 8, index), commented)
    for index, nested in enumerate(message.nested_type):
        yield from _lint_message(nested, (*path, 3, index), commented)
    for index, enum in enumerate(message.enum_type):
        yield from _lint_enum(enum, (*path, 4, index), commented)


def _lint_enum(
    enum: EnumDescriptorProto, path: tuple[int, ...], commented: Commented
) -> Iterator[str]:
    yield from _form(f"enum {enum.name}", enum.name, PASCAL, path, commented)
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"
    for index, value in enumerate(enum.value):
        name = f"value {enum.name}.{value.name}"
        shape = re.escape(prefix) + r"[A-Z0-9]+(_[A-Z0-9]+)*"
        yield from _form(name, value.name, shape, (*path, 2, index), commented)
        if (value.number == 0) != (value.name == prefix + "UNSPECIFIED"):
            yield f"{name} is {value.number}; {prefix}UNSPECIFIED is 0, and nothing else is"


def _lint_service(
    service: ServiceDescriptorProto, path: tuple[int, ...], commented: Commented
) -> Iterator[str]:
    yield from _form(f"service {service.name}", service.name, PASCAL, path, commented)
    for index, rpc in enumerate(service.method):
        name = f"rpc {service.name}.{rpc.name}"
        yield from _form(name, rpc.name, PASCAL, (*path, 2, index), commented)


def _form(
    what: str, name: str, shape: str, path: tuple[int, ...], commented: Commented
) -> Iterator[str]:
    if not re.fullmatch(shape, name):
        yield f"{what} is not named {shape}"
    if path not in commented:
        yield f"{what} has no comment"


def main(arguments: Sequence[str]) -> int:
    """Print the facts of the contract, or of another .proto file."""
    print(to_text(facts(read_proto(Path(arguments[0]) if arguments else PROTO))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
