"""`unface detect` and `unface anonymize` over many pictures: go on after a bad one, and say so."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tqdm import tqdm

from unface.arguments import REGION_ARGUMENTS, Anonymized, DetectArguments
from unface.errors import InvalidImage, InvalidOption, ServerError, UnfaceError
from unface.folders import (
    Found,
    check_target,
    find_pictures,
    named_format,
    output_path,
    write_whole,
)
from unface.mtcnn.faces import LANDMARK_NAMES, Face, Faces

if TYPE_CHECKING:
    from unface.client import Client
    from unface.local import Local

MASK_AND_OUTPUT = (
    *("method", "shape", "margin", "cells", "kernel", "color"),
    *("format", "quality", "keep_exif"),
    *REGION_ARGUMENTS,
    *("verify", "audit"),
)

MOST_AT_ONCE = 8  # pictures, beside a GPU: by then it is what the others wait for
AHEAD = 2  # pictures a thread, so that none is idle while an earlier picture takes its time
ENGINE_CHOICES = (
    *("threads", "device", "plans", "precision", "engines", "key_file", "allow_uncertified"),
)


class Outcome(NamedTuple):
    """What became of a picture."""

    faces: Faces  # found, or covered
    covered: Anonymized[bytes] | None = None
    to_keep: int = 0  # boxes that were to leave a face clear

    @property
    def residual(self) -> Sequence[Face]:
        """Faces that a search of the result found."""
        verification = self.covered.verification if self.covered else None
        return verification.residual if verification else ()


class Job(NamedTuple):
    """A picture, and where its result belongs."""

    found: Found
    target: Path


def detect_pictures(arguments: argparse.Namespace) -> int:
    """Print the faces of every picture; returns the exit code."""
    options = _said(arguments, DetectArguments.__annotations__)
    pictures = list(find_pictures(arguments.paths))

    def work(finder: Client | Local, job: Job) -> Outcome:
        return Outcome(finder.detect(job.found.path, **options))

    return _each(arguments, [Job(found, found.path) for found in pictures], work)


def anonymize_pictures(arguments: argparse.Namespace) -> int:
    """Write every picture without its faces; returns the exit code."""
    options = _said(arguments, (*DetectArguments.__annotations__, *MASK_AND_OUTPUT))
    if arguments.verify_rounds is not None:
        options["verify"] = arguments.verify_rounds
    if options.get("cover_only") and not options.get("cover"):
        raise InvalidOption("--cover-only covers nothing without --cover")
    out: Path | None = arguments.out
    if options.get("format") and out is None:
        raise InvalidOption("--format needs -o: a picture overwritten in place keeps its format")
    if arguments.audit_key and not arguments.audit:
        raise InvalidOption("--audit-key signs audit records; add --audit")
    pictures = list(find_pictures(arguments.paths, skip=out))
    single = len(arguments.paths) == 1 and not arguments.paths[0].is_dir()
    if not single and out is not None and out.exists() and not out.is_dir():
        raise InvalidOption(f"{out} is a file; several pictures need a folder")
    named = named_format(out) if single and out is not None else None
    if named and options.setdefault("format", named) != named:
        raise InvalidOption(f"{out} is no name for {options['format']}; it says {named}")
    written: dict[Path, Path] = {}

    def job(found: Found) -> Job:
        if out is None:
            return Job(found, found.path.resolve())  # a link's picture and not the link
        return Job(found, output_path(found, out, single, options.get("format")))

    def work(finder: Client | Local, job: Job) -> Outcome:
        found, target = job
        if out is not None and target in written:
            raise InvalidImage(f"{target} is already the result of {written[target]}")
        force, in_place = arguments.force, arguments.in_place
        check_target(target, found.path, force=force, in_place=in_place)
        record = audit_path(target)
        if options.get("audit"):
            check_target(record, found.path, force=arguments.force, in_place=False)
        result = finder.anonymize_with_faces(found.path, **options)
        write_whole(result.image, target)
        if options.get("audit"):
            write_whole(result.audit_record.encode(), record)
        written[target] = found.path
        to_keep = 0 if options.get("cover_only") else len(options.get("keep", ()))
        return Outcome(result.faces, result, to_keep)

    return _each(arguments, [job(found) for found in pictures], work, verb="anonymized")


def audit_path(target: Path) -> Path:
    """Return where the audit record of a picture belongs."""
    return target.with_name(target.name + ".audit.json")


def outcome_to_json(image: str, outcome: Outcome) -> str:
    """Return what became of one picture as a line of JSON, in pixels of the upright picture."""
    faces, covered = outcome.faces, outcome.covered
    record: dict[str, Any] = {
        "image": image,
        "width": faces.width,
        "height": faces.height,
        "faces": list(map(_face_to_json, faces)),
        "backend": faces.backend,
        "precision": faces.precision,
    }
    if covered and len(covered.kept):
        record["kept"] = list(map(_face_to_json, covered.kept))
    if covered and covered.verification:
        residual, rounds, more = covered.verification
        record["verification"] = {
            "clean": not residual,
            "residual": list(map(_face_to_json, residual)),
            "rounds": rounds,
            "covered": list(map(_face_to_json, more)),
        }
    return json.dumps(record, ensure_ascii=False)


def _face_to_json(face: Face) -> dict[str, Any]:
    return {
        "box": [round(edge, 2) for edge in face.box],
        "score": round(face.score, 5),
        "landmarks": {
            name: [round(float(x), 2), round(float(y), 2)]
            for name, (x, y) in zip(LANDMARK_NAMES, face.landmarks, strict=True)
        },
    }


def _each(
    arguments: argparse.Namespace,
    pictures: list[Job],
    work: Callable[[Client | Local, Job], Outcome],
    verb: str = "searched",
) -> int:
    """Do `work` on every picture, report each and the whole; returns the exit code."""
    faces_found, failed, unclean = 0, 0, 0
    with (
        open_finder(arguments) as finder,
        _progress(len(pictures)) as progress,
        closing(_answers(pictures, partial(work, finder), _at_once(arguments, finder))) as answers,
    ):
        for found, answer in answers:
            try:
                outcome = answer()
            except InvalidOption:
                raise  # the same for every picture
            except UnfaceError as error:
                failed += 1
                _report_failure(found, error, arguments.json)
                if isinstance(error, ServerError):
                    raise  # and so is this
            else:
                faces_found += len(outcome.faces)
                unclean += bool(outcome.residual)
                _report(found, outcome, arguments.json)
            progress.update()
    done = len(pictures) - failed
    print(
        f"{done} of {len(pictures)} picture{'s' if len(pictures) != 1 else ''} {verb}, "
        f"{faces_found} face{'s' if faces_found != 1 else ''}"
        + (f", {failed} FAILED" if failed else "")
        + (f", faces LEFT in {unclean}" if unclean else ""),
        file=sys.stderr,
    )
    return 1 if failed or unclean or not pictures else 0


def _at_once(arguments: argparse.Namespace, finder: Client | Local) -> int:
    """Return how many pictures to have under way: the CPU's engines use all cores for one."""
    if arguments.server is not None or not cast("Local", finder).detector.device:
        return 1
    from unface.mtcnn.team import cores

    return min(arguments.threads or cores(), MOST_AT_ONCE)


def _answers(
    jobs: list[Job], work: Callable[[Job], Outcome], threads: int
) -> Generator[tuple[Found, Callable[[], Outcome]]]:
    """Yield every picture, in order, and what returns its outcome or raises."""
    if threads == 1:
        for job in jobs:
            yield job.found, partial(work, job)
        return
    under_way: deque[tuple[Job, Future[Outcome]]] = deque()
    with ThreadPoolExecutor(threads, "unface-picture") as pool:
        try:
            for job in jobs:
                # Of two with one target the second begins when the first is done and reported.
                while len(under_way) >= AHEAD * threads or job.target in (
                    other.target for other, _ in under_way
                ):
                    done, faces = under_way.popleft()
                    yield done.found, faces.result
                under_way.append((job, pool.submit(work, job)))
            while under_way:
                done, faces = under_way.popleft()
                yield done.found, faces.result
        finally:
            for _, faces in under_way:
                faces.cancel()


@contextmanager
def open_finder(arguments: argparse.Namespace) -> Iterator[Client | Local]:
    """Open what does the work: a server's client, or the engines in this process."""
    if arguments.server is not None:
        if any(getattr(arguments, name) for name in ENGINE_CHOICES):
            raise InvalidOption(
                "--threads, --device, --plans, --precision, --engines, --engine-key-file and "
                "--allow-uncertified are the server's to choose: `unface serve`"
            )
        if getattr(arguments, "audit_key", None):
            raise InvalidOption("a server signs with its own key: `unface serve --audit-key-file`")
        from unface.client import Client
        from unface.connection import connection_choices

        choices = connection_choices(arguments)
        with Client(arguments.server, timeout=arguments.timeout, **choices) as client:
            if arguments.wait is not None:
                client.wait_until_serving(arguments.wait)
            yield client
        return
    from unface.anonymize.threads import limit_threads
    from unface.audit import read_signing_key
    from unface.detector import Detector
    from unface.local import Local
    from unface.worker.memory import give_large_buffers_back

    if arguments.threads is not None:
        limit_threads(arguments.threads)
    give_large_buffers_back()  # a folder of 1080p JPEGs takes a tenth less time
    key_file = getattr(arguments, "audit_key", None)
    key = read_signing_key(key_file) if key_file else None
    local = Local(Detector(**engine_choices(arguments)), audit_key=key)
    try:
        yield local
    finally:
        local.close()


def engine_choices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a `Detector` that the command line says."""
    return _said(arguments, ENGINE_CHOICES)


def _said(arguments: argparse.Namespace, names: Any) -> dict[str, Any]:
    """Return those of the options that were given on the command line."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _progress(total: int) -> Any:
    """Return a progress bar for several pictures, drawn only when a person watches."""
    return tqdm(total=total, unit="picture", leave=False, disable=None if total > 1 else True)


def _report(found: Found, outcome: Outcome, as_json: bool) -> None:
    faces, covered = outcome.faces, outcome.covered
    if as_json:
        tqdm.write(outcome_to_json(str(found.path), outcome), file=sys.stdout)
    else:
        count = f"{len(faces)} face{'s' if len(faces) != 1 else ''}"
        searched = covered and covered.verification and not covered.verification.residual
        lines = [
            f"{found.path}  {faces.width} x {faces.height}  {count}"
            + ("  result searched: no face" if searched else "")
        ]
        lines += map(_describe, faces)
        if covered:
            lines += [f"{_describe(face)}  left clear" for face in covered.kept]
        if covered and covered.verification:
            lines += [
                f"{_describe(face)}  found in the result and covered"
                for face in covered.verification.covered
            ]
        tqdm.write("\n".join(lines), file=sys.stdout)
    if covered and len(covered.kept) < outcome.to_keep:
        missed = outcome.to_keep - len(covered.kept)
        tqdm.write(f"{found.path}: {missed} of --keep met no face", file=sys.stderr)
    for face in outcome.residual:
        tqdm.write(f"{found.path}: a face may be LEFT:{_describe(face)}", file=sys.stderr)


def _describe(face: Face) -> str:
    x1, y1, x2, y2 = (round(edge) for edge in face.box)
    return f"  {x2 - x1} x {y2 - y1} at {x1}, {y1}  score {face.score:.3f}"


def _report_failure(found: Found, error: UnfaceError, as_json: bool) -> None:
    if as_json:
        record = {"image": str(found.path), "error": str(error)}
        tqdm.write(json.dumps(record, ensure_ascii=False), file=sys.stdout)
    tqdm.write(f"{found.path}: {error}", file=sys.stderr)
