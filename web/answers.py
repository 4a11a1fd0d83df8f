"""Answers of `unface.v1` as JSON."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

from unface.v1 import unface_pb2 as pb
from unface.web.values import names_of

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
PIECE = 192 << 10  # bytes of a picture turned into base64 at once; a multiple of 3
FORMATS = {number: name for name, number in names_of(pb.OutputFormat.DESCRIPTOR).items()}


def to_detection(answer: pb.DetectResponse) -> dict[str, Any]:
    """Return the answer of Detect: boxes and points in pixels, to a thousandth."""
    return {
        "width": answer.width,
        "height": answer.height,
        "faces": to_faces(answer.faces),
        **_served(answer),
    }


def to_report(answer: pb.AnonymizeResponse) -> dict[str, Any]:
    """Return the answer of Anonymize but for the picture."""
    found = answer.verification if answer.HasField("verification") else None
    return {
        "width": answer.width,
        "height": answer.height,
        "faces": to_faces(answer.faces),
        **_served(answer),
        "format": FORMATS[answer.format],
        "kept": to_faces(answer.kept),
        "verification": found and to_verification(found),
        "audit": json.loads(answer.audit_record) if answer.audit_record else None,
    }


def to_verification(found: pb.Verification, *, has_points: bool = True) -> dict[str, Any]:
    """Return what the check of a covered picture found."""
    return {
        "clean": found.clean,
        "residual": to_faces(found.residual, has_points=has_points),
        "rounds": found.rounds,
        "covered": to_faces(found.covered, has_points=has_points),
    }


def to_faces(faces: Sequence[pb.Face], *, has_points: bool = True) -> list[dict[str, Any]]:
    """Return faces, in their order, with their landmarks unless told otherwise."""
    return [
        {
            "box": _rounded(face.box.x1, face.box.y1, face.box.x2, face.box.y2),
            "score": round(face.score, 6),
            **({"landmarks": _landmarks(face)} if has_points else {}),
        }
        for face in faces
    ]


def to_info(info: pb.GetServerInfoResponse) -> dict[str, Any]:
    """Return what serves, and within which limits."""
    return {
        "version": info.version,
        "backend": info.backend,
        "precision": info.precision,
        "threads": info.threads,
        "device": info.device,
        "device_reason": info.device_reason,
        "audit_signed": info.audit_signed,
        "formats": list(info.formats),
        "limits": {"max_bytes": info.limits.max_bytes, "max_pixels": info.limits.max_pixels},
        "profiles": [
            {"name": profile.name, "precision": profile.precision, **_options(profile.options)}
            for profile in info.profiles
        ],
        "engines": [
            {"name": engine.name, "precision": engine.precision, "sha256": engine.sha256}
            for engine in info.engines
        ],
    }


def to_json(value: Any) -> bytes:
    """Return JSON in UTF-8, in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def with_image(report: dict[str, Any], image: bytes) -> tuple[int, Iterator[bytes]]:
    """Return the JSON of a report with a picture in base64: its length, and it in small pieces.

    Each piece takes well under a millisecond, so that nobody waits for a large picture.
    """
    before, after = to_json(report)[:-1] + b',"image":"', b'"}'
    length = len(before) + 4 * ((len(image) + 2) // 3) + len(after)

    def pieces() -> Iterator[bytes]:
        yield before
        for start in range(0, len(image), PIECE):
            yield b64encode(image[start : start + PIECE])
        yield after

    return length, pieces()


def _landmarks(face: pb.Face) -> dict[str, Any]:
    points = {name: getattr(face.landmarks, name) for name in POINTS}
    return {name: _rounded(point.x, point.y) for name, point in points.items()}


def _served(answer: pb.DetectResponse | pb.AnonymizeResponse) -> dict[str, Any]:
    return {
        "backend": answer.backend,
        "precision": answer.precision,
        "profile": answer.profile,
        "request_id": answer.request_id,
        "timings_ms": {
            field.name.removesuffix("_ms"): round(getattr(answer.timings, field.name), 3)
            for field in answer.timings.DESCRIPTOR.fields
        },
    }


def _options(options: pb.DetectOptions) -> dict[str, Any]:
    return {
        "min_face": options.min_face,
        "scale_factor": options.scale_factor,
        "thresholds": [options.pnet_threshold, options.rnet_threshold, options.onet_threshold],
    }


def _rounded(*values: float) -> list[float]:
    return [round(value, 3) for value in values]
