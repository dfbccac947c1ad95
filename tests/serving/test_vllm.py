from __future__ import annotations

import json

import msgspec
import pytest

from deploy.dimensions import Override
from deploy.engine import Settings, Split
from deploy.hardware import Gpu
from deploy.lockfile import File
from serving.engines.vllm import VllmCpu, VllmGpu
from serving.engines.vllm_cpu_memory import DEFAULT_CACHE_BYTES
from tests.serving.engine_cases import (
    GB,
    GLM_5_FP8,
    QWEN3_8B,
    box,
    gpu,
    launch,
    linked,
    links,
    option,
    variant,
)

WEIGHTS = variant("safetensors", size=16 * GB, flags=("--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"))
ON_CPU = Settings(context_tokens=1000, slots=4, threads=6, kv_cache_bytes=4_000_000)
ON_GPU = Settings(
    context_tokens=32768,
    slots=64,
    threads=1,
    kv_cache_bytes=20 * GB,
    split=Split(tensor=2),
    devices=(3, 5),
    gpu_memory_share=0.85,
    batched_tokens=8192,
)


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
    assert option(command.argv, "--tool-call-parser") == "hermes"
    assert json.loads(option(command.argv, "--structured-outputs-config"))["disable_any_whitespace"] is True
    assert "--enable-prompt-tokens-details" in command.argv
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "PYTHONSAFEPATH"):
        assert command.env[name] == "1"
    assert command.env["VLLM_HOST_IP"] == "127.0.0.1"
    assert command.env["HOME"] == "/state"
    assert command.env["VLLM_CACHE_ROOT"] == "/state/vllm"
    assert command.env["VLLM_ENGINE_READY_TIMEOUT_S"] == "1234"


def test_on_the_cpu_the_cache_is_the_planned_one() -> None:
    command = VllmCpu().command(launch(WEIGHTS, ON_CPU))
    assert option(command.argv, "--kv-cache-memory-bytes") == "4000000"
    assert option(command.argv, "--dtype") == "bfloat16"
    assert "--enforce-eager" in command.argv
    assert "--gpu-memory-utilization" not in command.argv
    assert "--max-num-batched-tokens" not in command.argv
    assert command.env["OMP_NUM_THREADS"] == "6"
    assert command.env["PYTHONPATH"] == "/environment/ours"
    assert "CUDA_VISIBLE_DEVICES" not in command.env


def test_on_the_cpu_a_cache_of_unknown_size_is_bounded_and_counted() -> None:
    unknown = msgspec.structs.replace(ON_CPU, kv_cache_bytes=None)
    argv = VllmCpu().command(launch(WEIGHTS, unknown)).argv
    assert option(argv, "--kv-cache-memory-bytes") == str(DEFAULT_CACHE_BYTES)
    lines = [term.bytes for term in VllmCpu().memory(WEIGHTS, unknown, box())]
    assert DEFAULT_CACHE_BYTES in lines


def test_on_gpus_the_plans_share_ranks_and_devices_are_handed_on() -> None:
    given = msgspec.structs.replace(launch(WEIGHTS, ON_GPU), gpus=("3", "MIG-5"))
    command = VllmGpu().command(given)
    assert option(command.argv, "--tensor-parallel-size") == "2"
    assert option(command.argv, "--gpu-memory-utilization") == "0.85"
    assert option(command.argv, "--max-num-batched-tokens") == "8192"
    for name in ("--pipeline-parallel-size", "--data-parallel-size", "--enable-expert-parallel", "--enforce-eager"):
        assert name not in command.argv
    # The engine measures for itself what its share leaves: what is planned for the cache is a prediction.
    assert "--kv-cache-memory-bytes" not in command.argv
    assert command.env["CUDA_VISIBLE_DEVICES"] == "3,MIG-5"
    assert command.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "VLLM_TARGET_DEVICE" not in command.env


def test_a_split_becomes_flags_and_slots_are_counted_per_copy() -> None:
    split = Split(tensor=4, pipeline=2, data=3, experts=True)
    model = variant("safetensors", flags=("--enable-expert-parallel",))
    argv = VllmGpu().command(launch(model, msgspec.structs.replace(ON_GPU, split=split))).argv
    assert option(argv, "--tensor-parallel-size") == "4"
    assert option(argv, "--pipeline-parallel-size") == "2"
    assert option(argv, "--data-parallel-size") == "3"
    assert option(argv, "--max-num-seqs") == "22"
    # Its recipe has the flag too.
    assert argv.count("--enable-expert-parallel") == 1


def test_a_generations_own_flags_and_variables_apply_to_it_alone() -> None:
    hopper = Override(generation="hopper", args=("--kv-cache-dtype", "fp8"), env={"VLLM_USE_DEEP_GEMM": "0"})
    mine = Override(generation="blackwell", args=("--moe-backend", "marlin"), env={"PYTHONNOUSERSITE": "0"})
    model = variant("safetensors", flags=("--kv-cache-dtype", "auto"), overrides=(hopper, mine))
    command = VllmGpu().command(launch(model, ON_GPU, generation="hopper"))
    values = [word for flag, word in zip(command.argv, command.argv[1:], strict=False) if flag == "--kv-cache-dtype"]
    assert values == ["auto", "fp8"]
    assert command.env["VLLM_USE_DEEP_GEMM"] == "0"
    assert "--moe-backend" not in command.argv
    other = VllmGpu().command(launch(model, ON_GPU, generation="blackwell"))
    assert option(other.argv, "--moe-backend") == "marlin"
    assert "VLLM_USE_DEEP_GEMM" not in other.env
    assert other.env["PYTHONNOUSERSITE"] == "1"


def test_a_repositorys_code_runs_only_where_all_of_it_is_among_the_locked_files() -> None:
    code = tuple(File(path=name, size=1, sha256="0" * 64) for name in ("modeling.py", "tokenization.py"))
    named = msgspec.structs.replace(WEIGHTS, code=code)
    half = msgspec.structs.replace(named, files=(*WEIGHTS.files, code[0]))
    whole = msgspec.structs.replace(named, files=(*WEIGHTS.files, *code))
    trusting = ["--trust-remote-code" in VllmCpu().command(launch(one, ON_CPU)).argv for one in (named, half, whole)]
    assert trusting == [False, False, True]


GGUF = variant("gguf", precision="Q4_K_M")
SPARSE = variant("safetensors", precision="fp8", architecture="DeepseekV32ForCausalLM")
EDITED = variant("safetensors", flags=("--tool-call-parser", "hermes", "--host=0.0.0.0"))
AMD = Gpu(index=0, vendor="amd", name="MI300X", memory_total_bytes=192 * GB)
SPLIT_BY_MIG = msgspec.structs.replace(gpu(), mig=True)
SLICE = msgspec.structs.replace(gpu(index=1), slice_of=0)


@pytest.mark.parametrize(
    ("engine", "weights", "hardware", "reason"),
    [
        (VllmGpu(), WEIGHTS, box(), "there is no GPU"),
        (VllmGpu(), WEIGHTS, box(AMD), "MI300X: not used by this build"),
        (VllmGpu(), WEIGHTS, box(SPLIT_BY_MIG), "GPU 0 is in MIG mode, and no slice"),
        (VllmGpu(), WEIGHTS, box(gpu_error="NVML: driver not loaded"), "cannot be read: NVML: driver not loaded"),
        (VllmGpu(), WEIGHTS, box(gpu(), cuda_major=12), "driver 595.10 runs CUDA 12, this build needs 13"),
        (VllmGpu(), WEIGHTS, box(gpu(), gpu("7.5", index=1)), "GPU 1 (H100) has compute capability 7.5, bfloat16"),
        (VllmGpu(), SPARSE, box(gpu("8.0")), "the sparse attention of DeepseekV32ForCausalLM needs 9.0"),
        (VllmGpu(), GGUF, box(gpu()), "vLLM reads no gguf"),
        (VllmGpu(), EDITED, box(gpu()), "the lock hands `--host` to vLLM"),
        (VllmGpu(), WEIGHTS, box(gpu(), platform="darwin-arm64"), "no build for darwin-arm64"),
        (VllmGpu(), variant("safetensors", precision="bitsandbytes"), box(gpu()), "left vLLM for vllm-bnb-plugin"),
        (VllmCpu(), variant("safetensors", precision="bitsandbytes"), box(), "left vLLM for vllm-bnb-plugin"),
        (VllmCpu(), GGUF, box(), "vLLM reads no gguf"),
        (VllmCpu(), EDITED, box(), "the lock hands `--host` to vLLM"),
        (VllmCpu(), WEIGHTS, box(isa=("avx",)), "the CPU lacks avx2"),
        (VllmCpu(), WEIGHTS, box(platform="darwin-arm64"), "no build for darwin-arm64"),
        (VllmCpu(), SPARSE, box(), "no sparse attention on a CPU (DeepseekV32ForCausalLM)"),
        *(
            (VllmCpu(), variant("safetensors", precision=name), box(), f"vLLM has no CPU kernel for {name}")
            for name in ("nvfp4", "NVFP4", "mxfp4", "mxfp8", "fp4")
        ),
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
        (VllmGpu(), WEIGHTS, box(SPLIT_BY_MIG, SLICE)),
        (VllmGpu(), WEIGHTS, box(gpu(), msgspec.structs.replace(AMD, index=1))),
        (VllmGpu(), variant("safetensors", precision="int4"), box(gpu("7.5"))),
        (VllmGpu(), SPARSE, box(gpu())),
        (VllmGpu(), SPARSE, box(gpu(None))),
        (VllmGpu(), GLM_5_FP8, box(*linked(8))),
        *(
            (VllmGpu(), variant("safetensors", precision=name), box(gpu("10.0")))
            for name in ("nvfp4", "mxfp4", "mxfp8")
        ),
        *((VllmCpu(), variant("safetensors", precision=name), box()) for name in ("fp8", "int8", "int4", "fp16")),
        (VllmCpu(), WEIGHTS, box()),
        (VllmCpu(), WEIGHTS, box(isa=())),
        (VllmCpu(), WEIGHTS, box(platform="linux-aarch64", isa=("asimd",))),
    ],
)
def test_what_it_can_run_or_what_is_not_known_is_not_refused(engine, weights, hardware) -> None:
    assert engine.refuse(weights, hardware) is None


def test_it_is_spread_over_gpus_and_never_over_a_cpu() -> None:
    over = VllmGpu().splits(QWEN3_8B, linked(2), links(2, nvlink=True))
    assert [split.tensor for split in over] == [1, 2]
    (alone,) = VllmCpu().splits(QWEN3_8B, linked(2), ())
    assert alone.gpus == 1
    assert alone.because


def test_a_cache_and_its_tokens_are_those_of_the_device() -> None:
    settings = Settings(context_tokens=4096, slots=2, threads=1)
    # 256 blocks of 16 tokens each, or 32 of 128, and the one that stays empty.
    assert VllmGpu().kv_bytes(QWEN3_8B, settings, 1) == (256 + 1) * 16 * 147_456
    assert VllmCpu().kv_bytes(QWEN3_8B, settings, 1) == (32 + 1) * 128 * 147_456
    held = msgspec.structs.replace(settings, kv_cache_bytes=147_456 * 65_536)
    assert VllmGpu().kv_tokens(QWEN3_8B, held) == VllmCpu().kv_tokens(QWEN3_8B, held) == 65_536


def test_memory_is_that_of_the_device() -> None:
    names = {term.name for term in VllmGpu().memory(QWEN3_8B, ON_GPU, box(*linked(8)))}
    assert names >= {"weights", "KV cache", "CUDA libraries", "CUDA graphs", "activations", "communication"}
    assert not any(term.name.startswith("CUDA") for term in VllmCpu().memory(QWEN3_8B, ON_CPU, box()))


@pytest.mark.parametrize(
    ("engine", "size", "rotational", "expected"),
    [
        # 16 GB at 200 MB/s from an SSD, at 50 MB/s from any other disk.
        (VllmGpu(), 16 * GB, False, 900 + 80),
        (VllmGpu(), 16 * GB, True, 900 + 320),
        (VllmGpu(), 16 * GB, None, 900 + 320),
        (VllmCpu(), 1 * GB, False, 300 + 5),
        # The recipes give the largest models an hour; from a disk the bytes alone take longer.
        (VllmGpu(), 960 * GB, False, 3600),
        (VllmGpu(), 960 * GB, True, 900 + 19_200),
    ],
)
def test_a_start_may_take_as_long_as_its_bytes_need(engine, size, rotational, expected) -> None:
    hardware = box(gpu(), rotational=rotational)
    assert engine.start_timeout_s(variant("safetensors", size=size), hardware) == expected


def test_what_it_says_of_itself_is_read() -> None:
    line = "INFO [kv_cache_utils.py:2327] CPU KV cache size: 4,224 tokens, Maximum concurrency for 2,048 tokens per"
    assert VllmCpu().figures(line).kv_tokens == VllmGpu().figures(line).kv_tokens == 4224


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


@pytest.mark.parametrize("length", ["0", "9" * 13, "9" * 5000], ids=["0", "13 digits", "5000 digits"])
def test_a_length_that_no_context_has_corrects_nothing(length: str) -> None:
    line = f"max seq len (8192), (1 GiB KV cache is needed. The estimated maximum model length is {length}."
    diagnosis = VllmCpu().diagnose(f"ERROR {line}")
    assert diagnosis
    assert diagnosis.context_tokens is None
    assert diagnosis.cause == "no memory is left for the KV cache"


def test_a_diagnosis_can_be_printed() -> None:
    diagnosis = VllmCpu().diagnose("No module named '\x1b[2Jx\x07'")
    assert diagnosis
    assert diagnosis.cause == "the engine's environment lacks `[2Jx`"
    assert diagnosis.evidence.isprintable()


def test_a_log_without_a_known_failure_is_not_guessed_at() -> None:
    assert VllmCpu().diagnose("INFO:     Application startup complete.\n") is None
