"""Which files of a repository or folder are one variant: pure, on paths. Duplicate formats never are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from deploy.errors import LockError
from deploy.resolving import facts

Format = Literal["safetensors", "gguf", "pickle"]

INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
PICKLE = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
TEXTS = (".json", ".txt", ".jinja", ".model", ".tiktoken")
# Texts only, whatever they are called: nothing that an engine would load for its name.
LEGAL = re.compile(
    r"(readme[-_]|third[-_]?party[-_]?)?(licen[cs]es?|copying|notices?|use[-_]policy)"
    r"([-_][\w-]*)?(\.\d+)*(\.(txt|md|rst|html|pdf))?",
    re.IGNORECASE | re.ASCII,
)
PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
NAMED = 10
"""So many missing files are spelled out."""
# Files beside a model that are none: a vision tower, a draft head, calibration data.
COMPANIONS = ("mmproj", "mtp-", "imatrix")


def formats(paths: Sequence[str]) -> tuple[Format, ...]:
    """What there is. Pickles count only where there is nothing else."""
    top = [path for path in paths if "/" not in path]
    found: list[Format] = []
    if "config.json" in top and any(path.endswith(".safetensors") for path in top):
        found.append("safetensors")
    if _ggufs(paths):
        found.append("gguf")
    if not found and "config.json" in top and any(PICKLE.fullmatch(path) for path in top):
        found.append("pickle")
    return tuple(found)


def safetensors(paths: Sequence[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The weights, and what an engine reads beside them. Only the top folder: below it lie other formats.

    ``read`` fetches a small file. Raises LockError for an index that names a file which is not there, or another
    format's: nobody allowed those.
    """
    top = [path for path in paths if "/" not in path]
    weights = _indexed(INDEX, top, read) if INDEX in top else _single(top)
    if foreign := sorted(path for path in weights - {INDEX} if not path.endswith(".safetensors")):
        raise LockError(f"`{INDEX}` names files that are no safetensors: {', '.join(foreign[:NAMED])}")
    return tuple(sorted({*weights, *texts(top)}))


def pickles(paths: Sequence[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The same of PyTorch's pickles, which can run code when they are loaded. Raises LockError as ``safetensors``."""
    top = [path for path in paths if "/" not in path]
    indexed = _indexed(PICKLE_INDEX, top, read) if PICKLE_INDEX in top else {"pytorch_model.bin"} & set(top)
    weights = {path for path in indexed if PICKLE.fullmatch(path)}
    if not weights or weights != indexed - {PICKLE_INDEX}:
        raise LockError(f"the pickles are neither one `pytorch_model.bin` nor named by `{PICKLE_INDEX}`")
    return tuple(sorted({*indexed, *texts(top)}))


def texts(paths: Sequence[str]) -> tuple[str, ...]:
    """Configuration, tokenizer, template, licence: what lies beside the weights of a Hugging Face folder."""
    named = (path for path in paths if "/" not in path and path.endswith(TEXTS) and not path.endswith(".index.json"))
    return tuple(sorted({*named, *legal(paths)}))


def legal(paths: Sequence[str]) -> tuple[str, ...]:
    """Licences, notices and use policies of the top folder."""
    return tuple(path for path in paths if LEGAL.fullmatch(path))


def licence(paths: Sequence[str]) -> str | None:
    """The text under which the weights are given. Where there are several: a model's own before one for code, then
    LICENSE, LICENCE, COPYING, then the shortest name. A notice or a policy is none."""
    names = ("license", "licence", "copying")
    found = [path for path in legal(paths) if path.lower().startswith(names)]

    def rank(path: str) -> tuple[bool, bool, int, int, str]:
        name = path.lower()
        order = next(number for number, start in enumerate(names) if name.startswith(start))
        return "model" not in name, "code" in name, order, len(name), path

    return min(found, key=rank, default=None)


def precisions(paths: Sequence[str]) -> tuple[str, ...]:
    """Of the GGUF models that are there: label, or path where the name has none."""
    return tuple(facts.label(path) or path for path in _ggufs(paths))


def gguf(paths: Sequence[str], precision: str | None) -> tuple[str, ...]:
    """One model's file, or all parts of a split one in order. Raises LockError, listing what there is."""
    found = _ggufs(paths)
    chosen = found if precision is None else _matching(found, precision)
    if len(chosen) == 1:
        return _complete(*chosen.items())
    problem = f"there is no GGUF of precision `{precision}`" if precision else "there is no GGUF of a model"
    problem = "there are several GGUF files" if chosen else problem
    example = next((name for path in found if (name := facts.label(path))), "Q4_K_M")
    raise LockError(
        f"{problem}: {', '.join(sorted(chosen or found))}", hint=f'choose one: precision = "{example}" in models.toml'
    )


def _indexed(index: str, top: Sequence[str], read: Callable[[str], bytes]) -> set[str]:
    """The shards that an index names, and itself."""
    try:
        shards = set(msgspec.json.decode(read(index), type=_Index).weight_map.values())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LockError(f"`{index}` is damaged: {error}") from error
    missing = sorted(shards - set(top))
    if missing or not shards:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise LockError(
            f"`{index}` names files that are not there: {', '.join(missing[:NAMED]) or 'none at all'}{more}"
        )
    return {*shards, index}


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
