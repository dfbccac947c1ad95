"""What published recipes tell vLLM about a model, for every GPU and for one generation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from deploy.catalog.entry import Entry, Size
from deploy.dimensions import Override

PLANNED = frozenset(
    [
        *("--gpu-memory-utilization", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens"),
        *("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size"),
    ]
)
"""Flags with a value that the plan sets for this box: a recipe's is for another one."""
TRUST = "--trust-remote-code"
"""Follows from what the lock allows, never from a recipe."""


class Speculative(Entry, frozen=True, kw_only=True):
    """A way to draft tokens, which nobody gets unasked."""

    mode: str
    args: tuple[str, ...]


class Generation(Entry, frozen=True, kw_only=True):
    """What holds for one GPU generation only. ``context`` and ``slots``: no more than that fits."""

    generation: Literal["ampere", "ada", "hopper", "blackwell"]
    args: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    context: Size | None = None
    slots: Size | None = None
    source: str


class Vllm(Entry, frozen=True, kw_only=True):
    """``recipe`` is its path in vllm-project/recipes; without one, ``source`` says where the flags are from."""

    recipe: str | None = None
    min_vllm_version: str | None = None
    """``nightly``: later than any release of its day."""
    base_args: tuple[str, ...] = ()
    tool_args: tuple[str, ...] = ()
    reasoning_args: tuple[str, ...] = ()
    text_only_args: tuple[str, ...] = ()
    """To leave out what reads images."""
    default_strategy: str | None = None
    verified_hardware: tuple[str, ...] = ()
    speculative: tuple[Speculative, ...] = ()
    override: tuple[Generation, ...] = ()
    note: str | None = None
    source: str | None = None


def unplanned(args: Iterable[str]) -> tuple[str, ...]:
    """Without what the plan and the lock decide, written ``--flag value`` or ``--flag=value``."""
    kept, given = [], iter(args)
    for arg in given:
        flag, _, value = arg.partition("=")
        if flag in PLANNED and not value:
            next(given, None)
        elif flag not in (*PLANNED, TRUST):
            kept.append(arg)
    return tuple(kept)


def overrides(entries: Iterable[Generation]) -> tuple[Override, ...]:
    """One per generation. What a later entry says is added to an earlier one's, or replaces it."""
    found: dict[str, Override] = {}
    for entry in entries:
        known = found.get(entry.generation, Override(generation=entry.generation))
        found[entry.generation] = msgspec.structs.replace(
            known,
            args=known.args + unplanned(entry.args),
            env=known.env | entry.env,
            context=entry.context or known.context,
            slots=entry.slots or known.slots,
        )
    return tuple(found.values())
