"""The OpenAPI document's words: operations, examples that can be copied, schemas (OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unface.web.answers import POINTS
from unface.web.options import ANONYMIZE, BATCH, DETECT, MAX_TEXT, OPTIONS, Option, options_of
from unface.web.outcomes import MAX_NAME
from unface.web.problems import PROBLEM, TITLES

HERE = "http://127.0.0.1:8080"  # of the examples
DESCRIPTION = (
    "Finds faces in pictures and covers them, on the machine that serves this page. Pictures are "
    "neither kept nor logged. Boxes and points are in pixels of the upright picture: EXIF "
    "orientation has been applied. A server with tokens wants `Authorization: Bearer TOKEN`."
)
_NUMBER, _WHOLE, _TEXT, _TRUTH = ({"type": t} for t in ("number", "integer", "string", "boolean"))


def _object(properties: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def _list(items: Mapping[str, Any], count: int | None = None) -> dict[str, Any]:
    counted = {} if count is None else {"minItems": count, "maxItems": count}
    return {"type": "array", "items": dict(items), **counted}


def _ref(name: str, kind: str = "schemas") -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def _verification(faces: Mapping[str, Any]) -> dict[str, Any]:
    return _object({"clean": _TRUTH, "residual": faces, "rounds": _WHOLE, "covered": faces})


_SCORED = {"box": {**_list(_NUMBER, 4), "description": "x1, y1, x2, y2"}, "score": _NUMBER}
_FACES = _list(_ref("Face"))
_FOUND = {
    "width": _WHOLE,
    "height": _WHOLE,
    "faces": _FACES,
    "backend": _TEXT,
    "precision": _TEXT,
    "profile": _TEXT,
    "request_id": _TEXT,
    "timings_ms": {"type": "object", "additionalProperties": _NUMBER},
}
_REPORT = {
    **_FOUND,
    "format": {"type": "string", "enum": ["jpeg", "png", "webp"]},
    "kept": _FACES,
    "verification": _or_null(_ref("Verification")),
    "audit": _or_null({"type": "object"}),
}
SCHEMAS: Mapping[str, Any] = {
    "Face": _object(
        {**_SCORED, "landmarks": _object({name: _list(_NUMBER, 2) for name in POINTS})}
    ),
    "Detection": _object(_FOUND),
    "Report": _object(_REPORT),
    "Anonymized": _object({**_REPORT, "image": {**_TEXT, "contentEncoding": "base64"}}),
    "Verification": _verification(_FACES),
    "Files": _object(
        {
            "files": _list(
                _object(
                    {
                        "name": {
                            **_TEXT,
                            "description": f"as sent; the last {MAX_NAME} of it",
                        },
                        "stored": {**_or_null(_TEXT), "description": "in the ZIP"},
                        "faces": _WHOLE,
                        "kept": _WHOLE,
                        "verification": _or_null(_verification(_list(_object(_SCORED)))),
                        "error": _or_null(_ref("Problem")),
                    }
                )
            ),
            "left_out": {**_WHOLE, "description": "files that found no room in the report"},
        }
    ),
    "Archive": _object({"id": _TEXT}),
    "Info": _object(
        {
            "version": _TEXT,
            "backend": _TEXT,
            "precision": _TEXT,
            "threads": _WHOLE,
            "device": _TEXT,
            "device_reason": _TEXT,
            "audit_signed": _TRUTH,
            "formats": _list(_TEXT),
            "limits": _object({"max_bytes": _WHOLE, "max_pixels": _WHOLE}),
            "profiles": _list(
                _object(
                    {
                        "name": _TEXT,
                        "precision": _TEXT,
                        "min_face": _NUMBER,
                        "scale_factor": _NUMBER,
                        "thresholds": _list(_NUMBER, 3),
                    }
                )
            ),
            "engines": _list(_object({"name": _TEXT, "precision": _TEXT, "sha256": _TEXT})),
        }
    ),
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _TEXT,
            "status": _WHOLE,
            "detail": _TEXT,
            "reason": {"type": "string", "enum": [*TITLES]},
            "request_id": _TEXT,
            "retry_ms": _WHOLE,
        },
        "retry_ms",
    ),
}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def _body(call: str, files: Mapping[str, Any], *, is_file: bool = True) -> dict[str, Any]:
    """Return what a call takes: a form, and a file by itself."""
    fields = {option.name: _described(option) for option in options_of(call)}
    schema = {"type": "object", "properties": {**fields, "image": files}, "required": ["image"]}
    content: dict[str, Any] = {"multipart/form-data": {"schema": schema}}
    if is_file:
        content |= {"image/*": {}, "application/octet-stream": {}}
    return {"required": True, "content": content}


def _described(option: Option) -> dict[str, Any]:
    return {**option.schema, "description": option.help, "examples": [option.example]}


def _parameters(call: str) -> list[dict[str, Any]]:
    return [_ref(option.name, "parameters") for option in options_of(call)]


def _samples(*sources: str) -> dict[str, Any]:
    return {"x-codeSamples": [{"lang": "Shell", "source": source} for source in sources]}


_PICTURE = {"type": "string", "contentMediaType": "application/octet-stream"}
_ID = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
_NAME = {
    "name": "name",
    "in": "query",
    "description": "The file's name; no path of it is kept.",
    "schema": {**_TEXT, "maxLength": MAX_TEXT},
}
_ZIP = {"application/zip": {"schema": _PICTURE}}
_COVERED = {
    "200": {
        "description": "The covered picture, or JSON with `answer`",
        "headers": {
            name: {"schema": schema, "description": description}
            for name, schema, description in (
                ("unface-faces", _WHOLE, "faces that were covered"),
                ("unface-kept", _WHOLE, "faces left clear because of `keep`"),
                ("unface-residual", _WHOLE, "faces that are left; with `verify` alone"),
                ("unface-backend", _TEXT, "what found them"),
            )
        },
        "content": {
            "image/*": {"schema": _PICTURE},
            "application/json": {"schema": {"anyOf": [_ref("Anonymized"), _ref("Report")]}},
        },
    }
}
_FILES = {"type": "array", "items": _PICTURE}
# By method and path: what FastAPI is told of each route.
OPERATIONS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("GET", "/v1/info"): {
        "summary": "What serves, and within which limits",
        "responses": {"200": _json("What serves", "Info")},
        **_samples(f"curl {HERE}/v1/info"),
    },
    ("POST", "/v1/detect"): {
        "summary": "Find the faces of a picture",
        "description": "Send the file itself, with options in the query; or a form, with options "
        "as fields. Best score first.",
        "parameters": _parameters(DETECT),
        "requestBody": _body(DETECT, _PICTURE),
        "responses": {"200": _json("The faces", "Detection")},
        **_samples(
            f"curl {HERE}/v1/detect -F image=@photo.jpg",
            f"curl {HERE}/v1/detect -F profile=privacy -F image=@photo.jpg",
            f'curl "{HERE}/v1/detect?min_face=40" -X POST -T photo.jpg',
        ),
    },
    ("POST", "/v1/anonymize"): {
        "summary": "Cover the faces of a picture",
        "description": "Answers with the picture, or as `answer` says; `Accept: application/json` "
        "is `answer=json`.",
        "parameters": _parameters(ANONYMIZE),
        "requestBody": _body(ANONYMIZE, _PICTURE),
        "responses": _COVERED,
        **_samples(
            f"curl {HERE}/v1/anonymize -F image=@photo.jpg -o covered.jpg",
            f"curl {HERE}/v1/anonymize -F method=solid -F color=255,204,0 -F margin=0.3 "
            "-F image=@photo.jpg -o covered.jpg",
            f"curl {HERE}/v1/anonymize -F verify=true -F audit=true -F answer=report "
            "-F image=@photo.jpg",
            f"curl {HERE}/v1/anonymize -F 'keep=[[176,60,265,171]]' -F image=@photo.jpg "
            "-o kept.jpg",
        ),
    },
    ("POST", "/v1/batch"): {
        "summary": "Cover the faces of many pictures",
        "description": "A form with several files `image`; options come before the first of them. "
        "Answers with a ZIP, sent once all files have come. `unface-report.json` in it says what "
        "became of each; a file with an error is not in the ZIP.",
        "parameters": _parameters(BATCH),
        "requestBody": _body(BATCH, _FILES, is_file=False),
        "responses": {"200": {"description": "A ZIP archive", "content": _ZIP}},
        **_samples(
            f"curl {HERE}/v1/batch -F verify=true -F image=@photo.jpg -F image=@other.png "
            "-o covered.zip"
        ),
    },
    ("POST", "/v1/archives"): {
        "summary": "Open a ZIP that is downloaded while files come in",
        "description": "Any number of pictures in little memory. It ends after a minute in which "
        "nothing happens, and is then no whole ZIP.",
        "responses": {"201": _json("Its id, which nobody can guess", "Archive")},
        **_samples(
            f"id=$(curl -s -X POST {HERE}/v1/archives | cut -d '\"' -f 4)\n"
            f"curl -s {HERE}/v1/archives/$id -o covered.zip &\n"
            f'curl "{HERE}/v1/archives/$id/files?name=photo.jpg" -X POST -T photo.jpg\n'
            f"curl -X POST {HERE}/v1/archives/$id/close\n"
            "wait"
        ),
    },
    ("GET", "/v1/archives/{id}"): {
        "summary": "Download an archive, once",
        "description": "Needs no token: who knows the id may download it.",
        "parameters": [_ID],
        "responses": {"200": {"description": "A ZIP archive", "content": _ZIP}},
    },
    ("DELETE", "/v1/archives/{id}"): {
        "summary": "Give an archive up",
        "description": "Its download breaks off, and what has come of it is no whole ZIP.",
        "parameters": [_ID],
        "responses": {"204": {"description": "It has ended"}},
    },
    ("POST", "/v1/archives/{id}/files"): {
        "summary": "Cover a picture and put it into an archive",
        "description": "Answers once the picture is on its way to whoever downloads.",
        "parameters": [_ID, _NAME, *_parameters(BATCH)],
        "requestBody": _body(BATCH, _PICTURE),
        "responses": {"200": _json("What was covered", "Report")},
    },
    ("POST", "/v1/archives/{id}/close"): {
        "summary": "End an archive with its report",
        "parameters": [_ID],
        "responses": {"200": _json("What became of each file", "Files")},
    },
}


def completed(document: dict[str, Any], problems: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Return FastAPI's document with what all operations share.

    `problems` are reasons and their statuses.
    """
    answer = {"description": "Problem details (RFC 9457)", "content": {PROBLEM: {}}}
    answer["content"] = {PROBLEM: {"schema": _ref("Problem")}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"]["default"] = _ref("Problem", "responses")
    return {
        **document,
        "info": {**document["info"], "description": DESCRIPTION},
        "components": {
            "schemas": dict(SCHEMAS),
            "responses": {"Problem": answer},
            "parameters": {option.name: _parameter(option) for option in OPTIONS.values()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
        "x-problems": [
            {"reason": reason, "status": status, "title": TITLES[reason]}
            for reason, status in problems
            if reason in TITLES
        ],
    }


def _parameter(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "in": "query",
        "description": option.help,
        "schema": dict(option.schema),
        "example": option.example,
    }
