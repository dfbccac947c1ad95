"""A drift as lines for people: what is loud comes first, and nothing that a repository holds reaches a terminal raw."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from deploy import output
from deploy.changes.differences import Value
from deploy.changes.drift import Change, Drift, Group
from deploy.lockfile import File

HEADINGS: dict[Group, str] = {
    "owner": "WARNING: another repository",
    "code": "WARNING: code that comes with the weights",
    "licence": "WARNING: licence",
    "weights": "weights",
    "tokenizer": "tokenizer",
    "template": "chat template",
    "config": "configuration",
    "other": "other files",
}
DIGITS = 12
"""Of a digest or commit, to recognise it by."""


def lines(drift: Drift) -> Iterator[str]:
    """The variant, then group by group what changed."""
    for line in _lines(drift):
        yield "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def _lines(drift: Drift) -> Iterator[str]:
    yield f"{drift.model}  {drift.variant}  {drift.source}  {_verdict(drift)}"
    for group, changes in groupby(drift.changes, key=lambda change: change.group):
        yield f"  {HEADINGS[group]}"
        for change in changes:
            yield from (f"    {line}" for line in _change(change))


def _verdict(drift: Drift) -> str:
    moved = f"{_short(drift.before)} → {_short(drift.after)}" if drift.before != drift.after else _short(drift.before)
    if drift.changes:
        return f"changed: {moved}" if moved else "changed"
    if drift.fixed:
        return f"cannot drift: it is pinned to commit {moved}"
    if drift.before == drift.after:
        return f"unchanged at {moved}" if moved else "unchanged on this disk"
    return f"moved, but to the same files under the same terms: {moved}"


def _change(change: Change) -> Iterator[str]:
    if change.path:
        yield f"{_verb(change)} {change.path}  {_sizes(change.before, change.after)}"
    indent = "  " if change.path else ""
    yield from (f"{indent}{_value(value)}" for value in change.values)
    if change.more:
        yield f"{indent}and {change.more} more"
    yield from (f"{indent}{line}" for line in change.diff)
    if change.note:
        yield f"{indent}({change.note})"


def _verb(change: Change) -> str:
    if change.before and change.after:
        return "changed"
    return "added" if change.after else "removed"


def _sizes(before: File | None, after: File | None) -> str:
    there = [file for file in (before, after) if file]
    sizes, digests = [output.size(file.size) for file in there], [_short(file.sha256) for file in there]
    grown = f" ({after.size - before.size:+} bytes)" if before and after and before.size != after.size else ""
    return f"{' → '.join(dict.fromkeys(sizes))}{grown}  sha256 {' → '.join(digests)}"


def _value(value: Value) -> str:
    before, after = (("nothing" if text is None else text) for text in (value.before, value.after))
    meaning = f" ({value.meaning})" if value.meaning else ""
    return f"{value.key} {before} → {after}{meaning}"


def _short(digest: str | None) -> str:
    return (digest or "")[:DIGITS]
