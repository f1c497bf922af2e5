"""/docs: the OpenAPI document as one page that needs nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc } h3 { margin: 1.6em 0 .2em; font: 600 15px ui-monospace, monospace }
b { color: #06c } i { color: #777; font-style: normal; float: right } p { margin: .2em 0 } td, th { text-align: left;
vertical-align: top; padding: .1em 1.2em .1em 0 } code, pre { font: 13px ui-monospace, monospace; background: #f5f5f5 }
"""


def render(document: dict[str, Any]) -> str:
    info = document["info"]
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation.get("tags", [""])[0], []).append(_operation(method, path, operation))
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        '<p>Authorization: Bearer TOKEN. For programs: <a href="openapi.json">openapi.json</a></p>',
    ]
    for tag, operations in by_tag.items():
        parts += [f"<h2>{escape(tag)}</h2>", *operations]
    parts.append("<h2>bodies</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(_schema(name, schema))
    title = escape(info["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    right = operation.get("x-right", "")
    said = f"<p>{escape(operation.get('summary', ''))}</p><p>{escape(operation.get('description', ''))}</p>"
    body = _body(operation.get("requestBody", {}))
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}<td>{_type(p['schema'])}"
        f"<td>{escape(p.get('description', ''))}"
        for p in operation.get("parameters", ())
    )
    answers = ", ".join(
        f"{escape(status)} {escape(answer.get('description', ''))}"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<h3><i>{escape(right)}</i><b>{method.upper()}</b> {escape(path)}</h3>{said}"
        f"<table>{rows}</table>{body}<p>{answers}</p>"
    )


def _body(body: dict[str, Any]) -> str:
    return "".join(f"<p>body: {_type(kind['schema'])}</p>" for kind in body.get("content", {}).values())


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " | ".join(_type(part) for part in schema["anyOf"])
    kind = str(schema.get("format") or schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(" | ".join(map(str, schema["enum"])) if "enum" in schema else kind)


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code><td>{_type(kind)}<td>{'required' if key in required else ''}"
        f"<td>{escape(kind.get('description', ''))}"
        for key, kind in schema.get("properties", {}).items()
    )
    described = escape(schema.get("description", ""))
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{described}</p><table>{rows}</table>'
