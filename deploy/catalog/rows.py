"""The nouns of the catalogue: one model with its facts, and the weights there are of it.

Numbers are what the named sources say; what no source says is absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Literal, TypeVar

from deploy.catalog import recipe
from deploy.catalog.entry import Entry, Size
from deploy.catalog.recipe import Generation, Vllm
from deploy.catalog.widths import Kv, Widths
from deploy.dimensions import Shape
from deploy.lockfile import Facts, File, Place, Wheel

STORED = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
"""A type's own name → the label of its precision. Others are their own label."""
UNKNOWN = "unknown"
UNREAD = (UNKNOWN, "other")
"""Words for a licence whose text nobody read."""
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
UNITS = {"gb": 10**9, "gib": 2**30, "tib": 2**40}
BILLION = 10**9


class Licence(Entry, frozen=True, kw_only=True):
    """``commercial`` is no advice of ours: it is what the text at ``source`` says in one word."""

    spdx: str
    commercial: Literal["yes", "conditions", "no", "unknown"]
    source: str
    note: str | None = None

    @property
    def name(self) -> str | None:
        """None where nobody read it."""
        return None if self.spdx in UNREAD else self.spdx


class Weights(Entry, frozen=True, kw_only=True):
    """Safetensors of the model in one precision. ``official`` false: someone quantized them for himself."""

    hf_repo: str
    precision: str
    name: str | None = None
    official: bool = True
    vram_minimum_gb: int | None = None
    """The recipe author's figure, no measurement: nothing is planned by it."""
    min_vllm_version: str | None = None
    extra_args: tuple[str, ...] = ()
    override: tuple[Generation, ...] = ()
    quantized_block: Size | None = None
    """As the configuration of this very repository states it; that of the model's own is in its shape."""
    source: str


class Part(Entry, frozen=True, kw_only=True):
    """One wheel of the package index; its ``member`` is a piece of the file, in order."""

    package: str
    version: str
    member: str
    bytes: int
    wheel_sha256: str


class Gguf(Entry, frozen=True, kw_only=True):
    """One GGUF. Without revision and size its sha256 is what the file was when the source was read.

    Without ``file`` the repository has to be asked which one has this precision; of a split file it is the first
    part, and so is its sha256.
    """

    hf_repo: str
    precision: str | None = None
    """As the file's name states it, without the UD- of Unsloth's own mixtures, as everywhere here (``facts.label``).

    None: it is only known that there are some.
    """
    file: str | None = None
    sha256: str | None = None
    revision: str | None = None
    bytes: int | None = None
    size_gb: int | float | None = None
    """As third parties state it, rounded."""
    index: tuple[Part, ...] = ()
    source: str

    @property
    def pin(self) -> File | None:
        """The whole file, where commit, size and sha256 of it are known."""
        if self.file is None or self.sha256 is None or self.revision is None or self.bytes is None:
            return None
        return None if SPLIT.search(self.file) else File(path=self.file, size=self.bytes, sha256=self.sha256)

    @property
    def pinned(self) -> bool:
        return self.pin is not None

    @property
    def places(self) -> tuple[Place, ...]:
        wheels = tuple(
            Wheel(
                package=part.package,
                version=part.version,
                member=part.member,
                size=part.bytes,
                sha256=part.wheel_sha256,
            )
            for part in self.index
        )
        index = (Place(kind="index", path=self.file, wheels=wheels),) if wheels else ()
        return (Place(kind="hub"), *index)


class Revision(Entry, frozen=True, kw_only=True):
    """A commit that public files show to exist; not a claim that it is the newest."""

    hf_repo: str
    commit: str
    evidence: str
    source: str


class Ollama(Entry, frozen=True, kw_only=True):
    """Its name in Ollama's library; tags that run in a cloud are not listed."""

    tag: str
    min_vram_gb: int | None = None
    requires_ollama: str | None = None
    default_draft_tokens: int | None = None
    source: str


class Disk(Entry, frozen=True, kw_only=True):
    """Size of the weights in one precision, in the unit of its source."""

    precision: str
    gb: int | float | None = None
    gib: int | float | None = None
    tib: int | float | None = None
    source: str

    @property
    def bytes(self) -> int | None:
        sizes = ((getattr(self, unit), factor) for unit, factor in UNITS.items())
        return next((round(size * factor) for size, factor in sizes if size is not None), None)


class Row(Entry, frozen=True, kw_only=True):
    """One model. Parameters are in billions and often the name-plate size."""

    id: str
    family: str = "other"
    hf_repo: str
    architectures: tuple[str, ...] = ()
    total_params_b: int | float | None = None
    active_params_b: int | float | None = None
    native_dtype: str | None = None
    context_length: int | None = None
    licence: Licence
    kv: Kv | None = None
    shape: Widths | None = None
    vllm: Vllm | None = None
    variant: tuple[Weights, ...] = ()
    gguf: tuple[Gguf, ...] = ()
    revision: tuple[Revision, ...] = ()
    ollama: Ollama | None = None
    disk: tuple[Disk, ...] = ()
    note: str | None = None
    unknown: tuple[str, ...] = ()
    """What is missing, in words."""
    source: tuple[str, ...]
    as_of: date

    @property
    def pinned(self) -> bool:
        """Whether something of it can be locked without any network."""
        return any(gguf.pinned for gguf in self.gguf)

    @property
    def indexed(self) -> bool:
        """Whether the package index has the bytes of something of it as well."""
        return any(gguf.index for gguf in self.gguf)

    @property
    def commit(self) -> str | None:
        """Of ``hf_repo``."""
        return self.commit_of(self.hf_repo)

    def commit_of(self, repo: str) -> str | None:
        return next((known.commit for known in self.revision if known.hf_repo == repo), None)

    @property
    def weights(self) -> tuple[Weights, ...]:
        """One per precision: the model's own first, then its maker's other ones before those of others."""
        own = [one for one in self.variant if one.hf_repo == self.hf_repo] or [self._native]
        return _one_each((*own, *sorted(self.variant, key=lambda one: (not one.official, self._foreign(one.hf_repo)))))

    @property
    def ggufs(self) -> tuple[Gguf, ...]:
        """Those whose precision is known, one each: pinned before known bytes, the maker's before those of others."""
        known = (one for one in self.gguf if one.precision)
        return _one_each(
            sorted(known, key=lambda one: (not one.pinned, one.sha256 is None, self._foreign(one.hf_repo)))
        )

    def facts(self, weights: Weights | None = None) -> Facts:
        """As the lock holds them: of these weights, or of any GGUF."""
        vllm = self.vllm or Vllm()
        args = vllm.base_args + vllm.tool_args + vllm.reasoning_args
        return Facts(
            architecture=next(iter(self.architectures), None),
            parameters=_count(self.total_params_b),
            active_parameters=_count(self.active_params_b),
            context=self.context_length,
            cache=self.kv.cache if self.kv else None,
            shape=self._shape(weights),
            vllm_args=recipe.unplanned((*args, *(weights.extra_args if weights else ()))),
            overrides=recipe.overrides((*vllm.override, *(weights.override if weights else ()))),
        )

    def _shape(self, weights: Weights | None) -> Shape | None:
        """A scale per block is of these weights alone: the model's own, where its shape has one."""
        if self.shape is None:
            return None
        if weights is None:
            return self.shape.of(None)
        own = weights.hf_repo == self.hf_repo
        return self.shape.of(self.shape.quantized_block if own else weights.quantized_block)

    @property
    def _native(self) -> Weights:
        stored = (self.native_dtype or UNKNOWN).split()[0]
        return Weights(hf_repo=self.hf_repo, precision=STORED.get(stored, stored), source=self.source[0])

    def quantizer(self, repo: str) -> str | None:
        """The owner of a repository that is not the maker's."""
        owner = repo.partition("/")[0]
        return owner if self._foreign(repo) else None

    def _foreign(self, repo: str) -> bool:
        return repo.partition("/")[0] != self.hf_repo.partition("/")[0]


class Family(Entry, frozen=True, kw_only=True):
    """One file of the catalogue. An empty one adds nothing."""

    model: tuple[Row, ...] = ()


Copy = TypeVar("Copy", Weights, Gguf)


def _one_each(copies: Iterable[Copy]) -> tuple[Copy, ...]:
    found: dict[str | None, Copy] = {}
    for one in copies:
        found.setdefault(one.precision, one)
    return tuple(found.values())


def _count(billions: float | None) -> int | None:
    return None if billions is None else round(billions * BILLION)
