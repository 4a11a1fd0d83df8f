"""The OpenAPI document as a page for people: without scripts, and of our own files alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>unface REST</title>
<link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/page/docs.css">
</head>
<body>
<main>
"""
END = "</main>\n</body>\n</html>\n"


def docs_page(document: Mapping[str, Any]) -> bytes:
    """Return the page, in HTML."""
    return (HEAD + "\n".join(_sections(document)) + END).encode()


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<h1>unface REST <small>{escape(info['version'])}</small></h1>"
    yield f"<p>{_words(info['description'])}</p>"
    yield '<p><a href="/">The page</a> · <a href="/v1/openapi.json">OpenAPI document</a></p>'
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            yield from _operation(verb, path, operation)
    yield '<h2 id="options">Options</h2>'
    yield "<table><thead><tr><th>name<th>what it does<th>values<th>default<th>example</thead>"
    for option in document["components"]["parameters"].values():
        yield _row(option)
    yield "</table>"
    yield '<h2 id="errors">Errors</h2>'
    yield "<p>Errors are problem details (RFC 9457). <code>reason</code> is one of:</p>"
    yield "<table><thead><tr><th>reason<th>status<th>what it says</thead>"
    for problem in document["x-problems"]:
        reason = escape(problem["reason"])
        yield (
            f'<tr id="{reason}"><td><code>{reason}</code><td>{problem["status"]}'
            f"<td>{escape(problem['title'])}"
        )
    yield "</table>"


def _operation(verb: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    name = escape(f"{verb.upper()} {path}")
    yield f'<section id="{escape(operation["operationId"])}">'
    yield f"<h2><code>{name}</code></h2>"
    yield f"<p><strong>{escape(operation['summary'])}.</strong> "
    yield f"{_words(operation.get('description', ''))}</p>"
    if options := [ref["$ref"].rsplit("/", 1)[1] for ref in _refs(operation)]:
        links = ", ".join(f'<a href="#option-{escape(o)}">{escape(o)}</a>' for o in options)
        yield f"<p>Options: {links}</p>"
    for sample in operation.get("x-codeSamples", ()):
        yield f'<pre tabindex="0">{escape(sample["source"])}</pre>'
    yield "</section>"


def _refs(operation: Mapping[str, Any]) -> list[Mapping[str, str]]:
    return [parameter for parameter in operation.get("parameters", ()) if "$ref" in parameter]


def _row(option: Mapping[str, Any]) -> str:
    schema, name = option["schema"], escape(option["name"])
    default = schema.get("default")
    shown = "" if default is None else str(default).lower()
    return (
        f'<tr id="option-{name}"><td><code>{name}</code><td>{_words(option["description"])}'
        f"<td>{escape(_values(schema))}<td>{escape(shown)}"
        f"<td><code>{escape(option['example'])}</code>"
    )


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema["type"] == "boolean":
        return "true, false"
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is None:
        return "text"
    return f"{least} or more" if most is None else f"{least} to {most}"


def _words(text: str) -> str:
    """Return text as HTML, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if n % 2 else p for n, p in enumerate(parts))
