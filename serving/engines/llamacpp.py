"""llama.cpp on the CPU, from the xllamacpp wheel. GGUF only.

Wheels of this version: Linux x86-64 and arm64 (also macOS arm64 and Windows, where our service does not run).
The x86-64 one is built for AVX2 (its build flags and a run on such a CPU, 2026-11).
"""

from __future__ import annotations

import re
from pathlib import Path

from deploy.engine import Command, Device, Diagnosis, Figures, Launch, Refusal, Settings, Split
from deploy.hardware import Gpu, Hardware, Link
from deploy.lockfile import Variant
from deploy.memory import Term, weights_bytes
from serving.engines import llamacpp_memory
from serving.engines.symptoms import Symptom, match

PLATFORMS = ("linux-x86_64", "linux-aarch64")
ISA = {"avx2", "fma", "f16c", "bmi2"}
SERVER = "ours/llamacpp_server.py"
PROMPT_CACHE_BYTES = 0
"""Our server turns it off."""
START_S = 60.0
"""Measured 1.9 s for 0.5 GB; a busy box may be ten times slower."""
MIB = 1 << 20
LOADS = "loading model '"
BUFFER = r"%s buffer size = +([0-9]{1,11}\.[0-9]{1,4}) MiB"
SLOTS = re.compile(r"n_slots = ([0-9]{1,9}), n_ctx_slot = ([0-9]{1,12})\b")

SYMPTOMS = (
    Symptom(
        r"failed to open GGUF file '(?P<file>[^']*)'",
        "the weights cannot be opened: {file}",
        "ownweights verify  # then: make deploy",
    ),
    Symptom(
        r"invalid magic characters|not within the file bounds|corrupted or incomplete",
        "the weights are damaged",
        "ownweights verify  # names the file; then: make deploy",
    ),
    Symptom(
        r"unknown model architecture: '(?P<name>[^']*)'",
        "this llama.cpp does not know the architecture {name}",
        "choose another model in models.toml, or a newer ownweights",
    ),
    Symptom(
        r"failed to allocate|insufficient memory|bad_alloc|Cannot allocate memory",
        "not enough memory",
        "lower context or slots of the model in models.toml, or free memory",
    ),
    Symptom(
        r"couldn't bind HTTP server socket",
        "the unix socket cannot be opened",
        "ownweights paths  # the sockets folder must be writable",
    ),
    Symptom(
        r"No module named '(?P<name>[^']*)'|cannot open shared object file",
        "the engine's environment is damaged",
        "remove its folder under `ownweights paths` environments, then: make deploy",
    ),
)


class LlamaCpp:
    """The CPU engine of the first run: small, quick to start, best at one stream."""

    name = "llamacpp"
    formats = ("gguf",)
    device: Device = "cpu"
    version = "2026.10.11549"
    requirements = Path(__file__).with_name("requirements") / "llamacpp.txt"
    cancels_whole_answers = False
    """It looks for a closed connection after a second in which no request had a result: never, on a busy box."""

    @property
    def files(self) -> dict[str, str]:
        return {SERVER: Path(__file__).with_name("llamacpp_server.py").read_text(encoding="utf-8")}

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        if variant.format != "gguf":
            return Refusal(reason=f"llama.cpp reads no {variant.format}", change="a gguf variant of the model")
        if hardware.platform not in PLATFORMS:
            return Refusal(
                reason=f"there is no build for {hardware.platform}", change=f"a box with {' or '.join(PLATFORMS)}"
            )
        missing = ISA.difference(hardware.cpu.isa)
        if hardware.platform == "linux-x86_64" and hardware.cpu.isa and missing:
            return Refusal(
                reason=f"the CPU lacks {', '.join(sorted(missing))}", change="an x86-64 CPU of 2013 (Haswell) or newer"
            )
        return None

    def splits(self, variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
        return (Split(),)

    def kv_bytes(self, variant: Variant, settings: Settings, requests: int) -> int | None:
        cache = variant.facts.cache
        return llamacpp_memory.kv_bytes(cache, settings.context_tokens, requests) if cache else None

    def kv_tokens(self, variant: Variant, settings: Settings) -> int | None:
        """Whatever they take: it makes room for every slot, or does not start."""
        return settings.slots * llamacpp_memory.cells(settings.context_tokens)

    def memory(self, variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
        return llamacpp_memory.terms(variant, settings, prompt_cache_bytes=PROMPT_CACHE_BYTES)

    def command(self, launch: Launch) -> Command:
        settings = launch.settings
        return Command(
            argv=(
                *(f"{launch.environment}/bin/python", f"{launch.environment}/{SERVER}"),
                # No aliases: it serves any name a request has, and answers with the alphabetically first it knows.
                *("--model", launch.weights, "--name", launch.model, "--socket", launch.socket),
                *("--context", str(settings.context_tokens), "--slots", str(settings.slots)),
                *("--threads", str(settings.threads)),
            ),
            env={"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"},
        )

    def start_timeout_s(self, variant: Variant, hardware: Hardware) -> float:
        return START_S + weights_bytes(variant) / hardware.disk.read_bytes_per_s

    def figures(self, log: str) -> Figures:
        """Of the last start in it. Bytes are as exact as it prints them: to a hundredth of a MiB."""
        start = log.rpartition(LOADS)[2]
        slots = SLOTS.search(start)
        return Figures(
            kv_tokens=int(slots[1]) * int(slots[2]) if slots else None,
            kv_bytes=_buffers("KV", start),
            weights_bytes=_buffers("model", start),
        )

    def diagnose(self, log: str) -> Diagnosis | None:
        return match(SYMPTOMS, log)


def _buffers(kind: str, log: str) -> int | None:
    """Bytes of all buffers of that kind; None where the log has none."""
    found = re.findall(BUFFER % kind, log)
    return round(sum(map(float, found)) * MIB) if found else None
