"""What engines print when they fail, as tables: a pattern, what it means, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

from deploy.engine import Diagnosis

EVIDENCE_CHARACTERS = 300
"""Some lines list everything that would have worked."""

TOKEN_DIGITS = 12
"""Of a context: more were never one."""


class Symptom(NamedTuple):
    """``cause`` and ``hint`` may use the pattern's named groups; the group ``context`` is a correction in tokens."""

    pattern: str
    cause: str
    hint: str


def match(table: tuple[Symptom, ...], log: str) -> Diagnosis | None:
    """The first entry of the table that any line of the log fits; None where none does.

    Of a line what can be printed: it will be, and may hold anything. A number that no context has corrects nothing.
    """
    lines = ["".join(filter(str.isprintable, line)) for line in log.splitlines()]
    for symptom in table:
        for line in lines:
            if found := re.search(symptom.pattern, line):
                groups = found.groupdict()
                return Diagnosis(
                    cause=symptom.cause.format(**groups)[:EVIDENCE_CHARACTERS],
                    evidence=line.strip()[:EVIDENCE_CHARACTERS],
                    hint=symptom.hint.format(**groups),
                    context_tokens=_tokens(groups.get("context")),
                )
    return None


def _tokens(digits: str | None) -> int | None:
    return int(digits) or None if digits and len(digits) <= TOKEN_DIGITS else None
