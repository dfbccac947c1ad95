"""The ``source`` of a model, as the user writes it: ``auto``, a catalogue id, ``hf:org/repo@rev`` or ``file:PATH``."""

from __future__ import annotations

from typing import Literal

import msgspec

from deploy.errors import ConfigError
from deploy.soundness import REPO, REVISION


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` says how to read the rest: ``name`` is a catalogue id, a repository or a path."""

    kind: Literal["auto", "catalogue", "hf", "file"]
    name: str = ""
    revision: str = "main"


def parse(text: str) -> Source:
    """Raises ConfigError with the form that was expected."""
    if text == "auto":
        return Source(kind="auto")
    if text.startswith("hf:"):
        repo, at, revision = text[3:].partition("@")
        if not REPO.fullmatch(repo) or (at and not REVISION.fullmatch(revision)):
            raise ConfigError(
                f"`{text}` is not a Hub source", hint='write source = "hf:org/repo" or "hf:org/repo@revision"'
            )
        return Source(kind="hf", name=repo, revision=revision or "main")
    if text.startswith("file:"):
        if not text[5:]:
            raise ConfigError("`file:` names no path", hint='write source = "file:models/x.gguf"')
        return Source(kind="file", name=text[5:])
    return Source(kind="catalogue", name=text)
