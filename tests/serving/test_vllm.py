from __future__ import annotations

import json

import msgspec
import pytest

from deploy import catalog
from deploy.engine import Settings
from deploy.lockfile import File
from serving.engines.vllm import CPU_CACHE_BYTES, VllmCpu, VllmGpu
from tests.serving.engine_cases import GB, box, gpu, launch, option, variant

WEIGHTS = variant("safetensors", size=16 * GB, flags=("--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"))
ON_CPU = Settings(context_tokens=1000, slots=4, threads=6, kv_cache_bytes=4_000_000)
ON_GPU = Settings(context_tokens=32768, slots=64, threads=1, tensor_parallel=2, gpu_memory_share=0.85)


@pytest.mark.parametrize(("engine", "settings"), [(VllmCpu(), ON_CPU), (VllmGpu(), ON_GPU)])
def test_both_builds_serve_a_local_folder_on_a_socket_and_stay_offline(engine, settings) -> None:
    command = engine.command(launch(WEIGHTS, settings))
    assert command.argv[:5] == ("/environment/bin/python", "-m", "vllm.entrypoints.cli.main", "serve", "/weights")
    assert option(command.argv, "--uds") == "/run/e.sock"
    names = command.argv.index("--served-model-name")
    assert command.argv[names + 1 : names + 4] == ("chat", "small", "fast")
    assert option(command.argv, "--max-model-len") == str(settings.context_tokens)
    assert option(command.argv, "--max-num-seqs") == str(settings.slots)
    assert option(command.argv, "--generation-config") == "vllm"
    assert json.loads(option(command.argv, "--structured-outputs-config"))["disable_any_whitespace"] is True
    assert "--enable-prompt-tokens-details" in command.argv
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "PYTHONSAFEPATH"):
        assert command.env[name] == "1"
    assert command.env["VLLM_HOST_IP"] == "127.0.0.1"
    assert command.env["HOME"] == "/state"
    assert command.env["VLLM_CACHE_ROOT"] == "/state/vllm"
    assert float(command.env["VLLM_ENGINE_READY_TIMEOUT_S"]) == int(engine.start_timeout_s(WEIGHTS))


def test_a_tool_parser_is_switched_on_once() -> None:
    argv = VllmCpu().command(launch(WEIGHTS, ON_CPU)).argv
    assert option(argv, "--tool-call-parser") == "hermes"
    assert argv.count("--enable-auto-tool-choice") == 1
    ready = variant("safetensors", flags=("--enable-auto-tool-choice", "--tool-call-parser", "glm47"))
    assert VllmCpu().command(launch(ready, ON_CPU)).argv.count("--enable-auto-tool-choice") == 1
    assert "--enable-auto-tool-choice" not in VllmCpu().command(launch(variant("safetensors"), ON_CPU)).argv


def test_on_the_cpu_the_cache_holds_every_slots_whole_blocks_and_the_empty_one() -> None:
    command = VllmCpu().command(launch(WEIGHTS, ON_CPU))
    # 1000 bytes per token; 1000 tokens are 8 blocks of 128.
    assert option(command.argv, "--kv-cache-memory-bytes") == str(1000 * 128 * (8 * 4 + 1))
    assert option(command.argv, "--dtype") == "bfloat16"
    assert "--enforce-eager" in command.argv
    assert "--gpu-memory-utilization" not in command.argv
    assert command.env["OMP_NUM_THREADS"] == "6"
    assert command.env["PYTHONPATH"] == "/environment/ours"


def test_on_the_cpu_a_cache_of_unknown_size_is_bounded_and_counted() -> None:
    unknown = Settings(context_tokens=1000, slots=4, threads=6)
    argv = VllmCpu().command(launch(WEIGHTS, unknown)).argv
    assert option(argv, "--kv-cache-memory-bytes") == str(CPU_CACHE_BYTES)
    known = VllmCpu().overhead_bytes(WEIGHTS, ON_CPU)
    assert VllmCpu().overhead_bytes(WEIGHTS, unknown) == known + CPU_CACHE_BYTES


def test_on_gpus_the_plans_share_and_ranks_are_handed_on() -> None:
    command = VllmGpu().command(launch(WEIGHTS, ON_GPU))
    assert option(command.argv, "--tensor-parallel-size") == "2"
    assert option(command.argv, "--gpu-memory-utilization") == "0.85"
    assert "--kv-cache-memory-bytes" not in command.argv
    assert "--enforce-eager" not in command.argv
    assert command.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "VLLM_TARGET_DEVICE" not in command.env


def test_a_repositorys_code_runs_only_where_all_of_it_is_among_the_locked_files() -> None:
    code = tuple(File(path=name, size=1, sha256="0" * 64) for name in ("modeling.py", "tokenization.py"))
    named = msgspec.structs.replace(WEIGHTS, code=code)
    half = msgspec.structs.replace(named, files=(*WEIGHTS.files, code[0]))
    whole = msgspec.structs.replace(named, files=(*WEIGHTS.files, *code))
    trusting = ["--trust-remote-code" in VllmCpu().command(launch(one, ON_CPU)).argv for one in (named, half, whole)]
    assert trusting == [False, False, True]


@pytest.mark.parametrize("flag", ["--trust-remote-code", "--host=0.0.0.0", "-tp", "--tool-parser-plugin"])
def test_a_lock_cannot_hand_over_flags_that_are_no_recipes(flag: str) -> None:
    refusal = VllmGpu().refuse(variant("safetensors", flags=("--tool-call-parser", "hermes", flag)), box(gpu()))
    assert refusal is not None
    assert flag.partition("=")[0] in refusal.reason


@pytest.mark.parametrize("row", [row for row in catalog.rows() if row.vllm], ids=lambda row: row.id)
def test_every_recipe_of_the_catalogue_may_be_handed_over(row: catalog.Row) -> None:
    assert VllmGpu().refuse(variant("safetensors", flags=row.facts.vllm_args), box(gpu())) is None


GGUF = variant("gguf")
SPARSE = variant("safetensors", architecture="DeepseekV32ForCausalLM")


@pytest.mark.parametrize(
    ("engine", "weights", "hardware", "reason"),
    [
        (VllmGpu(), WEIGHTS, box(), "there is no GPU"),
        (VllmGpu(), WEIGHTS, box(gpu_error="NVML: driver not loaded"), "cannot be read: NVML: driver not loaded"),
        (VllmGpu(), WEIGHTS, box(gpu(), cuda_major=12), "driver 595.10 runs CUDA 12, this build needs 13"),
        (VllmGpu(), WEIGHTS, box(gpu(), gpu("7.5", index=1)), "GPU 1 (H100) has compute capability 7.5"),
        (VllmGpu(), GGUF, box(gpu()), "vLLM reads no gguf"),
        (VllmGpu(), WEIGHTS, box(gpu(), platform="darwin-arm64"), "no build for darwin-arm64"),
        (VllmCpu(), GGUF, box(), "vLLM reads no gguf"),
        (VllmCpu(), WEIGHTS, box(isa=("avx",)), "the CPU lacks avx2"),
        (VllmCpu(), WEIGHTS, box(platform="darwin-arm64"), "no build for darwin-arm64"),
        (VllmCpu(), SPARSE, box(), "no sparse attention on a CPU (DeepseekV32ForCausalLM)"),
    ],
)
def test_what_it_cannot_run_is_refused_with_what_would_change_that(engine, weights, hardware, reason) -> None:
    refusal = engine.refuse(weights, hardware)
    assert refusal
    assert reason in refusal.reason
    assert refusal.change


@pytest.mark.parametrize(
    ("engine", "weights", "hardware"),
    [
        (VllmGpu(), WEIGHTS, box(gpu())),
        (VllmGpu(), WEIGHTS, box(gpu("8.0"))),
        (VllmGpu(), WEIGHTS, box(gpu("10.0"), platform="linux-aarch64")),
        (VllmGpu(), WEIGHTS, box(gpu(None), cuda_major=None)),
        (VllmGpu(), SPARSE, box(gpu())),
        (VllmCpu(), WEIGHTS, box()),
        (VllmCpu(), WEIGHTS, box(isa=())),
        (VllmCpu(), WEIGHTS, box(platform="linux-aarch64", isa=("asimd",))),
    ],
)
def test_what_it_can_run_or_what_is_not_known_is_not_refused(engine, weights, hardware) -> None:
    assert engine.refuse(weights, hardware) is None


def test_every_gpu_adds_its_own_runtime() -> None:
    one = Settings(context_tokens=1, slots=1, threads=1)
    two = Settings(context_tokens=1, slots=1, threads=1, tensor_parallel=2)
    engine = VllmGpu()
    assert engine.overhead_bytes(WEIGHTS, two) - engine.overhead_bytes(WEIGHTS, one) == 2 * GB


# Lines of 0.32 on the CPU where they were seen, of 0.33's code elsewhere.
FAILURES = {
    "(EngineCore pid=8070) ERROR 11-24 08:24:23 [core.py:1510] ValueError: To serve at least one request with the "
    "model's max seq len (16384), (0.02 GiB KV cache is needed, which is larger than the available KV cache memory "
    "(0.0 GiB). Based on the available memory, the estimated maximum model length is 1792.": ("context of 1792", 1792),
    "  Value error, User-specified max_model_len (99999) is greater than the derived max_model_len "
    "(max_position_embeddings=32768.0 or model_max_length=None in model's config.json).": ("context of 32768", 32768),
    "(EngineCore pid=8375) ERROR 11-24 08:24:50 [core.py:1510] safetensors._safetensors_rust.SafetensorError: Error "
    "while deserializing header: incomplete metadata, file not fully covered": ("damaged", None),
    "RuntimeError: Cannot find any model weights with `/snapshot`": ("no weights in /snapshot", None),
    "  Value error, Model architectures ['Qwen99ForCausalLM'] are not supported for now.": ("['Qwen99For", None),
    "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory utilization "
    "(0.92, 72.9 GiB).": ("memory of cuda:0: 3.1/79.2 GiB free", None),
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`": ("KV cache", None),
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": ("not enough GPU memory", None),
    "ModuleNotFoundError: No module named 'torchvision'": ("lacks `torchvision`", None),
    "ImportError: libcudart.so.13: cannot open shared object file": ("driver is too old", None),
    "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).": ("40 att", None),
    "(EngineCore pid=1) ERROR 11-24 08:24:50 [core.py:1510] AssertionError: nobody has seen this": ("nobody has", None),
}


@pytest.mark.parametrize(("line", "expected"), FAILURES.items())
def test_its_failures_are_understood(line: str, expected: tuple[str, int | None]) -> None:
    end = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    diagnosis = VllmCpu().diagnose(f"(APIServer pid=1) INFO starting\n{line}\n{end}\n")
    assert diagnosis
    cause, context = expected
    assert cause in diagnosis.cause
    assert diagnosis.evidence == line.strip()[:300]
    assert diagnosis.context_tokens == context
    assert diagnosis.hint


def test_a_log_without_a_known_failure_is_not_guessed_at() -> None:
    assert VllmCpu().diagnose("INFO:     Application startup complete.\n") is None
