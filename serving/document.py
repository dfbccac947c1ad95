"""A request body: one JSON object, read once and strictly, so that we and the engine see the same thing.

Refused: anything but UTF-8, a BOM, NaN and Infinity, numbers beyond a double, integers of thousands of digits,
a name twice in one object, lone surrogates, and nesting that would exhaust a parser further on.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from serving.refusal import Refusal, invalid

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_MARKS = 1_000_000
"""Of ``, [ {``: bounds the values that a body can hold. A text with more is beyond any context window."""


class _Broken(ValueError):
    """A rule of ours, broken."""


def read(body: bytes) -> dict[str, Any]:
    """The object in ``body``. Raises Refusal 400, or 413 for too many values."""
    brackets = body.count(b"[") + body.count(b"{")
    if brackets + body.count(b",") > MAX_MARKS:
        raise Refusal(413, f"the body holds more than {MAX_MARKS} values", code="body_too_large")
    try:
        document = _DECODER.decode(body.decode())
        if brackets > MAX_DEPTH:
            _check_depth(document)
        if b"\\u" in body:
            # Only an escape can smuggle half of a surrogate pair past UTF-8; encoding finds it.
            msgspec.json.encode(document)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is not strict JSON: {_reason(error)}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    return document


def amend(body: bytes, document: dict[str, Any], changes: dict[str, Any]) -> bytes:
    """``body`` with top-level values set. Untouched without changes; names that are new go in front of the rest."""
    if not changes:
        return body
    if not document or document.keys() & changes.keys():
        return msgspec.json.encode(document | changes)
    return msgspec.json.encode(changes)[:-1] + b"," + body[body.index(b"{") + 1 :]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Broken("a name appears twice in one object")
    return fields


def _constant(name: str) -> None:
    raise _Broken(f"{name} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Broken("a number is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _Broken(f"it is nested deeper than {MAX_DEPTH} levels")


def _reason(error: ValueError | RecursionError) -> str:
    """In our words or the parser's, never with bytes of the body: those may be a prompt."""
    match error:
        case _Broken():
            return str(error)
        case json.JSONDecodeError():
            return f"{error.msg} at character {error.pos}"
        case UnicodeDecodeError():
            return f"byte {error.start} is not UTF-8"
        case UnicodeEncodeError():
            return "a surrogate stands alone"
        case RecursionError():
            return f"it is nested deeper than {MAX_DEPTH} levels"
        case _:
            return "an integer is too long"
