"""A repository's own Python files: what names them, whether they must be run, and whether the user said they may.

``auto_map`` in a configuration names a class as ``module.Class``; a module may import any other file of the top
folder, so all of them count. Source: transformers' dynamic modules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from deploy import output
from deploy.errors import LockError
from deploy.lockfile import File
from deploy.resolving.facts import json_object

CONFIG = "config.json"
OTHERS = (
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""Whose classes no engine brings: what they name must be run."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One class that a configuration names."""

    file: str
    name: str
    """``module.Class``, or ``org/other--module.Class`` for another repository's."""

    @property
    def module(self) -> str:
        return f"{self.name.rpartition('.')[0]}.py"


def claims(paths: Collection[str], read: Callable[[str], bytes]) -> tuple[Claim, ...]:
    """All of them. Raises LockError for a configuration that is no JSON object."""
    return tuple(
        Claim(file=file, name=name)
        for file in (CONFIG, *OTHERS)
        if file in paths
        for name in sorted(set(_all_names(json_object(file, read))))
    )


def scripts(paths: Collection[str], claimed: Collection[Claim]) -> tuple[str, ...]:
    """The files that the claims can reach."""
    return tuple(sorted(path for path in paths if path.endswith(".py") and "/" not in path)) if claimed else ()


def needed(claimed: Sequence[Claim], architecture: str | None, known: Collection[str]) -> tuple[Claim, ...]:
    """Those without which the model does not run: of ``known`` architectures the engines have the code themselves."""
    return tuple(claim for claim in claimed if claim.file != CONFIG or architecture not in known)


def may_run(code: Sequence[File], claimed: Sequence[Claim], needed: Sequence[Claim], allowed: Sequence[str]) -> bool:
    """Whether to run the code: no where nothing needs it. Raises LockError where it is needed and not allowed.

    ``allowed`` are the user's ``sha256:…``; every file must be among them. Engines know one switch for all claims,
    so once one is needed, all are run and must be of files that are pinned.
    """
    hashes = {f"sha256:{file.sha256}" for file in code}
    for gone in sorted(set(allowed) - hashes):
        output.say(f"allow-remote-code names {gone}: no file of the repository has this hash (any more)")
    if not needed:
        return False
    _refuse_unpinnable(code, claimed)
    if not hashes.issubset(allowed):
        listed = "".join(f"\n  {file.path}  {file.size} bytes  sha256:{file.sha256}" for file in code)
        quoted = ", ".join(f'"{one}"' for one in sorted(hashes))
        raise LockError(
            f"the repository brings code of its own that must be run ({_said(needed)}):{listed}",
            hint=f"read it; to allow exactly these files, in models.toml: allow-remote-code = [{quoted}]",
        )
    return True


def _refuse_unpinnable(code: Sequence[File], claimed: Sequence[Claim]) -> None:
    for claim in claimed:
        if "--" in claim.name:
            raise LockError(
                f"`{claim.file}` wants to run `{claim.name}`, code of another repository, which cannot be pinned",
                hint="choose a copy of the model that brings its code itself, or needs none",
            )
        if claim.module not in {file.path for file in code}:
            raise LockError(f"`{claim.file}` wants to run `{claim.name}`, and there is no `{claim.module}`")


def _said(claimed: Sequence[Claim]) -> str:
    files = dict.fromkeys(claim.file for claim in claimed)
    return "; ".join(f"{file}: {', '.join(claim.name for claim in claimed if claim.file == file)}" for file in files)


def _all_names(config: Mapping[str, object]) -> Iterator[str]:
    """A multimodal model's parts are configured one level down, in ``text_config`` and the like."""
    for table in (config, *(value for key, value in config.items() if key.endswith("_config"))):
        if isinstance(table, dict):
            yield from _names(table.get("auto_map"))


def _names(auto_map: object) -> Iterator[str]:
    """Class names; a tokenizer's entry is a pair, slow and fast, and an old one is nothing but that pair."""
    entries = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    for entry in entries:
        yield from (name for name in (entry if isinstance(entry, list) else [entry]) if isinstance(name, str))
