import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import contract
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from unface.v1 import unface_pb2, unface_pb2_grpc

ROOT = Path(__file__).parents[2]
PROTO = contract.PROTO
GENERATED = ("unface_pb2.py", "unface_pb2.pyi", "unface_pb2_grpc.py", "unface_pb2_grpc.pyi")


SMALL = """
// A package.
syntax = "proto3";
package test.v1;

// Talks.
service Talk {
  // Says something.
  rpc Say(Word) returns (Word);
  // Says much.
  rpc SayAll(stream Word) returns (stream Word);
}

// A word.
message Word {
  reserved 9;
  reserved "old";
  // What it is.
  string text = 1;
  // How loud.
  optional int32 volume = 2;
  // Others.
  repeated Word more = 3;
  // One of two.
  oneof tone {
    // High.
    bool high = 4;
    // Low.
    bool low = 5;
  }
  // In what mood.
  Mood mood = 6;
}

// A mood.
enum Mood {
  // Unknown.
  MOOD_UNSPECIFIED = 0;
  // Good.
  MOOD_GOOD = 1;
}
"""


def compiled(text: str, folder: Path) -> FileDescriptorProto:
    path = folder / "small.proto"
    path.write_text(text)
    return contract.read_proto(path)


def changed(old: str, new: str) -> str:
    assert SMALL.count(old) == 1, old
    return SMALL.replace(old, new)


def read() -> FileDescriptorProto:
    pytest.importorskip("grpc_tools")
    return contract.read_proto(PROTO)


def test_generated_code_is_what_the_contract_says(tmp_path: Path) -> None:
    """Regenerate with the compilers that made it; others write other code for the same contract."""
    made_with = unface_pb2_grpc.GRPC_GENERATED_VERSION
    try:
        found = version("grpcio-tools")
        version("mypy-protobuf")
    except PackageNotFoundError:
        pytest.skip("grpcio-tools or mypy-protobuf is not installed")
    if found != made_with:
        pytest.skip(f"made with grpcio-tools {made_with}, installed is {found}")
    plugins = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    command += [
        f"--plugin=protoc-gen-{n}={plugins / f'protoc-gen-{n}'}" for n in ("mypy", "mypy_grpc")
    ]
    command += [f"--{n}_out={tmp_path}" for n in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run([*command, str(PROTO)], check=True, capture_output=True)
    for name in GENERATED:
        fresh = (tmp_path / "unface" / "v1" / name).read_text()
        assert fresh == (PROTO.parent / name).read_text(), f"{name} is old: run `make proto`"


def test_no_client_of_the_released_contract_breaks() -> None:
    released = contract.from_text(contract.BASELINE.read_text())
    assert len(released) > 100
    assert contract.breaks(released, contract.facts(read())) == []


def test_the_contract_is_in_good_form_and_every_part_of_it_has_a_comment() -> None:
    assert contract.lint(read()) == []


def test_all_options_of_a_detection_know_whether_they_were_set() -> None:
    for field in unface_pb2.DetectOptions.DESCRIPTOR.fields:
        assert field.has_presence, field.name


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("string text = 1;", "string text = 7;", ["field Word.text was"]),
        ("string text = 1;", "bytes text = 1;", ["field Word.text was"]),
        ("string text = 1;", "repeated string text = 1;", ["field Word.text was"]),
        ("string text = 1;", "optional string text = 1;", ["field Word.text was"]),
        ("optional int32 volume", "int32 volume", ["field Word.volume was"]),
        ("repeated Word more", "Word more", ["field Word.more was"]),
        ("string text = 1;", "string words = 1;", ["field Word.text (1 TYPE_STRING"]),
        ("  string text = 1;\n", "", ["field Word.text (1 TYPE_STRING"]),
        ("  string text = 1;\n", "  reserved 1;\n", ["field Word.text (1"]),
        ("  string text = 1;\n", '  reserved "text";\n', ["field Word.text (1"]),
        ("  reserved 9;\n", "", ["reserved Word.9"]),
        ('  reserved "old";\n', "", ["reserved Word.old"]),
        ("oneof tone", "oneof pitch", ["field Word.high was", "field Word.low was"]),
        ("Mood mood = 6;", "Word mood = 6;", ["field Word.mood was"]),
        ("  MOOD_GOOD = 1;", "  MOOD_GOOD = 2;", ["value Mood.MOOD_GOOD was"]),
        ("  MOOD_GOOD = 1;", "  MOOD_FINE = 1;", ["value Mood.MOOD_GOOD (1) is gone"]),
        ("rpc Say(Word)", "rpc Tell(Word)", ["rpc Talk.Say ("]),
        ("rpc Say(Word)", "rpc Say(stream Word)", ["rpc Talk.Say was"]),
        ("returns (stream Word)", "returns (Word)", ["rpc Talk.SayAll was"]),
        ("service Talk", "service Speak", ["service Talk (", "rpc Talk.Say (", "rpc Talk.SayAll"]),
        ("package test.v1", "package test.v2", ["package was 'test.v1'"]),
    ],
)
def test_each_kind_of_break_would_be_found(
    old: str, new: str, found: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("grpc_tools")
    released = contract.facts(compiled(SMALL, tmp_path))
    now = contract.facts(compiled(changed(old, new), tmp_path))
    breaks = contract.breaks(contract.from_text(contract.to_text(released)), now)
    for start in found:
        assert any(line.startswith(start) for line in breaks), breaks


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string text = 1;", "string text = 1;\n  string more_text = 7;"),
        ("  string text = 1;\n", '  reserved 1;\n  reserved "text";\n'),
        ("  reserved 9;\n", "  reserved 9 to 12;\n"),
        ("  MOOD_GOOD = 1;", "  MOOD_GOOD = 1;\n  MOOD_BAD = 2;"),
        ("  MOOD_GOOD = 1;", '  reserved 1;\n  reserved "MOOD_GOOD";'),
        ("rpc Say(Word)", "rpc Hum(Word) returns (Word);\n  rpc Say(Word)"),
        ("// How loud.", "// How soft."),
        ("// A mood.", "// A thing.\nmessage Thing {}\n// A mood."),
    ],
)
def test_what_breaks_nobody_is_no_break(old: str, new: str, tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    released = contract.facts(compiled(SMALL, tmp_path))
    now = contract.facts(compiled(changed(old, new), tmp_path))
    assert now != released or old.startswith("//")
    assert contract.breaks(released, now) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("package test.v1", "package test", "package test has no version"),
        ("string text", "string Text", "field Word.Text is not named"),
        ("string text", "string theText", "field Word.theText is not named"),
        ("oneof tone", "oneof Tone", "oneof Word.Tone is not named"),
        ("  MOOD_GOOD = 1", "  GOOD = 1", "value Mood.GOOD is not named"),
        ("  MOOD_GOOD = 1", "  MOOD_Good = 1", "value Mood.MOOD_Good is not named"),
        ("MOOD_UNSPECIFIED", "MOOD_NONE", "value Mood.MOOD_NONE is 0"),
        ("rpc Say(", "rpc say(", "rpc Talk.say is not named"),
        ("service Talk", "service talk", "service talk is not named"),
        ("  // What it is.\n", "", "field Word.text has no comment"),
        ("  // One of two.\n", "", "oneof Word.tone has no comment"),
        ("    // High.\n", "", "field Word.high has no comment"),
        ("// A word.\n", "", "message Word has no comment"),
        ("// A mood.\n", "", "enum Mood has no comment"),
        ("  // Good.\n", "", "value Mood.MOOD_GOOD has no comment"),
        ("// Talks.\n", "", "service Talk has no comment"),
        ("  // Says something.\n", "", "rpc Talk.Say has no comment"),
    ],
)
def test_each_lapse_of_form_would_be_found(old: str, new: str, found: str, tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    assert contract.lint(compiled(SMALL, tmp_path)) == []
    (lapse,) = contract.lint(compiled(changed(old, new), tmp_path))
    assert lapse.startswith(found)
