"""What makes a lock sound: nothing in it leads out of a folder, into another command, or to other bytes than it says.

Whatever becomes a path, an argument, an address or a size later is judged here, before anything is done with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from deploy.config import NAME, Table
from deploy.dimensions import MOST, MOST_TOKEN_BYTES, Cache
from deploy.lines import Steps

if TYPE_CHECKING:
    from deploy.lockfile import Facts, File, Lock, Model, Origin, Place, Variant, Wheel

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(rf"(sha256:)?{SHA256.pattern}")
REPO = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""The Hub's own rule. It becomes the folder `models--org--name`, so `--` would make two names one folder."""
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][\w./@+-]{0,254}", re.ASCII)
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]{0,127}")
LICENCE = re.compile(r"[A-Za-z0-9(][A-Za-z0-9.+() -]{0,199}")
PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)", re.IGNORECASE | re.DOTALL)
"""What an engine may unpickle, which can run code: models.toml allows it for the format of that name only."""
WEIGHTS = {
    "safetensors": re.compile(r".*\.safetensors", re.DOTALL),
    "gguf": re.compile(r".*\.gguf", re.DOTALL),
    "pickle": PICKLE,
}
"""By format. An engine that finds none of them looks for others."""
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, and those that make a line look like another one."""

TEXT_CHARACTERS = 4096
PATH_BYTES, PART_BYTES = 1024, 255
"""Of a whole path and of one name in it (NAME_MAX)."""
LARGEST = 1 << 60
"""Bytes or parameters: a thousand times what anyone has."""
NEEDED = {
    **dict.fromkeys(("gqa", "hybrid-gqa"), ("kv_heads", "key_width", "value_width")),
    "mla": ("rank", "rotary_width"),
}
"""Without these a cache of that kind has no size."""


class Flaw(NamedTuple):
    """A rule that is broken, and the place in the lock's tables."""

    at: Steps
    rule: str


def is_safe(path: str) -> bool:
    """Whether it stays below the folder it is joined to: relative, normal, no ``..``, no tricks, not too long."""
    parts = path.split("/")
    plain = not HIDDEN.search(path) and "\\" not in path and not {"", ".", ".."} & set(parts)
    return plain and len(path.encode()) <= PATH_BYTES and all(len(part.encode()) <= PART_BYTES for part in parts)


def tree_digest(files: tuple[File, ...]) -> str:
    """The one number to compare two machines by: sha256 over the sorted lines ``path NUL size NUL sha256 LF``."""
    listed = sorted(f"{file.path}\0{file.size}\0{file.sha256}\n" for file in files)
    return "sha256:" + hashlib.sha256("".join(listed).encode()).hexdigest()


def values(table: Any, at: Steps = ()) -> Iterator[Flaw]:
    """Texts and numbers that are right nowhere, whatever they stand for. ``table``: as `tomllib` gives it."""
    if isinstance(table, dict):
        for key, value in table.items():
            yield from values(key, at)
            yield from values(value, (*at, key))
    elif isinstance(table, list):
        for index, value in enumerate(table):
            yield from values(value, (*at, index))
    elif isinstance(table, str) and (HIDDEN.search(table) or len(table) > TEXT_CHARACTERS):
        yield Flaw(at, f"{table[:80]!r} holds a control character, or is longer than {TEXT_CHARACTERS} characters")
    elif isinstance(table, int) and not 0 <= table <= LARGEST:
        yield Flaw(at, f"a number must be between 0 and {LARGEST}")


def flaws(lock: Lock) -> Iterator[Flaw]:
    """Everything that is wrong with its names, paths, hashes and places, in the order of its text."""
    yield from _names(lock)
    for index, model in enumerate(lock.models):
        at: Steps = ("model", index)
        yield from _variant_keys(model, at)
        for number, variant in enumerate(model.variants):
            yield from _variant(variant, (*at, "variant", number))
    for index, pinned in _again(f"{pin.name} ({pin.device})" for pin in lock.engines):
        yield Flaw(("engine", index), f"the engine {pinned} is pinned twice")


def _names(lock: Lock) -> Iterator[Flaw]:
    seen: set[str] = set()
    for index, model in enumerate(lock.models):
        at: Steps = ("model", index)
        named = [((*at, "name"), model.name)]
        named += [((*at, "aliases", number), alias) for number, alias in enumerate(model.aliases)]
        for place, name in named:
            if not NAME.fullmatch(name):
                yield Flaw(place, f"`{name}` cannot be a model name: letters, digits and . _ : / - only")
            if name in seen:
                yield Flaw(place, f"the name `{name}` is used twice")
            seen.add(name)


def _variant_keys(model: Model, at: Steps) -> Iterator[Flaw]:
    if not model.variants:
        yield Flaw((*at, "variant"), f"model `{model.name}` has no variant")
    for number, key in _again(variant.key for variant in model.variants):
        yield Flaw((*at, "variant", number, "precision"), f"model `{model.name}` has {key} twice")


def _again(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Those that came before, each with its position."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield index, name
        seen.add(name)


def _variant(variant: Variant, at: Steps) -> Iterator[Flaw]:
    if not variant.files:
        yield Flaw((*at, "files"), f"{variant.key} has no files")
    yield from _files(variant.files, (*at, "files"))
    yield from _files(variant.code, (*at, "code"))
    yield from _pickles(variant, at)
    yield from _code(variant, at)
    yield from _origin(variant.origin, (*at, "origin"))
    if variant.licence:
        yield from _match(LICENCE, variant.licence.id, (*at, "licence", "id"), "an SPDX id or LicenseRef")
        yield from _match(DIGEST, variant.licence.text, (*at, "licence", "text"), "a sha256")
        if variant.licence.file is not None:
            yield from _path(variant.licence.file, (*at, "licence", "file"))
    yield from _sums(variant, at)
    yield from _facts(variant.facts, (*at, "facts"))
    for number, place in enumerate(variant.places):
        yield from _place(variant, place, (*at, "places", number))
    if variant.files and not any(WEIGHTS[variant.format].fullmatch(file.path) for file in variant.files):
        yield Flaw((*at, "format"), f"{variant.key} lists no file of that format")


def _facts(facts: Facts, at: Steps) -> Iterator[Flaw]:
    yield from _match(DIGEST, facts.chat_template, (*at, "chat-template"), "a sha256")
    if facts.cache:
        yield from _cache(facts.cache, (*at, "cache"))
    if facts.shape:
        yield from _counts(facts.shape, (*at, "shape"))
    for number, override in enumerate(facts.overrides):
        yield from _counts(override, (*at, "overrides", number))


def _cache(cache: Cache, at: Steps) -> Iterator[Flaw]:
    """What is multiplied to bytes later."""
    yield from _counts(cache, at, least={"layers": 0, "window-layers": 0})
    for name in NEEDED[cache.kind]:
        if getattr(cache, name) is None:
            yield Flaw(at, f"a cache of kind {cache.kind} needs `{name.replace('_', '-')}`")
    if (cache.window is None) != (cache.window_layers == 0):
        yield Flaw(at, "`window` and `window-layers` need each other")
    if cache.layers + cache.window_layers == 0:
        yield Flaw((*at, "layers"), "a cache without layers")
    if not cache.is_likely:
        yield Flaw(at, f"a cache takes at most {MOST_TOKEN_BYTES} bytes per token")
    if cache.recurrent:
        yield from _counts(cache.recurrent, (*at, "recurrent"))


def _counts(table: Table, at: Steps, least: Mapping[str, int] = MappingProxyType({})) -> Iterator[Flaw]:
    """Of layers, heads, widths and the like there is at least one, unless said otherwise."""
    for name, key in zip(table.__struct_fields__, table.__struct_encode_fields__, strict=True):
        value = getattr(table, name)
        if isinstance(value, int) and not least.get(key, 1) <= value <= MOST:
            yield Flaw((*at, key), f"`{key}` must be between {least.get(key, 1)} and {MOST}")


def _files(files: tuple[File, ...], at: Steps) -> Iterator[Flaw]:
    for index, file in enumerate(files):
        here = (*at, index)
        yield from _path(file.path, (*here, "path"))
        yield from _match(SHA256, file.sha256, (*here, "sha256"), "64 hex digits, in lower case")
        yield from _match(SHA1, file.git, (*here, "git"), "40 hex digits, in lower case")
        yield from _match(SHA256, file.xet, (*here, "xet"), "64 hex digits, in lower case")
    # With the slash at its end a folder comes right before what lies in it.
    for (above, _), (path, index) in pairwise(sorted((f"{file.path}/", index) for index, file in enumerate(files))):
        if path == above:
            yield Flaw((*at, index, "path"), f"`{path[:-1]}` is listed twice")
        elif path.startswith(above):
            yield Flaw((*at, index, "path"), f"`{path[:-1]}` lies in `{above[:-1]}`, which is a file")


def _pickles(variant: Variant, at: Steps) -> Iterator[Flaw]:
    """What the user has to allow hangs on the format, so only that one may bring them."""
    for index, file in enumerate(variant.files):
        if variant.format != "pickle" and PICKLE.fullmatch(file.path):
            yield Flaw((*at, "files", index), f"`{file.path}` is a pickle, {variant.format} has none")


def _sums(variant: Variant, at: Steps) -> Iterator[Flaw]:
    size, tree = sum(file.size for file in variant.files), tree_digest(variant.files)
    if variant.size != size:
        yield Flaw((*at, "size"), f"the files of {variant.key} add up to {size} bytes, not to `size`")
    if variant.tree != tree:
        yield Flaw((*at, "tree"), f"the files of {variant.key} add up to {tree}, not to `tree`: one was edited")


def _code(variant: Variant, at: Steps) -> Iterator[Flaw]:
    """What the user allows is the hash under ``code``; what an engine would run is the file."""
    allowed = {file.path: file.sha256 for file in variant.code}
    for index, file in enumerate(variant.files):
        if file.path.endswith(".py") and allowed.get(file.path) != file.sha256:
            yield Flaw((*at, "files", index), f"`{file.path}` is not the one under `code`, which is what was allowed")


def _origin(origin: Origin, at: Steps) -> Iterator[Flaw]:
    for key, value in (("repo", origin.repo), ("commit", origin.commit)):
        if origin.kind == "huggingface" and value is None:
            yield Flaw(at, f"a Hugging Face origin needs `{key}`")
    yield from _match(REPO, origin.repo, (*at, "repo"), "org/name")
    yield from _match(SHA1, origin.commit, (*at, "commit"), "40 hex digits")
    yield from _match(REVISION, origin.requested, (*at, "requested"), "a branch, tag or commit")
    if origin.requested and SHA1.fullmatch(origin.requested) and origin.requested != origin.commit:
        yield Flaw((*at, "commit"), f"`commit` is {origin.commit}, but the commit {origin.requested} was asked for")
    if origin.purl not in (None, f"pkg:huggingface/{origin.repo}@{origin.commit}"):
        yield Flaw((*at, "purl"), f"`{origin.purl}` names another repository or commit than this origin")


def _place(variant: Variant, place: Place, at: Steps) -> Iterator[Flaw]:
    if place.kind == "file" and not place.path:
        yield Flaw(at, "a file place needs `path`")
    if place.kind != "index":
        return
    sizes = {file.path: file.size for file in variant.files}
    if place.path not in sizes:
        yield Flaw((*at, "path"), f"`{place.path}` is no file of {variant.key}")
    elif sum(wheel.size for wheel in place.wheels) != sizes[place.path]:
        yield Flaw((*at, "wheels"), f"the wheels' members do not add up to the size of `{place.path}`")
    for number, wheel in enumerate(place.wheels):
        yield from _wheel(wheel, (*at, "wheels", number))


def _wheel(wheel: Wheel, at: Steps) -> Iterator[Flaw]:
    yield from _match(PACKAGE, wheel.package, (*at, "package"), "the name of a package")
    yield from _match(RELEASE, wheel.version, (*at, "version"), "the version of a package")
    yield from _match(SHA256, wheel.sha256, (*at, "sha256"), "64 hex digits, in lower case")
    yield from _path(wheel.member, (*at, "member"))


def _path(path: str, at: Steps) -> Iterator[Flaw]:
    if not is_safe(path):
        rule = f"relative, no `..`, at most {PART_BYTES} bytes per name and {PATH_BYTES} in all"
        yield Flaw(at, f"unsafe path `{path}`: it must be {rule}")


def _match(rule: re.Pattern[str], value: str | None, at: Steps, wanted: str) -> Iterator[Flaw]:
    if value is not None and not rule.fullmatch(value):
        yield Flaw(at, f"`{at[-1]}` is `{value}`, must be {wanted}")
