"""The `unface` command: detect, anonymize, serve, info."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from unface.audit_command import add_commands as add_audit_commands
from unface.errors import InvalidOption, UnfaceError
from unface.quality_command import add_commands as add_quality_commands

SUCCESS, SOME_FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 something failed, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):  # file names need not be text
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parsed = build_parser().parse_args(arguments)
    try:
        result: int = parsed.run(parsed)
    except InvalidOption as error:
        print(f"unface: {error}", file=sys.stderr)
        return USAGE
    except UnfaceError as error:
        print(f"unface: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("unface: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `unface detect ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    return result


class _Parser(argparse.ArgumentParser):
    """A parser that may learn its options when it is used; those of others cost no time then."""

    learn: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        learn, self.learn = self.learn, None
        if learn is not None:
            learn(self)
        return super().parse_known_args(args, namespace)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="unface",
        description="Find faces in pictures and remove them. Pictures never leave this machine.",
    )
    parser.add_argument("--version", action="version", version=f"unface {version('unface')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_detect(commands)
    _add_anonymize(commands)
    _add_serve(commands)
    _add_info(commands)
    _add_engines(commands)
    _add_calibrate(commands)
    _add_validate(commands)
    add_quality_commands(commands)
    add_audit_commands(commands)
    return parser


def _add_detect(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("detect", help="list the faces in pictures")
    parser.add_argument("paths", nargs="+", type=Path, metavar="IMG", help="files or folders")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each picture")
    _add_detect_options(parser)
    _add_server_options(parser)
    parser.set_defaults(run=_later("batch", "detect_pictures"))


def _add_anonymize(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("anonymize", help="write pictures without faces")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", "--out", type=Path, help="folder, or file when one file is given")
    where.add_argument("--in-place", action="store_true", help="overwrite the pictures themselves")
    parser.add_argument("--force", action="store_true", help="overwrite earlier results")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each picture")
    mask = parser.add_argument_group("how faces are covered")
    mask.add_argument(
        "--method",
        help="mosaic (default), solid; blur can be undone; box only draws a frame for review",
    )
    mask.add_argument("--shape", help="ellipse (default) or rectangle")
    mask.add_argument(
        "--margin", type=float, help="added on every side, part of the box (0.1; privacy 0.25)"
    )
    mask.add_argument("--cells", type=int, help="mosaic: cells along the longer side (5)")
    mask.add_argument("--kernel", type=float, help="blur: kernel, part of the box (0.6)")
    mask.add_argument("--color", type=_color, metavar="R,G,B", help="solid: colour (0,0,0)")
    places = parser.add_argument_group("what you decide yourself, in pixels of upright pictures")
    for name, help in (
        ("--keep", "leave the face in this box clear; may be repeated"),
        ("--cover", "always cover this box; may be repeated"),
    ):
        places.add_argument(name, action="append", type=_box, metavar="X1,Y1,X2,Y2", help=help)
    places.add_argument(
        "--cover-only", action="store_true", default=None, help="look for no faces: --cover alone"
    )
    output = parser.add_argument_group("the pictures that come out")
    output.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="search the result with the profile privacy, and cover what is left more strongly; "
        "exit code 1 if a face is left",
    )
    output.add_argument(
        "--verify-rounds",
        type=int,
        metavar="N",
        help="so often at most, 0 to 4 (2); 0 only looks",
    )
    output.add_argument("--format", help="jpeg, png or webp; default: as it came in")
    output.add_argument("--quality", type=int, help="1-100 for JPEG and WebP (95)")
    output.add_argument(
        "--keep-exif", action="store_true", default=None, help="keep EXIF data, never its thumbnail"
    )
    output.add_argument(
        "--audit", action="store_true", default=None, help="write NAME.audit.json beside each"
    )
    output.add_argument(
        "--audit-key", metavar="FILE", help="sign it, without a server; unface audit new-key"
    )
    _add_detect_options(parser)
    _add_server_options(parser)
    parser.set_defaults(run=_later("batch", "anonymize_pictures"))


def _add_serve(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("serve", help="serve gRPC calls until stopped")
    parser.learn = _add_serve_options
    parser.set_defaults(run=_later("server.__main__", "start"))


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    from unface.server.config import add_arguments  # pydantic takes 100 ms to import

    add_arguments(parser)


def _add_info(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("info", help="print backend, engines, limits and versions")
    parser.add_argument("--json", action="store_true", help="as JSON")
    _add_server_options(parser)
    parser.set_defaults(run=_later("info", "print_info"))


def _add_engines(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("engines", help="list, build, encrypt and inspect engines")
    key = "key of encrypted engines; else the environment variable UNFACE_ENGINE_KEY"
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="engines, and what the gate said of them")
    listing.add_argument("folder", nargs="?", type=Path, help="default: those that ship")
    listing.add_argument("--key-file", metavar="FILE", help=key)
    listing.set_defaults(run=_later("engines_command", "list_engines"))
    making = actions.add_parser("new-key", help="write a new key to encrypt engines with")
    making.add_argument("file", type=Path, metavar="FILE", help="where; only you may read it")
    making.set_defaults(run=_later("engines_command", "make_key"))
    encrypting = actions.add_parser("encrypt", help="encrypt a folder of engines (AES-256-GCM)")
    encrypting.add_argument("folder", nargs="?", type=Path, help="default: those that ship")
    encrypting.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    encrypting.add_argument("--key-file", metavar="FILE", help=key)
    encrypting.set_defaults(run=_later("engines_command", "encrypt_engines"))
    building = actions.add_parser("build", help="build all engines into a folder and judge them")
    building.add_argument("folder", type=Path, help="where to write them")
    building.add_argument("--cache", type=Path, metavar="DIR", help="of unface calibrate")
    building.add_argument(
        "--data", type=Path, metavar="DIR", help="labelled pictures to judge on; else built-in ones"
    )
    building.add_argument(
        "--target",
        choices=("cpu", "tensorrt"),
        default="cpu",
        help="what runs them: the CPU (default), or TensorRT on an NVIDIA GPU",
    )
    gpu = building.add_argument_group("--target tensorrt")
    gpu.add_argument(
        "--library",
        help="tensorrt, for the GPU of this machine, or tensorrt_rtx, for RTX cards and without "
        "a GPU; default: the first that is installed",
    )
    gpu.add_argument(
        "--capability",
        dest="capabilities",
        action="append",
        metavar="X.Y",
        help="tensorrt_rtx: a compute capability (7.5, 8.0, 8.6, 8.9 and 12.0); may be repeated",
    )
    gpu.add_argument(
        "--precision",
        dest="precisions",
        action="append",
        help="fp32, fp16, int8 or mixed; may be repeated; default: all",
    )
    building.set_defaults(run=_later("engines_command", "build_engines"))
    inspecting = actions.add_parser("inspect", help="what TensorRT fused, layer by layer")
    inspecting.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path("out/tensorrt")],
        metavar="PATH",
        help="folders of plans, or plans (out/tensorrt)",
    )
    inspecting.add_argument("--network", choices=("pnet", "rnet", "onet"), help="this one alone")
    inspecting.add_argument("--precision", help="this one alone: fp32, fp16, int8 or mixed")
    inspecting.set_defaults(run=_later("engines_command", "inspect_engines"))


def _add_calibrate(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("calibrate", help="measure INT8 ranges on your own pictures")
    parser.add_argument("paths", nargs="*", type=Path, metavar="IMG", help="files or folders")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="the cache")
    parser.add_argument(
        "--method",
        default="percentile",
        choices=("min-max", "percentile", "mse", "entropy"),
        help="how ranges follow from what was seen (percentile)",
    )
    parser.add_argument("--samples", type=Path, metavar="FILE", help="instead of pictures")
    parser.add_argument(
        "--save-samples", type=Path, metavar="FILE", help="keep them; faces can be recognised"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.set_defaults(run=_later("calibrate", "calibrate_on_pictures"))


def _add_validate(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("validate", help="may an engine take the place of another?")
    engine = "an engine: fp32, int8 or FOLDER:int8"
    parser.add_argument("reference", metavar="FLOAT", help=engine)
    parser.add_argument("candidate", metavar="QUANT", help="the engine that is judged, likewise")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="labelled pictures (default: scenes that ship)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the faces only one found"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (all)")
    parser.add_argument(
        "--no-speed", dest="speed", action="store_false", help="leave out speed and memory"
    )
    parser.set_defaults(run=_later("validate", "validate_engines"))


def _add_detect_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which faces")
    group.add_argument(
        "--profile",
        help="accurate (default), fast (INT8), or privacy: finds more, errs more, covers more",
    )
    group.add_argument("--min-face", type=float, metavar="PX", help="smallest face, pixels (20)")
    group.add_argument("--scale-factor", type=float, metavar="F", help="pyramid step (0.709)")
    group.add_argument(
        "--thresholds",
        type=_thresholds,
        metavar="P,R,O",
        help="of the three networks (0.6,0.7,0.7)",
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it is done (default: in this process)")
    group.add_argument("--server", metavar="HOST:PORT", help="let a server do it")
    group.add_argument("--timeout", type=float, default=60.0, help="seconds for one call (60)")
    group.add_argument("--wait", type=float, metavar="S", help="wait so long for the server")
    group.add_argument("--token-file", metavar="FILE", help="token for it, read before each call")
    group.add_argument("--tls", action="store_true", help="TLS; trust whom the system trusts")
    group.add_argument("--tls-ca", metavar="FILE", help="TLS; trust this CA (PEM)")
    group.add_argument("--tls-certificate", metavar="FILE", help="mutual TLS: certificate (PEM)")
    group.add_argument("--tls-key", metavar="FILE", help="mutual TLS: its key (PEM)")
    group.add_argument("--threads", type=int, help="CPU threads, without a server")
    group.add_argument("--device", help="auto (default), cpu or gpu, without a server")
    group.add_argument(
        "--plans", metavar="DIR", help="TensorRT plans for the GPU, DIR:PRECISION, without a server"
    )
    group.add_argument("--precision", help="engines, without a server: fp32, int8, ...")
    group.add_argument("--engines", metavar="DIR", help="your own engines, without a server")
    group.add_argument(
        "--engine-key-file",
        dest="key_file",
        metavar="FILE",
        help="key of encrypted --engines or --plans; else the environment variable "
        "UNFACE_ENGINE_KEY",
    )
    group.add_argument(
        "--allow-uncertified",
        action="store_true",
        help="use engines that have not passed the gate: they may miss faces",
    )


def _color(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _box(text: str) -> tuple[float, ...]:
    corners = tuple(float(part) for part in text.split(","))
    if len(corners) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers: x1,y1,x2,y2")
    return corners


def _thresholds(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Return a command that imports what it needs when it is called, and nothing of the others."""

    def run(arguments: argparse.Namespace) -> int:
        result: int = getattr(import_module(f"unface.{module}"), function)(arguments)
        return result

    return run


if __name__ == "__main__":
    sys.exit(main())
