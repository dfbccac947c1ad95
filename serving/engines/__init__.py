"""Every engine there is. The order is the order of preference, and this tuple the only registration."""

from __future__ import annotations

from deploy.engine import Engine
from serving.engines.llamacpp import LlamaCpp
from serving.engines.vllm import VllmCpu, VllmGpu

ENGINES: tuple[Engine, ...] = (VllmGpu(), LlamaCpp(), VllmCpu())
