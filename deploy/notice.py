"""What must go with the models when they are passed on or shown: their licence texts, and what each asks for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from deploy import atomic, licence
from deploy.lockfile import File, Lock, Model, Variant
from deploy.resolving import selection
from deploy.weights import cache

FILE = "NOTICE.md"
TEXT_BYTES = 4 << 20
"""What is longer is no text for people."""
NAME_CHARACTERS = 180
SHOWN = re.compile(r'\b(?:show|display)(?:s|ing)?\s+"([^"]+)"')
"""How the catalogue's words name what has to be seen by users."""


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A licence text or notice of a variant. ``content`` is None where the cache lacks it or holds other bytes."""

    path: str
    """Within the repository."""
    sha256: str
    content: bytes | None


def export(lock: Lock, folder: Path) -> tuple[Path, ...]:
    """Write NOTICE.md and every text that is at hand into ``folder``; each file is whole or not there."""
    written: dict[str, str] = {}
    parts = [f"# Notices\n\nFor the models of `models.lock`, sha256 {lock.digest}.\n"]
    for model in lock.models:
        for variant in model.variants:
            found = texts(variant)
            names = {text.path: _write(folder, model, text, written) for text in found if text.content is not None}
            parts.append("\n".join(_section(model, variant, found, names)))
    atomic.write(folder / FILE, "\n".join(parts).encode())
    return tuple(folder / name for name in (FILE, *sorted(written)))


def texts(variant: Variant) -> tuple[Text, ...]:
    """Of the locked files, those that are terms. Read from the cache, where their bytes are the locked ones."""
    paths = set(selection.legal([file.path for file in variant.files]))
    if variant.licence and variant.licence.file:
        paths.add(variant.licence.file)
    files = (file for file in variant.files if file.path in paths)
    return tuple(Text(path=file.path, sha256=file.sha256, content=_content(variant, file)) for file in files)


def _content(variant: Variant, file: File) -> bytes | None:
    if file.size > TEXT_BYTES:
        return None
    try:
        with cache.blob(variant, file).open("rb") as blob:
            content = blob.read(file.size + 1)
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == file.sha256 else None


def _write(folder: Path, model: Model, text: Text, written: dict[str, str]) -> str:
    """The name it got: a plain one, so that nothing leaves ``folder``; other bytes never share a name."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", f"{model.name}-{text.path}")[:NAME_CHARACTERS]
    name = plain if written.get(plain, text.sha256) == text.sha256 else f"{plain}-{text.sha256[:12]}"
    if name not in written:
        atomic.write(folder / name, text.content or b"")
        written[name] = text.sha256
    return name


def _section(model: Model, variant: Variant, found: tuple[Text, ...], names: dict[str, str]) -> Iterator[str]:
    terms = licence.terms(model, variant)
    origin = variant.origin
    came = f"`{origin.repo}` at commit `{origin.commit}`" if origin.kind == "huggingface" else "a file of this machine"
    yield f"## {model.name}: {variant.key}\n"
    yield f"- From {came}, tree `{variant.tree}`."
    yield f"- Licence: {terms.id}. Commercial use: {terms.commercial}."
    if terms.condition:
        yield f"- To be kept: {terms.condition}"
        yield from (f"- To be shown: “{shown}”" for shown in SHOWN.findall(terms.condition))
    if terms.source:
        yield f"- According to: {terms.source}"
    for text in found:
        if text.path in names:
            yield f"- Text: [{names[text.path]}]({names[text.path]}), sha256 `{text.sha256}`."
        else:
            yield f"- The text `{text.path}` is not at hand: `ownweights pull {model.name} --variant {variant.key}`."
    if not found:
        standard = licence.page(terms.id)
        yield f"- No locked file is its text: {standard or 'ask its publisher for one'}."
    yield ""
