"""NVML as we ask it: a call that fails, or that the driver or the binding is too old for, answers None.

Source: the NVML API reference; the Python binding is nvidia-ml-py.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, NamedTuple

FOREIGN = (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, ctypes.ArgumentError)
"""What a binding of another version raises, or a name that is no text. It must cost one fact, not the other GPUs."""

MEMORY_V2 = 0x02000028
"""nvmlMemory_v2: size and version of the structure that tells the driver's reserve apart."""


@dataclass(frozen=True)
class Device:
    """What has a handle: a GPU, or a slice of one. ``board`` is the handle of the whole GPU."""

    index: int
    handle: Any
    board: Any
    slice_of: int | None = None


class Memory(NamedTuple):
    """Bytes. Neither ``free`` nor ``used`` holds what the driver keeps for itself: that is the rest of the total."""

    total: int | None = None
    free: int | None = None
    used: int | None = None


class Nvml:
    """The binding, or a stand-in for it."""

    def __init__(self, binding: Any) -> None:
        self.binding = binding
        self.failures: tuple[type[Exception], ...] = (binding.NVMLError, *FOREIGN)

    def ask(self, call: str, *arguments: Any) -> Any:
        try:
            return getattr(self.binding, call)(*arguments)
        except self.failures:
            return None

    def memory(self, device: Device) -> Memory:
        found = self.ask("nvmlDeviceGetMemoryInfo", device.handle, MEMORY_V2)
        if found is not None:
            return Memory(found.total, found.free, found.used)
        # The first version counts the driver's part as used: by whom cannot be told there.
        found = self.ask("nvmlDeviceGetMemoryInfo", device.handle)
        return Memory() if found is None else Memory(found.total, found.free)
