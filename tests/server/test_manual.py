"""The OpenAPI document, the page made of it, and docs/rest.md: what they say is so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from PIL import Image
from rest_calls import ask, post
from serving import ServerProcess

from unface.server.status import CODES, INTERNAL_REASON
from unface.web.docs_page import docs_page
from unface.web.manual import HERE, OPERATIONS, SCHEMAS
from unface.web.options import OPTIONS
from unface.web.problems import TITLES

MANUAL = (Path(__file__).parents[2] / "docs" / "rest.md").read_text()
NEVER_OVER_HTTP = {"NotKept", "NotStored", "NotReloaded"}


@pytest.fixture(scope="module")
def document(door: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = ask(door.http, "GET", "/v1/openapi.json").json
    return found


@pytest.fixture
def folder(tmp_path: Path, photo: bytes) -> Path:
    (tmp_path / "photo.jpg").write_bytes(photo)
    Image.open(BytesIO(photo)).save(tmp_path / "other.png")
    return tmp_path


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (verb.upper(), path): operation
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    }


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPI.model_validate(document)
    for node in nodes(document):
        if isinstance(reference := node.get("$ref"), str):
            found: Any = document
            for key in reference.removeprefix("#/").split("/"):
                found = found[key]
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)


def test_it_has_every_operation_and_every_option(document: dict[str, Any]) -> None:
    assert operations(document).keys() == OPERATIONS.keys()
    assert document["components"]["parameters"].keys() == OPTIONS.keys()
    for (_, path), operation in operations(document).items():
        assert operation["summary"]
        declared = {p["name"] for p in operation.get("parameters", ()) if p.get("in") == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert set(operation["responses"]) & {"200", "201", "204"}


def test_every_error_is_explained(document: dict[str, Any]) -> None:
    raised = {kind.__name__ for kind, *_ in CODES} | {INTERNAL_REASON}
    assert TITLES.keys() == raised - NEVER_OVER_HTTP
    assert {problem["reason"] for problem in document["x-problems"]} == TITLES.keys()


@pytest.mark.parametrize(
    ("verb", "path", "query", "schema"),
    [
        ("GET", "/v1/info", {}, "Info"),
        ("POST", "/v1/detect", {}, "Detection"),
        ("POST", "/v1/anonymize", {"answer": "json", "verify": "0", "audit": "true"}, "Anonymized"),
        ("POST", "/v1/anonymize", {"answer": "report", "cover_only": "true"}, "Report"),
        ("POST", "/v1/archives", {}, "Archive"),
        ("POST", "/v1/detect", {"min_face": "x"}, "Problem"),
    ],
)
def test_answers_are_what_their_schemas_say(
    door: ServerProcess, photo: bytes, verb: str, path: str, query: dict[str, str], schema: str
) -> None:
    answer = ask(door.http, verb, path, photo if verb == "POST" else None, **query)
    check(answer.json, SCHEMAS[schema])


def check(value: Any, schema: dict[str, Any]) -> None:
    """Fail unless a value is as a schema says; of JSON Schema, what these schemas use."""
    if "$ref" in schema:
        check(value, SCHEMAS[schema["$ref"].rsplit("/", 1)[1]])
        return
    if "anyOf" in schema:
        chosen = [s for s in schema["anyOf"] if (s.get("type") == "null") == (value is None)]
        check(value, chosen[0])
        return
    kinds = {"integer": int, "number": (int, float), "string": str, "boolean": bool}
    kinds |= {"object": dict, "array": list, "null": type(None)}
    assert isinstance(value, kinds[schema["type"]]), (value, schema)
    if "enum" in schema:
        assert value in schema["enum"]
    if schema["type"] == "array":
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        for inner in value:
            check(inner, schema["items"])
    if schema["type"] == "object" and "properties" in schema:
        assert set(schema["required"]) <= value.keys() <= schema["properties"].keys()
        for name, inner in value.items():
            check(inner, schema["properties"][name])


# --- examples -------------------------------------------------------------------------------------


def run(source: str, url: str, folder: Path) -> str:
    """Run an example of curl as it stands, but for the address, and have it fail on errors."""
    command = re.sub(r"https?://(localhost|127\.0\.0\.1):8080", url, source)
    command = "set -e\n" + command.replace("curl ", "curl -sS --fail-with-body ")
    ended = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, (source, ended.stdout[:300], ended.stderr)
    return ended.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(
    "source",
    [
        sample["source"]
        for operation in OPERATIONS.values()
        for sample in operation.get("x-codeSamples", ())
    ],
)
def test_the_examples_of_the_document_work(door: ServerProcess, folder: Path, source: str) -> None:
    assert HERE in source
    printed = run(source, door.http, folder)
    for name in re.findall(r"-o (\S+\.jpg)", source):
        Image.open(folder / name).load()
    if "-o " not in source:
        json.loads(printed)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize(
    "source", [s for s in re.findall(r"```sh\n(.*?)```", MANUAL, re.S) if "curl" in s]
)
def test_the_commands_of_the_manual_work(door: ServerProcess, folder: Path, source: str) -> None:
    run(source, door.http, folder)


def test_the_program_of_the_manual_works(door: ServerProcess, folder: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", MANUAL, re.S)
    changed = program.replace("http://localhost:8080", door.http)
    printed = subprocess.check_output([sys.executable, "-c", changed], cwd=folder, text=True)
    assert re.fullmatch(r"\[1\d\d\.\d+, .*\] 0\.99\d+\n", printed)


def test_the_error_of_the_manual_is_one(door: ServerProcess, photo: bytes) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", MANUAL, re.S)
    answer = post(door.http, "/v1/detect", photo, min_face="x").json
    assert {**json.loads(shown), "request_id": ""} == {**answer, "request_id": ""}


def test_the_manual_names_every_path_and_no_other() -> None:
    named = {path.split("/")[2] for path in re.findall(r"/v1/[\w/]+", MANUAL)}
    served = {path.split("/")[2] for _, path in OPERATIONS} | {"docs", "openapi"}
    assert named == served


# --- the page -------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """All elements of a page, and what is between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_leads_to_every_option_and_error_and_nowhere_else(door: ServerProcess) -> None:
    page = Elements(ask(door.http, "GET", "/v1/docs").body.decode())
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {*TITLES, *(f"option-{name}" for name in OPTIONS)} <= set(ids)
    for tag, attributes in page.found:
        assert tag != "script"
        assert "style" not in attributes
        for link in (attributes.get("href"), attributes.get("src")):
            if link is not None and link.startswith("#"):
                assert link[1:] in ids
            elif link is not None:
                assert ask(door.http, "GET", link).status == 200


def test_what_the_document_says_is_text_and_not_html(document: dict[str, Any]) -> None:
    evil = "<img src=x onerror=alert(1)>`<b>`"
    changed = json.loads(json.dumps(document))
    changed["info"]["description"] = evil
    for operation in operations(changed).values():
        operation["summary"] = operation["description"] = operation["operationId"] = evil
    tags = {tag for tag, _ in Elements(docs_page(changed).decode()).found}
    assert not tags & {"img", "b"}
