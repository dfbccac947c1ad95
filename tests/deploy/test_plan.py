"""The plan: who is chosen, why, and why nobody else was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deploy import config, plan
from deploy.engine import Refusal
from deploy.errors import PlanError
from deploy.hardware import Hardware
from deploy.lockfile import Lock
from deploy.plan import Layout, Plan
from tests.deploy.boxes import GB, StubEngine, box, gpu, lock, variant

VLLM_GPU = StubEngine("vllm", "gpu", "safetensors")
LLAMACPP = StubEngine("llamacpp", "cpu", "gguf")
VLLM_CPU = StubEngine("vllm", "cpu", "safetensors")
ENGINES = (VLLM_GPU, LLAMACPP, VLLM_CPU)
NO_GPU = StubEngine("vllm", "gpu", "safetensors", Refusal(reason="no GPU found", change="a GPU"))
CPU_BOX = (NO_GPU, LLAMACPP, VLLM_CPU)
BOTH = lock(variant(), variant(kind="safetensors", precision="bf16"))
LAYOUT = Layout(
    weights=lambda variant: Path("/cache") / variant.key,
    environment=lambda engine: Path("/environments") / engine.name,
    sockets=Path("/run"),
    state=Path("/state"),
    logs=Path("/logs"),
)


def make(
    text: str, locked: Lock = BOTH, hardware: Hardware | None = None, engines: tuple[StubEngine, ...] = ENGINES
) -> Plan:
    return plan.make(config.parse(f'[[model]]\nname = "chat"\n{text}'), locked, hardware or box(), engines, LAYOUT)


def test_a_gpu_box_gets_vllm() -> None:
    (chat,) = make("", hardware=box(gpus=(gpu(),))).models
    assert (chat.engine, chat.device, chat.variant) == ("vllm", "gpu", "safetensors/bf16")
    assert "NVIDIA H100" in chat.because[0]


def test_a_cpu_box_gets_the_first_cpu_engine_and_every_other_pair_has_its_reason() -> None:
    (chat,) = make("", engines=CPU_BOX).models
    assert (chat.engine, chat.device) == ("llamacpp", "cpu")
    assert [(entry.what, entry.reason) for entry in chat.rejected] == [
        ("vllm on gpu, gguf/Q4_K_M", "reads safetensors only"),
        ("vllm on gpu, safetensors/bf16", "no GPU found"),
        ("llamacpp on cpu, safetensors/bf16", "reads gguf only"),
        ("vllm on cpu, gguf/Q4_K_M", "reads safetensors only"),
        ("vllm on cpu, safetensors/bf16", "llamacpp on cpu, gguf/Q4_K_M is preferred and fits"),
    ]
    assert all(entry.change for entry in chat.rejected)


def test_falling_to_the_cpu_on_a_gpu_box_is_an_error_that_names_the_way_out() -> None:
    old_driver = StubEngine(
        "vllm", "gpu", "safetensors", Refusal(reason="the driver is too old", change="a newer driver")
    )
    engines = (old_driver, LLAMACPP)
    with pytest.raises(PlanError, match="would fall to the CPU") as caught:
        make("", hardware=box(gpus=(gpu(),)), engines=engines)
    assert "the driver is too old" in str(caught.value)
    assert '[engines] gpu = "none"' in (caught.value.hint or "")
    (chat,) = make('[engines]\ngpu = "none"', hardware=box(gpus=(gpu(),)), engines=engines).models
    assert chat.device == "cpu"


def test_a_gpu_that_cannot_be_read_is_not_silently_ignored() -> None:
    with pytest.raises(PlanError, match="would fall to the CPU"):
        make("", hardware=box(gpu_error="NVML: driver/library version mismatch"), engines=CPU_BOX)


@pytest.mark.parametrize(
    ("text", "engine", "variant_key"),
    [
        ('engine = "vllm"', "vllm", "safetensors/bf16"),
        ('[engines]\ncpu = "vllm"', "vllm", "safetensors/bf16"),
        ('precision = "q4_k_m"', "llamacpp", "gguf/Q4_K_M"),
    ],
)
def test_the_users_words_win(text: str, engine: str, variant_key: str) -> None:
    (chat,) = make(text, engines=CPU_BOX).models
    assert (chat.engine, chat.variant) == (engine, variant_key)


def test_nothing_fits_names_every_rejection() -> None:
    with pytest.raises(PlanError, match="no engine here can run") as caught:
        make("", hardware=box(free_bytes=GB // 2), engines=CPU_BOX)
    assert str(caught.value).count("→") == 6


def test_two_models_share_the_memory() -> None:
    two = msgspec.structs.replace(
        BOTH, models=(*lock(variant(size=5 * GB), name="a").models, *lock(variant(size=5 * GB), name="b").models)
    )
    text = '[[model]]\nname = "a"\nslots = 1\n[[model]]\nname = "b"\nslots = 1\n'
    assert len(plan.make(config.parse(text), two, box(free_bytes=16 * GB), CPU_BOX, LAYOUT).models) == 2
    with pytest.raises(PlanError, match="model `b`"):
        plan.make(config.parse(text), two, box(free_bytes=8 * GB), CPU_BOX, LAYOUT)


def test_the_same_inputs_give_the_same_bytes_and_json_is_the_dump() -> None:
    first, second = make(""), make("")
    text = msgspec.json.encode(first)
    assert text == msgspec.json.encode(second)
    assert msgspec.json.decode(text, type=Plan) == first


def test_file_names_of_models_never_collide() -> None:
    names = ["a/b", "a:b", "a-b", "a.b"]
    slugs = {plan.slug(name) for name in names}
    assert len(slugs) == 4
    assert not any(set(slug) & set("/:") for slug in slugs)
