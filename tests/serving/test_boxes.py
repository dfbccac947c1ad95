"""Recorded boxes, the real engines: what is planned on each, down to the argv, or why nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import config, planning
from deploy.errors import PlanError
from deploy.hardware import detection
from deploy.plan import Layout, ModelPlan, insist
from serving.engines import ENGINES
from tests.deploy.boxes import GB, lock, variant

BOXES = Path(__file__).parents[1] / "fixtures" / "hardware"
GGUF = variant(size=491_400_064)
SAFETENSORS = variant(kind="safetensors", precision="bf16", size=988_097_824)
LAYOUT = Layout(
    weights=lambda variant: Path("/cache") / variant.format,
    environment=lambda engine: Path("/environments") / f"{engine.name}-{engine.device}",
    sockets=Path("/run"),
    state=Path("/state"),
    logs=Path("/logs"),
)


def planned(box: str, text: str = "") -> ModelPlan:
    wanted = config.parse(f'[[model]]\nname = "chat"\n{text}')
    hardware = detection.load(BOXES / f"{box}.json")
    (model,) = insist(planning.make(wanted, lock(GGUF, SAFETENSORS), hardware, ENGINES, LAYOUT)).models
    return model


@pytest.mark.parametrize("box", ["laptop-8gb", "vm-2core-24gb", "container-1.5cpu-4gb", "server-64core-amx"])
def test_boxes_without_a_gpu_get_llamacpp(box: str) -> None:
    model = planned(box)
    assert (model.engine, model.device, model.variant) == ("llamacpp", "cpu", "gguf/Q4_K_M")
    assert any(entry.reason == "there is no GPU" for entry in model.rejected)


def test_a_container_gets_the_cores_of_its_quota_and_its_memory() -> None:
    model = planned("container-1.5cpu-4gb")
    assert model.settings.threads == 1
    assert sum(term.bytes for term in model.memory) < 4 * GB


@pytest.mark.parametrize("box", ["rtx3090", "rtx4090", "h100"])
def test_boxes_with_a_gpu_get_vllm(box: str) -> None:
    model = planned(box)
    argv = model.command.argv
    assert (model.engine, model.device, model.variant) == ("vllm", "gpu", "safetensors/bf16")
    assert argv[:2] == ("/environments/vllm-gpu/bin/python", "-m")
    assert argv[argv.index("serve") + 1] == "/cache/safetensors"
    assert argv[argv.index("--tensor-parallel-size") + 1] == "1"
    assert argv[argv.index("--gpu-memory-utilization") + 1] == str(model.settings.gpu_memory_share)
    assert model.command.env["HF_HUB_OFFLINE"] == "1"


def test_memory_that_others_hold_lowers_the_share_of_the_gpu() -> None:
    share = planned("h200-30gb-used").settings.gpu_memory_share
    assert share is not None
    assert 0.7 < share < 0.8


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("t4", "compute capability 7.5, bfloat16 needs 8.0"),
        ("old-driver", "runs CUDA 12, this build needs 13"),
        ("nvml-failing", "the GPUs cannot be read"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_an_error_until_the_cpu_is_accepted(box: str, reason: str) -> None:
    with pytest.raises(PlanError, match="would fall to the CPU") as caught:
        planned(box)
    assert reason in str(caught.value)
    model = planned(box, '[engines]\ngpu = "none"')
    assert (model.engine, model.device) == ("llamacpp", "cpu")


def test_vllm_on_the_cpu_can_be_insisted_on() -> None:
    model = planned("server-64core-amx", 'engine = "vllm"\n[engines]\ngpu = "none"')
    argv = model.command.argv
    assert (model.engine, model.device) == ("vllm", "cpu")
    assert int(argv[argv.index("--kv-cache-memory-bytes") + 1]) >= (model.settings.kv_cache_bytes or 0)
