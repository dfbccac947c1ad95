"""Which files of a repository or folder are one variant: pure, on paths. Pickles and duplicate formats never are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from deploy import facts
from deploy.errors import LockError

Format = Literal["safetensors", "gguf"]

INDEX = "model.safetensors.index.json"
TEXTS = (".json", ".txt", ".jinja", ".model", ".tiktoken")
LICENCES = ("licen", "notice")
PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
# Files beside a model that are none: a vision tower, a draft head, calibration data.
COMPANIONS = ("mmproj", "mtp-", "imatrix")


def formats(paths: Sequence[str]) -> tuple[Format, ...]:
    """What there is; both are rare. A repository of pickles has none of them."""
    found: list[Format] = []
    if "config.json" in paths and any(path.endswith(".safetensors") for path in paths if "/" not in path):
        found.append("safetensors")
    if _ggufs(paths):
        found.append("gguf")
    return tuple(found)


def safetensors(paths: Sequence[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The weights, and what an engine reads beside them. Only the top folder: below it lie other formats.

    ``read`` fetches a small file. Raises LockError for an index that names a file which is not there.
    """
    top = [path for path in paths if "/" not in path]
    weights = _indexed(top, read) if INDEX in top else _single(top)
    texts = [path for path in top if path.endswith(TEXTS) and not path.endswith(".index.json")]
    licences = [path for path in top if path.lower().startswith(LICENCES)]
    index = [INDEX] if INDEX in top else []
    return tuple(sorted({*weights, *texts, *licences, *index}))


def gguf(paths: Sequence[str], precision: str | None) -> tuple[str, ...]:
    """One model's file, or all parts of a split one in order. Raises LockError, listing what there is."""
    found = _ggufs(paths)
    chosen = found if precision is None else _matching(found, precision)
    if len(chosen) == 1:
        return _complete(*chosen.items())
    problem = "there are several GGUF files" if chosen else f"there is no GGUF of precision `{precision}`"
    example = next((name for path in found if (name := facts.label(path))), "Q4_K_M")
    raise LockError(
        f"{problem}: {', '.join(sorted(chosen or found))}", hint=f'choose one: precision = "{example}" in models.toml'
    )


def _indexed(top: Sequence[str], read: Callable[[str], bytes]) -> set[str]:
    try:
        shards = set(msgspec.json.decode(read(INDEX), type=_Index).weight_map.values())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LockError(f"`{INDEX}` is damaged: {error}") from error
    missing = shards - set(top)
    if missing or not shards:
        raise LockError(f"`{INDEX}` names files that are not there: {', '.join(sorted(missing)) or 'none at all'}")
    return shards


def _single(top: Sequence[str]) -> set[str]:
    weights = {path for path in top if path.endswith(".safetensors")}
    if "model.safetensors" in weights:
        return {"model.safetensors"}
    if len(weights) > 1:
        raise LockError(f"several safetensors files and no `{INDEX}`: {', '.join(sorted(weights))}")
    return weights


def siblings(path: str, paths: Sequence[str]) -> tuple[str, ...]:
    """The parts that a split GGUF's part belongs to; of a whole file itself."""
    return tuple(other for other in paths if PART.sub("", other) == PART.sub("", path))


def _ggufs(paths: Sequence[str]) -> dict[str, list[str]]:
    """First part → all its parts."""
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        if path.endswith(".gguf") and not path.rpartition("/")[2].lower().startswith(COMPANIONS):
            groups.setdefault(PART.sub("", path), []).append(path)
    return {parts[0]: parts for parts in groups.values()}


def _matching(found: dict[str, list[str]], precision: str) -> dict[str, list[str]]:
    """By the name's label; a part of the name will do where no label is equal."""
    equal = {first: parts for first, parts in found.items() if facts.label(first) == precision.upper()}
    return equal or {first: parts for first, parts in found.items() if precision.lower() in first.lower()}


def _complete(group: tuple[str, list[str]]) -> tuple[str, ...]:
    first, parts = group
    split = PART.search(first)
    if split and (split[1] != "00001" or len(parts) != int(split[2])):
        raise LockError(f"`{first}` is split into {int(split[2])} parts, {len(parts)} of them are there")
    return tuple(parts)


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]
