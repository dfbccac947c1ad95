"""What a Hub says of a repository: decoded strictly, and refused where it could not be true or would do harm."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import msgspec

from deploy import soundness
from deploy.errors import PlaceError
from deploy.hub.client import Question
from deploy.hub.errors import explained, shown

T = TypeVar("T")

MAX_FILES = 100_000
"""No model has as many."""

Sha1 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]


class Card(msgspec.Struct):
    """``license_name`` may be anything: it is written by hand and nobody checks it."""

    license_name: Any = None


class Info(msgspec.Struct):
    """The answer about a repository at a revision."""

    sha: Sha1
    id: str | None = msgspec.field(name="_id", default=None)
    gated: bool | str | None = None
    tags: list[str] | None = None
    card: Card | None = msgspec.field(name="cardData", default=None)

    @property
    def license(self) -> str | None:
        return next((tag.removeprefix("license:") for tag in self.tags or () if tag.startswith("license:")), None)

    @property
    def license_name(self) -> str | None:
        name = self.card.license_name if self.card else None
        return name if isinstance(name, str) else None


class Lfs(msgspec.Struct):
    """``oid`` is the sha256 of the content."""

    oid: Sha256
    size: Size


class Entry(msgspec.Struct, tag_field="type", tag="file"):
    """One file of the listing. ``oid`` is its git blob, which of an LFS file is only the pointer."""

    path: str
    oid: Sha1
    size: Size
    lfs: Lfs | None = None
    xet: Sha256 | None = msgspec.field(name="xetHash", default=None)


class Folder(msgspec.Struct, tag_field="type", tag="directory"):
    """Listed too, and of no interest."""

    path: str


def info(question: Question) -> Info:
    """Raises PlaceError, also where the answer is about another commit than the one asked for."""
    url = f"{_url(question)}/revision/{quote(question.revision, safe='')}"
    found = _decoded(question.page(url)[0], Info, question)
    if soundness.SHA1.fullmatch(question.revision) and found.sha != question.revision:
        raise PlaceError(
            f"asked for commit {question.revision} of `{question.repo}`, was given {found.sha}",
            where=question.where,
            hint="check HF_ENDPOINT: this mirror does not keep commits apart",
        )
    return found


def files(question: Question, commit: str) -> list[Entry]:
    """All files at a commit, of all pages. Raises PlaceError."""
    found: list[Entry] = []
    for entries in _pages(question, f"{_url(question)}/tree/{commit}?recursive=true"):
        found += [entry for entry in entries if isinstance(entry, Entry)]
        if len(found) > MAX_FILES:
            raise _refusal(question, f"more than {MAX_FILES} files")
    _refuse_paths(question, [entry.path for entry in found])
    return found


def _pages(question: Question, url: str | None) -> Iterator[list[Entry | Folder]]:
    """Every page but the last must have an entry, so that the number of pages has an end as well."""
    left = 2 * MAX_FILES
    while url:
        content, url = question.page(url)
        entries = _decoded(content, list[Entry | Folder], question)
        left -= len(entries)
        if left < 0 or (url and not entries):
            raise _refusal(question, "pages without end")
        yield entries


def _refuse_paths(question: Question, paths: list[str]) -> None:
    """Those that would leave their folder, come twice, or name a file as the folder of another."""
    unsafe = next((path for path in paths if not soundness.is_safe(path)), None)
    if unsafe is not None:
        raise _refusal(question, f"an unsafe path: `{shown(unsafe)}`")
    # Sorted by their components, what is below a path follows it at once.
    for before, after in pairwise(sorted(path.split("/") for path in paths)):
        if after[: len(before)] == before:
            raise _refusal(question, f"`{shown('/'.join(before))}` twice, or as a file and as a folder")


def _refusal(question: Question, what: str) -> PlaceError:
    hint = "this is no repository of a model: check its name and HF_ENDPOINT"
    return PlaceError(f"`{question.repo}` lists {what}", where=question.where, hint=hint)


def _url(question: Question) -> str:
    return f"{question.home}/api/models/{question.repo}"


def _decoded(content: bytes, kind: type[T], question: Question) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise explained(error, question.repo, question.revision, question.where) from None
