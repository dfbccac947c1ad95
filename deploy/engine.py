"""THE CONTRACT between the plan and an engine. Engines are argv, environment and HTTP; they are never imported.

A new engine is one file in serving/engines/, one entry in its ENGINES, one requirement set and one recorded
test. deploy/ never imports it: the engines are handed to ``plan()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import msgspec

from deploy.hardware import Gpu, Hardware, Link
from deploy.lockfile import Variant
from deploy.memory import Term

Device = Literal["gpu", "cpu"]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """How to start a process: the full argv and the *whole* environment beyond PATH, HOME and locale."""

    argv: tuple[str, ...]
    env: dict[str, str]


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """A change that makes a refused plan an accepted one, as numbers: what ``change`` says in words."""

    context: int | None = None
    """For models.toml or ``--context``: at most so many tokens."""
    slots: int | None = None
    memory_bytes: int | None = None
    """Free RAM that is needed, or free memory of each of ``gpus`` GPUs."""
    gpus: int | None = None

    @property
    def wishes(self) -> str:
        """The part of it that is a change of models.toml, in its words."""
        parts = [f"{name} = {value}" for name, value in (("context", self.context), ("slots", self.slots)) if value]
        return " and ".join(parts)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why an engine cannot run a variant here, and what would change that."""

    reason: str
    change: str
    fix: Fix | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """How one model is spread over GPUs. On a CPU, and on one GPU, all of it is 1."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    """Whole copies behind one address, or, with ``experts``, shared experts."""
    experts: bool = False
    """Experts lie whole on a GPU each instead of being cut."""
    because: str = ""
    doubt: str = ""
    """What about it cannot be known before the start: a limit of the plan."""

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.data


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan promises and the engine is told."""

    context_tokens: int
    """Of one request: prompt and answer together."""
    slots: int
    """Requests served at once."""
    threads: int
    """CPU threads of the engine; 1 on a GPU."""
    kv_cache_bytes: int | None = None
    """On each device. None: not known, and the engine takes what its memory share leaves."""
    split: Split = Split()
    devices: tuple[int, ...] = ()
    """Indices of the GPUs it is given; empty on a CPU."""
    gpu_memory_share: float | None = None
    """Of each GPU's total memory, where the engine works on GPUs (vLLM's gpu-memory-utilization)."""
    batched_tokens: int | None = None
    """Tokens of one step over all requests; None: the engine's own default."""


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
    gpus: tuple[str, ...] = ()
    """As CUDA is told of them: by index in the order of the PCI bus, a MIG slice by its UUID."""
    generation: str | None = None
    """Of the GPUs it is given: what a recipe says for that one alone applies."""
    start_timeout_s: float = 600.0
    """What the plan allows until the first token."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """A failure of an engine, decoded from what it printed."""

    cause: str
    evidence: str
    """The line that says so, as printed."""
    hint: str
    context_tokens: int | None = None
    """The one correction to retry with, where the engine named it."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself, or what was seen of it, once it runs. Bytes are of one device."""

    kv_tokens: int | None = None
    """That fit into its KV cache."""
    kv_bytes: int | None = None
    weights_bytes: int | None = None
    peak_bytes: int | None = None
    """Most memory held so far: resident in RAM, or on the fullest GPU."""
    load_s: float | None = None
    """From its start to its first token."""
    context_tokens: int | None = None
    """Of one request: less than what it was asked for where it was corrected."""
    tokens_per_s: float | None = None
    """Decode speed of one stream."""


class Engine(Protocol):
    """What an adapter offers. All of it is pure."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> Device: ...

    @property
    def version(self) -> str: ...

    @property
    def formats(self) -> tuple[str, ...]:
        """Of weights that it reads."""
        ...

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

    def splits(self, variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
        """Ways to spread the variant over some of these equal GPUs, the fewest first; on a CPU the one way there is."""
        ...

    def kv_bytes(self, variant: Variant, settings: Settings, requests: int) -> int | None:
        """Of one device's KV cache that holds so many whole contexts at once; None where it cannot be known."""
        ...

    def kv_tokens(self, variant: Variant, settings: Settings) -> int | None:
        """That fit into ``settings.kv_cache_bytes``, as the engine will say it; None where it cannot be known."""
        ...

    def memory(self, variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
        """All of one device, the fullest. A KV cache of unknown size has no line: unknown is not zero.

        More context, slots or batched tokens never make any line smaller.
        """
        ...

    def command(self, launch: Launch) -> Command: ...

    def start_timeout_s(self, variant: Variant, hardware: Hardware) -> float:
        """How long it may take to its first token, from the variant's bytes and the disk."""
        ...

    def figures(self, log: str) -> Figures:
        """What it says of itself in the log of a start."""
        ...

    def diagnose(self, log: str) -> Diagnosis | None:
        """The cause in the tail of its log, or None where nothing known was printed."""
        ...
