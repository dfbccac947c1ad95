"""THE CONTRACT between the plan and an engine. Engines are argv, environment and HTTP; they are never imported.

A new engine is one file in serving/engines/, one entry in its ENGINES, one requirement set and one recorded
test. deploy/ never imports it: the engines are handed to ``plan()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import msgspec

from deploy.hardware import Hardware
from deploy.lockfile import Variant

Device = Literal["gpu", "cpu"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """How to start a process: the full argv and the *whole* environment beyond PATH, HOME and locale."""

    argv: tuple[str, ...]
    env: dict[str, str]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why an engine cannot run a variant here, and what would change that."""

    reason: str
    change: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan promises and the engine is told."""

    context_tokens: int
    """Of one request: prompt and answer together."""
    slots: int
    """Requests served at once, each with the whole context."""
    threads: int
    """CPU threads of the engine; 1 on a GPU."""
    kv_cache_bytes: int | None = None
    """None: the engine takes what its memory share leaves (vLLM on a GPU)."""
    tensor_parallel: int = 1
    gpu_memory_share: float | None = None
    """Of each GPU's total memory, where the engine works on GPUs (vLLM's gpu-memory-utilization)."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an engine needs to write its command."""

    model: str
    """The name clients use: the engine serves under it, so that a body passes unchanged."""
    aliases: tuple[str, ...] = ()
    variant: Variant
    weights: str
    """Of a gguf the file, of safetensors the snapshot folder."""
    socket: str
    """Unix socket to listen on, in a folder of mode 0700."""
    environment: str
    """Root of the engine's own virtual environment."""
    state: str
    """A private folder that the engine may write: its caches, its HOME."""
    settings: Settings


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """A failure of an engine, decoded from what it printed."""

    cause: str
    evidence: str
    """The line that says so, as printed."""
    hint: str
    context_tokens: int | None = None
    """The one correction to retry with, where the engine named it."""


class Engine(Protocol):
    """What an adapter offers. All of it is pure."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> Device: ...

    @property
    def version(self) -> str: ...

    @property
    def requirements(self) -> Path:
        """The hashed requirement set of its environment (``deploy.environment`` installs it)."""
        ...

    @property
    def files(self) -> dict[str, str]:
        """Small files of ours inside the environment: path relative to its root → content."""
        ...

    @property
    def cancels_whole_answers(self) -> bool:
        """It stops at once when the client of a whole answer leaves, as every engine does for that of a stream.

        Where it does not, the gateway asks for a stream and puts the whole answer together.
        """
        ...

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        """None where it can run the variant on this hardware; memory is the plan's business."""
        ...

    def overhead_bytes(self, variant: Variant, settings: Settings) -> int:
        """Memory beyond weights and KV cache: runtime, compute buffers, graphs."""
        ...

    def command(self, launch: Launch) -> Command: ...

    def start_timeout_s(self, variant: Variant) -> float:
        """How long it may take to its first token, from the variant's bytes."""
        ...

    def diagnose(self, log: str) -> Diagnosis | None:
        """The cause in the tail of its log, or None where nothing known was printed."""
        ...
