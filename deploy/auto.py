"""`auto`: the best catalogue row that fits this box, answers at a usable speed and can be reached from here.

Order of quality: total parameters, the one fact that every row states (its source is the row's own). Licence
conditions, memory, predicted speed and reach then pass rows over, each with its reason.
"""

from __future__ import annotations

import msgspec

from deploy import catalog, hub, output
from deploy.catalog import Row
from deploy.errors import PlanError
from deploy.hardware import Hardware

MEMORY_SHARE = 0.7
"""Of free memory, weights and one context together: room for other slots, other programs and the page cache."""
CONTEXT_TOKENS = 8192
USABLE_TOKENS_PER_S = 15.0
"""Per stream; about the pace of fast reading."""
CPU_BYTES_PER_S_PER_CORE = 8e9
"""Decode reads every weight once per token. The lower end of what Q4 files of 0.5B and 1.5B gave on the CPU
engine on 2 cores (8 to 10 GB/s per core, 2026-11): predicted, until this box has been measured."""
CPU_BYTES_PER_S = 40e9
"""Two memory channels, which most boxes without a server board have: predicted as well."""


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is better by the order of quality, and why it was not taken."""

    id: str
    reason: str
    only_reach: bool = False
    """The Hub would make it the choice."""


class Best(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    reason: str
    passed: tuple[Passed, ...]


def choose(hardware: Hardware, model: str) -> tuple[str, str]:
    """Catalogue id and reason for the model of that name. Says loudly when no Hub can be reached."""
    reachable = hub.reachable()
    best = pick(catalog.rows(), hardware, reachable=reachable)
    missed = [passed.id for passed in best.passed if passed.only_reach]
    if not reachable:
        instead = f" instead of `{missed[0]}`" if missed else ""
        output.warn(
            f"the Hub ({hub.address()}) cannot be reached: `{model}` is `{best.id}`{instead}, from the package index. "
            f"Later: ownweights lock --upgrade {model} && make deploy",
            about="hub",
        )
    return best.id, best.reason


def pick(rows: tuple[Row, ...], hardware: Hardware, *, reachable: bool) -> Best:
    """Pure. Raises PlanError where no row is left, naming the reason of each."""
    passed: list[Passed] = []
    for row in sorted(rows, key=lambda row: -row.total_params_b):
        reason = _unfit(row, hardware)
        away = None if reachable or _elsewhere(row) else "only the Hub has it, and it cannot be reached"
        if reason is None and away is None:
            return Best(id=row.id, reason=_because(row, hardware, passed), passed=tuple(passed))
        passed.append(Passed(id=row.id, reason=reason or away or "", only_reach=reason is None))
    listed = "".join(f"\n  {entry.id}: {entry.reason}" for entry in passed)
    raise PlanError(f"no catalogue row fits this box:{listed}", hint='name one: source = "hf:org/repo" in models.toml')


def speed(size_bytes: int, hardware: Hardware) -> float:
    """Predicted decode speed of one stream on the CPU, tokens per second."""
    return min(hardware.cores * CPU_BYTES_PER_S_PER_CORE, CPU_BYTES_PER_S) / size_bytes


def _unfit(row: Row, hardware: Hardware) -> str | None:
    if row.licence.commercial != "yes":
        return f"its licence ({row.licence.spdx}) has conditions or is not confirmed"
    size = _size(row, hardware)
    if size is None:
        return "no file of it is pinned for this box, so its size is not known before it is locked"
    cache = row.kv.bytes_per_token_bf16 * CONTEXT_TOKENS if row.kv else 0
    free = _free(hardware)
    if free is not None and size + cache > free * MEMORY_SHARE:
        return f"{output.size(size + cache)} is more than {MEMORY_SHARE:.0%} of {output.size(free)} free memory"
    if not hardware.gpus and speed(size, hardware) < USABLE_TOKENS_PER_S:
        return f"predicted {speed(size, hardware):.0f} tokens/s per stream, fewer than {USABLE_TOKENS_PER_S:.0f}"
    return None


def _size(row: Row, hardware: Hardware) -> int | None:
    """GPU: 2 bytes per parameter of a bfloat16 repository. CPU: the pinned gguf file."""
    if hardware.gpus:
        return round(row.total_params_b * 2e9) if row.native_dtype == "bfloat16" and row.commit else None
    return next((gguf.bytes for gguf in row.gguf if gguf.pinned), None)


def _free(hardware: Hardware) -> int | None:
    if not hardware.gpus:
        return hardware.memory_free_bytes
    return sum(gpu.memory_free_bytes or 0 for gpu in hardware.gpus)


def _elsewhere(row: Row) -> bool:
    """Another place than the Hub has its bytes."""
    return any(gguf.pinned and gguf.index for gguf in row.gguf)


def _because(row: Row, hardware: Hardware, passed: list[Passed]) -> str:
    text = f"auto: {row.id} is the largest catalogue row for this box"
    if not hardware.gpus and (size := _size(row, hardware)):
        text += f" (predicted {speed(size, hardware):.0f} tokens/s per stream)"
    return f"{text}; next larger, {passed[-1].id}: {passed[-1].reason}" if passed else text
