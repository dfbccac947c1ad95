"""Checks of the ways between GPUs and to them: PCIe lanes, peer access, shared memory of their processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from deploy import output
from deploy.checks import Context, Verdict, ok, skip, together, warn
from deploy.checks.gpu import absent, cards, name
from deploy.hardware import Gpu
from deploy.plan import ModelPlan

SHARED_BYTES = 1 << 30
"""Of NCCL's troubleshooting page (`--shm-size=1g`); vLLM's queues between its processes lie there too, 160 MiB each.
A container has 64 MiB unless told."""


def pcie(context: Context) -> Verdict:
    """Lanes only: an idle GPU lowers the generation of its link to save power, but keeps its width."""
    if reason := absent(context):
        return skip(reason)
    known = [gpu for gpu in cards(context) if gpu.pcie_width and context.hardware.reading(gpu).pcie_width]
    if not known:
        return skip("the width of the PCIe links is unknown")
    fine = ok("all lanes in use; their speed is not judged, as it falls while a GPU is idle")
    return together((_width(context, gpu) for gpu in known), fine)


def _width(context: Context, gpu: Gpu) -> Verdict:
    now, most = context.hardware.reading(gpu).pcie_width or 0, gpu.pcie_width or 0
    if now >= most:
        return ok(name(gpu))
    return warn(
        f"{name(gpu)} uses {now} of {most} PCIe lanes: loading weights, and GPUs that share a model, are slowed down",
        f"sudo lspci -vv -s {gpu.pci or 'BUS-ID'} | grep LnkSta  # reseat the card or its riser, or use another slot",
    )


def peers(context: Context) -> Verdict:
    """Only of GPUs that the plan lets share a model's layers: those exchange something for every layer and token."""
    shared = [model for model in context.models if model.settings.split.tensor > 1]
    if not shared:
        return skip("no model is shared by several GPUs")
    return together((found for model in shared for found in _peers(context, model)), ok("all of them reach each other"))


def _peers(context: Context, model: ModelPlan) -> Iterator[Verdict]:
    group = set(model.settings.devices)
    cut = [link for link in context.hardware.links if {link.first, link.second} <= group and link.peer is False]
    if cut:
        pairs = ", ".join(f"{link.first}-{link.second}" for link in cut)
        yield warn(
            f"{model.model}: GPUs {pairs} cannot read each other's memory, all they share passes through the CPU's",
            "nvidia-smi topo -p2p r  # says why: the chipset, the driver (GeForce cards), or ACS of the BIOS",
        )


def shared_memory(context: Context, path: Path = Path("/dev/shm")) -> Verdict:
    if not any(model.settings.split.gpus > 1 for model in context.models):
        return skip("no model is shared by several GPUs")
    free = shutil.disk_usage(path).free
    seen = f"{output.size(free)} free in `{path}`"
    if free < SHARED_BYTES:
        return warn(
            f"{seen}, engines on several GPUs need {output.size(SHARED_BYTES)}",
            f"sudo mount -o remount,size=8G {path}  # of a container: docker run --shm-size=8g",
        )
    return ok(seen)
