"""The catalogue: models whose facts and bytes were checked, one TOML file per family beside this code.

A row that carries commit, size and sha256 of its GGUF is pinned: it locks without any network. Numbers are what
the named sources say; what no source says is absent.
"""

from __future__ import annotations

import difflib
import tomllib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from deploy.errors import ConfigError
from deploy.lockfile import Facts

PLANNED = frozenset({"--gpu-memory-utilization", "--max-model-len", "--max-num-seqs", "--tensor-parallel-size"})
"""Flags with a value that the plan sets for this box: a recipe's is for another one."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the catalogue: an unknown key is an error of ours, not data to carry along."""


class Licence(Entry, frozen=True, kw_only=True):
    """``commercial`` is no advice of ours: it is what the text at ``source`` says in one word."""

    spdx: str
    commercial: Literal["yes", "conditions", "no", "unknown"]
    source: str
    note: str | None = None


class Kv(Entry, frozen=True, kw_only=True):
    """Dimensions of the KV cache. ``confidence`` derived: from a sibling or a library's defaults."""

    kind: Literal["gqa", "mla"]
    confidence: Literal["config", "derived"]
    bytes_per_token_bf16: int
    """Of one token over all layers, at 16 bits per element."""
    layers: int
    kv_heads: int | None = None
    head_dim: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    note: str | None = None


class Vllm(Entry, frozen=True, kw_only=True):
    """What a published recipe passes to vLLM for this model."""

    recipe: str | None = None
    base_args: tuple[str, ...] = ()
    tool_args: tuple[str, ...] = ()
    reasoning_args: tuple[str, ...] = ()
    note: str | None = None
    source: str | None = None

    @property
    def args(self) -> tuple[str, ...]:
        """Without ``--trust-remote-code``, which follows from what the lock allows, and what the plan decides."""
        kept, given = [], iter(self.base_args + self.tool_args + self.reasoning_args)
        for arg in given:
            if arg in PLANNED:
                next(given, None)
            elif arg != "--trust-remote-code":
                kept.append(arg)
        return tuple(kept)


class Part(Entry, frozen=True, kw_only=True):
    """One wheel of the package index; its ``member`` is a piece of the file, in order."""

    package: str
    version: str
    member: str
    bytes: int
    wheel_sha256: str


class Gguf(Entry, frozen=True, kw_only=True):
    """One GGUF file. Without revision and size its sha256 is what the file was when the source was read."""

    hf_repo: str
    file: str
    sha256: str
    source: str
    revision: str | None = None
    bytes: int | None = None
    index: tuple[Part, ...] = ()

    @property
    def pinned(self) -> bool:
        return self.revision is not None and self.bytes is not None


class Revision(Entry, frozen=True, kw_only=True):
    """A commit that public files show to exist; not a claim that it is the newest."""

    hf_repo: str
    commit: str
    evidence: str
    source: str


class Row(Entry, frozen=True, kw_only=True):
    """One model. Parameters are in billions and often the name-plate size."""

    id: str
    family: str
    hf_repo: str
    architectures: tuple[str, ...]
    total_params_b: int | float
    active_params_b: int | float | None = None
    native_dtype: str
    context_length: int
    licence: Licence
    kv: Kv | None = None
    vllm: Vllm | None = None
    gguf: tuple[Gguf, ...] = ()
    revision: tuple[Revision, ...] = ()
    note: str | None = None
    unknown: tuple[str, ...] = ()
    source: tuple[str, ...]
    as_of: date

    @property
    def pinned(self) -> bool:
        """Whether it can be locked without any network."""
        return any(gguf.pinned for gguf in self.gguf)

    @property
    def commit(self) -> str | None:
        """Of ``hf_repo``."""
        return next((known.commit for known in self.revision if known.hf_repo == self.hf_repo), None)

    @property
    def facts(self) -> Facts:
        """As the lock holds them, for any variant of the model."""
        return Facts(
            architecture=self.architectures[0],
            parameters=_count(self.total_params_b),
            active_parameters=None if self.active_params_b is None else _count(self.active_params_b),
            context=self.context_length,
            attention=self.kv.kind if self.kv else None,
            kv_bytes_per_token=self.kv.bytes_per_token_bf16 if self.kv else None,
            vllm_args=self.vllm.args if self.vllm else (),
        )


class Family(Entry, frozen=True, kw_only=True):
    """One file of the catalogue."""

    model: tuple[Row, ...]


@cache
def rows() -> tuple[Row, ...]:
    """Every row, family by family, in the order of the files."""
    found: list[Row] = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        found += msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Family).model
    return tuple(found)


def find(name: str) -> Row:
    """The row with this id. Raises ConfigError with the nearest ids."""
    known = {row.id: row for row in rows()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = "did you mean " + " or ".join(f"`{one}`" for one in near) + "?" if near else "`ownweights models` lists it"
    raise ConfigError(f"`{name}` is not in the catalogue", hint=f'{listed} Any other model: source = "hf:org/repo"')


@cache
def architectures() -> frozenset[str]:
    """Classes that the engines have themselves, so that a repository's own code is not needed to build them."""
    return frozenset(name for row in rows() for name in row.architectures)


def _count(billions: float) -> int:
    return round(billions * 1_000_000_000)
