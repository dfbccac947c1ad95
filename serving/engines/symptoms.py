"""What engines print when they fail, as tables: a pattern, what it means, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

from deploy.engine import Diagnosis

EVIDENCE_CHARACTERS = 300
"""Some lines list everything that would have worked."""


class Symptom(NamedTuple):
    """``cause`` and ``hint`` may use the pattern's named groups; the group ``context`` is a correction in tokens."""

    pattern: str
    cause: str
    hint: str


def match(table: tuple[Symptom, ...], log: str) -> Diagnosis | None:
    """The first entry of the table that any line of the log fits; None where none does."""
    lines = log.splitlines()
    for symptom in table:
        for line in lines:
            if found := re.search(symptom.pattern, line):
                groups = found.groupdict()
                context = groups.get("context")
                return Diagnosis(
                    cause=symptom.cause.format(**groups),
                    evidence=line.strip()[:EVIDENCE_CHARACTERS],
                    hint=symptom.hint.format(**groups),
                    context_tokens=int(context) if context else None,
                )
    return None
