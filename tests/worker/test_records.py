"""What an audit record says is what was done: to the picture, by which engines."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scenes import astronaut

from unface.anonymize import MaskOptions, Regions, Verify, encode
from unface.audit import AuditError, verify
from unface.engines.cascades import Cascades
from unface.engines.provenance import Provenance
from unface.engines.shelf import Engine, read_shelf
from unface.errors import EngineError
from unface.mtcnn.faces import Face, Faces
from unface.mtcnn.options import DetectOptions, profile_options
from unface.worker.covering import Verification, Verifier, cover_faces, no_faces
from unface.worker.records import audit_record

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def source(precision: str, *certificates: str) -> Provenance:
    engine = Engine("pnet", precision, "pnet.npz", sha256(precision.encode()).hexdigest())
    return Provenance((engine,), tuple(sha256(c.encode()).hexdigest() for c in certificates))


SOURCES = {
    ("native", "int8"): source("int8", "of int8"),
    ("native", "fp32"): source("fp32", "of fp32"),
    ("native", "mixed"): source("mixed"),
    ("cuda", "fp16"): source("fp16", "of fp32", "of fp16"),
}


def provenance(backend: str, precision: str) -> Provenance:
    if (backend, precision) not in SOURCES:
        raise EngineError("have not served here")
    return SOURCES[backend, precision]


def faces_at(*boxes: tuple[float, ...], backend: str = "native", precision: str = "int8") -> Faces:
    count = len(boxes)
    return Faces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.8, count, dtype=np.float32),
        np.zeros((count, 5, 2), np.float32),
        640,
        480,
        backend,
        precision,
    )


def told(**changes: Any) -> dict[str, Any]:
    """Return the record of a picture, having checked its signature."""
    arguments: dict[str, Any] = {
        "input": b"before",
        "output": b"after",
        "format": "jpeg",
        "profile": "fast",
        "options": profile_options("fast"),
        "masks": MaskOptions(),
        "regions": Regions(),
        "faces": faces_at((1, 2, 3, 4)),
        "kept": faces_at(),
        "verification": None,
        "searched": None,
        "provenance": provenance,
        "key": KEY,
        **changes,
    }
    text = audit_record(**arguments)
    found = verify(text.encode(), KEY.public_key().public_bytes_raw())
    assert found.record == json.loads(text)["record"]
    return found.record


def engines(record: dict[str, Any]) -> list[str]:
    return [engine["precision"] for engine in record["engines"]]


def test_faces_places_and_masks_are_told() -> None:
    record = told(
        faces=faces_at((1, 2, 3, 4), (5, 6, 7.126, 8)),
        kept=faces_at((10, 10, 20, 20)),
        regions=Regions(keep=[(10, 10, 20, 21)], cover=[(-5, 0, 9.5, 30)]),
        masks=MaskOptions("solid", color=(1, 2, 3)),
        request_id="camera-7",
    )
    assert record["faces"] == [
        {"box": [1, 2, 3, 4], "score": 0.9},
        {"box": [5, 6, 7.13, 8], "score": 0.8},
    ]
    assert record["kept"] == [{"box": [10, 10, 20, 20], "score": 0.9}]
    assert record["cover"] == [[-5, 0, 9.5, 30]]
    assert record["mask"] == {
        "method": "solid",
        "shape": "ellipse",
        "margin": 0.1,
        "color": [1, 2, 3],
    }
    assert record["request_id"] == "camera-7"
    assert (record["output"]["width"], record["output"]["height"]) == (640, 480)


def test_the_search_is_told_as_it_was() -> None:
    options = DetectOptions(33, 0.8, (0.1, 0.2, 0.3), "int8")
    assert told(options=options)["detection"] == {
        "profile": "fast",
        "min_face": 33,
        "scale_factor": 0.8,
        "thresholds": [0.1, 0.2, 0.3],
        "precision": "int8",
    }
    assert told(options=DetectOptions(), profile="accurate")["detection"]["precision"] is None


def test_the_engines_are_those_that_served() -> None:
    record = told()
    assert (record["backend"], record["precision"]) == ("native", "int8")
    assert record["engines"] == [
        {"network": "pnet", "precision": "int8", "sha256": sha256(b"int8").hexdigest()}
    ]
    assert record["certificates"] == [sha256(b"of int8").hexdigest()]
    record = told(faces=faces_at(backend="cuda", precision="fp16"))
    assert (record["backend"], engines(record)) == ("cuda", ["fp16"])
    assert len(record["certificates"]) == 2


def test_a_search_of_the_result_adds_its_engines_and_no_certificate_twice() -> None:
    (face,) = faces_at((1, 2, 3, 4))
    checked = Verification((face,), 1, (face, face))
    record = told(verification=checked, searched=("native", "fp32"))
    assert (record["backend"], record["precision"]) == ("native", "int8")
    assert engines(record) == ["int8", "fp32"]
    assert len(record["certificates"]) == 2
    found = {"box": [1, 2, 3, 4], "score": 0.9}
    assert record["verification"] == {
        "clean": False,
        "residual": [found],
        "rounds": 1,
        "covered": [found, found],
    }
    gpu = faces_at(backend="cuda", precision="fp16")
    record = told(faces=gpu, verification=checked, searched=("native", "fp32"))
    assert [sha256(c).hexdigest() for c in (b"of fp32", b"of fp16")] == record["certificates"]
    assert engines(told(verification=checked, searched=("native", "int8"))) == ["int8"]


def test_engines_without_a_certificate_do_not_hide_behind_those_that_have_one() -> None:
    checked = Verification((), 0, ())
    for detected, searched in (("mixed", "fp32"), ("fp32", "mixed")):
        record = told(
            faces=faces_at(precision=detected), verification=checked, searched=("native", searched)
        )
        assert engines(record) == [detected, searched]
        assert record["certificates"] == []


def test_where_only_places_were_covered_no_engine_is_named() -> None:
    nothing = no_faces(640, 480, "native", "fp32")
    regions = Regions(cover=[(0, 0, 9, 9)], cover_only=True)
    record = told(faces=nothing, regions=regions)
    assert record["detection"] is None
    assert (record["backend"], record["engines"], record["certificates"]) == ("", [], [])
    checked = Verification((), 0, ())
    record = told(faces=nothing, regions=regions, verification=checked, searched=("native", "int8"))
    assert record["detection"] is None
    assert (record["backend"], record["precision"], engines(record)) == ("native", "int8", ["int8"])
    assert record["verification"]["clean"] is True


def test_there_is_no_record_that_leaves_out_what_served() -> None:
    with pytest.raises(EngineError, match="not served"):
        told(faces=faces_at(backend="tflite", precision="fp32"))
    with pytest.raises(EngineError, match="not served"):
        told(verification=Verification((), 0, ()), searched=("tflite", "fp32"))
    with pytest.raises(AuditError, match="belong together"):
        told(verification=Verification((), 0, ()), searched=None)
    with pytest.raises(AuditError, match="belong together"):
        told(searched=("native", "fp32"))


def test_without_a_key_a_record_is_not_signed() -> None:
    arguments = {"profile": "fast", "options": DetectOptions(), "masks": MaskOptions()}
    text = audit_record(
        b"before",
        b"after",
        "png",
        **arguments,  # type: ignore[arg-type]
        regions=Regions(),
        faces=faces_at(),
        kept=faces_at(),
        verification=None,
        searched=None,
        provenance=provenance,
        key=None,
    )
    assert json.loads(text)["signature"] is None
    assert verify(text.encode()).signer is None


def test_a_picture_that_was_really_anonymized_has_a_record_that_holds(backend: str) -> None:
    cascades = Cascades("fp32", threads=1)
    pixels = np.ascontiguousarray(astronaut()[:260:2, 60:340:2])
    options = profile_options("fast")
    faces = cascades.detect(pixels, options)
    covered = cover_faces(pixels, faces, MaskOptions(), Regions(), in_place=False)
    verifier = Verifier(Verify(0), options, MaskOptions(), Regions(), covered.kept)
    found = cascades.detect(covered.pixels, verifier.options)
    verifier.judge(found)
    data = encode(covered.pixels, "png")
    record = told(
        input=memoryview(pixels),
        output=data,
        format="png",
        faces=covered.faces,
        kept=covered.kept,
        verification=verifier.verification,
        searched=(found.backend, found.precision),
        provenance=cascades.provenance,
    )
    cascades.close()
    assert record["input"] == {"sha256": sha256(pixels.tobytes()).hexdigest(), "bytes": pixels.size}
    assert record["output"]["sha256"] == sha256(data).hexdigest()
    (face,) = record["faces"]
    assert isinstance(faces[0], Face)
    assert face["box"] == pytest.approx(faces[0].box, abs=0.005)
    served = {e.sha256 for p in ("int8", "fp32") for e in read_shelf().of(p, backend).values()}
    assert {engine["sha256"] for engine in record["engines"]} == served
    assert len(record["certificates"]) == 2
