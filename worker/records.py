"""From an anonymized picture to its audit record: for the worker and for this process alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from unface.anonymize import MaskOptions, Regions
from unface.audit import AuditError, Buffer, Found, SigningKey, record_of, sealed
from unface.engines.provenance import Provenance
from unface.mtcnn.faces import Face, Faces
from unface.mtcnn.options import DetectOptions
from unface.worker.covering import Verification

Served = tuple[str, str]  # backend and precision, as an answer names them


def audit_record(
    input: Buffer,
    output: Buffer,
    format: str,
    *,
    profile: str,
    options: DetectOptions,
    masks: MaskOptions,
    regions: Regions,
    faces: Faces,
    kept: Faces,
    verification: Verification | None,
    searched: Served | None,
    provenance: Callable[[str, str], Provenance],
    key: SigningKey | None,
    request_id: str = "",
) -> str:
    """Return the audit record of a picture as JSON, signed if there is a key.

    `input` and `output` are as they came and as they go: files, or raw pixels (`format` "raw").
    `faces` were covered and `kept` left clear; `searched` is what searched the result for
    `verification`, None where nothing did. `provenance` is that of
    `unface.engines.cascades.Cascades`; its `EngineError` is passed on: there is no record that
    leaves out what served. Raises `unface.audit.AuditError` for what no record holds.
    """
    if (verification is None) != (searched is None):
        raise AuditError("a search of the result and who searched it belong together")
    detected = None if regions.cover_only else (faces.backend, faces.precision)
    served = list(dict.fromkeys(filter(None, (detected, searched))))
    sources = [provenance(*pair) for pair in served]
    backend, precision = served[0] if served else ("", "")
    # None where only some engines have one: what is listed must hold for all.
    certified = all(source.certificates for source in sources)
    certificates = [id for source in sources for id in source.certificates if certified]
    record = record_of(
        input=input,
        output=output,
        format=format,
        width=faces.width,
        height=faces.height,
        detection=None if detected is None else {"profile": profile, **vars(options)},
        mask=vars(masks),
        faces=_pairs(faces),
        kept=_pairs(kept),
        keep=regions.keep,
        cover=regions.cover,
        verification=None if verification is None else _said(verification),
        backend=backend,
        precision=precision,
        engines=[vars(engine) for source in sources for engine in source.engines],
        certificates=dict.fromkeys(certificates),
        request_id=request_id,
    )
    return sealed(record, key)


def _said(verification: Verification) -> dict[str, Any]:
    return {
        "clean": verification.clean,
        "rounds": verification.rounds,
        "residual": _pairs(verification.residual),
        "covered": _pairs(verification.covered),
    }


def _pairs(faces: Iterable[Face]) -> list[Found]:
    return [(face.box, face.score) for face in faces]
