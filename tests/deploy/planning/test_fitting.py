"""Catalogue rows on a box: the verdict, what they would take, and what it would take."""

from __future__ import annotations

from pathlib import Path

import msgspec

from deploy import catalog
from deploy.catalog import Row, sketch
from deploy.config import EngineWish, ModelWish
from deploy.engine import Engine
from deploy.hardware import Hardware, detection
from deploy.lockfile import Variant
from deploy.measured import NOTHING
from deploy.planning import fitting
from deploy.planning.choice import telling
from deploy.planning.fitting import Fit
from serving.engines import ENGINES
from tests.deploy.boxes import GB, STUBS, box, gpu

SMALL = "qwen2.5-coder-0.5b"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "hardware"


def fit(name: str, hardware: Hardware, engines: tuple[Engine, ...] = ENGINES) -> Fit:
    (found,) = fitting.of((catalog.find(name),), hardware, engines)
    return found


def test_every_row_of_the_catalogue_has_a_verdict_and_no_has_a_change() -> None:
    rows = catalog.rows()
    for hardware in (box(), box(gpus=(gpu(),)), box(gpu_error="NVML fails"), box(free_bytes=1000)):
        found = fitting.of(rows, hardware, ENGINES)
        assert [one.id for one in found] == [row.id for row in rows]
        for one in found:
            assert one.change if one.verdict in ("no", "unknown") else one.variant and one.memory_bytes, one
            assert (one.verdict == "limits") == bool(one.limits)


def test_a_row_that_fits_says_how() -> None:
    found = fit(SMALL, box())
    assert (found.verdict, found.engine, found.device, found.variant) == ("fits", "llamacpp", "cpu", "gguf/Q4_K_M")
    assert (found.gpus, found.context_tokens, found.slots) == (0, 8192, 8)
    assert found.change is None


def test_on_a_gpu_the_number_of_gpus_is_told() -> None:
    found = fit("qwen3-235b-a22b", box(gpus=tuple(gpu(index) for index in range(8))))
    assert (found.engine, found.device, found.gpus) == ("vllm", "gpu", 8)


def test_little_memory_is_a_limit_and_less_is_none() -> None:
    assert fit(SMALL, box(free_bytes=GB)).verdict == "limits"
    refused = fit(SMALL, box(free_bytes=GB // 2))
    assert refused.verdict == "no"
    assert "of free RAM" in (refused.change or "")


def test_the_memory_that_is_named_is_enough() -> None:
    row = catalog.find(SMALL)
    choice = fitting.choose(row, ModelWish(name="x"), box(free_bytes=GB // 2), ENGINES, NOTHING)
    least = telling(choice.rejected)
    assert least is not None
    assert least.fix is not None
    assert fit(SMALL, box(free_bytes=least.fix.memory_bytes)).verdict == "limits"


def test_a_row_without_a_size_is_unknown() -> None:
    found = fit("minimax-m3.1-flash", box())
    assert (found.verdict, found.memory_bytes) == ("unknown", None)


def test_falling_to_the_cpu_is_no_fit_and_names_what_is_wrong_with_the_gpu() -> None:
    found = fit(SMALL, detection.load(FIXTURES / "old-driver.json"))
    assert found.verdict == "no"
    assert "driver 580 or newer" in (found.change or "")


def test_on_a_box_with_a_gpu_ram_alone_is_not_what_a_row_would_take() -> None:
    """More RAM alone would only let it fall to the CPU, which such a box does not."""
    found = fit("glm-4.5-air", box(gpus=(gpu(),)))
    assert found.verdict == "no"
    assert "RAM" not in (found.change or "") or '[engines] gpu = "none"' in (found.change or "")


def test_of_a_row_all_that_is_known_or_only_these_are_weighed() -> None:
    row = catalog.find(SMALL)
    indexed = tuple(one for one in sketch.of(row) if any(place.kind == "index" for place in one.places))

    def weighed(variants: tuple[Variant, ...] | None) -> set[str]:
        choice = fitting.choose(row, ModelWish(name="x"), box(), STUBS, NOTHING, variants=variants)
        assert choice.way is not None
        return {choice.way.variant.key, *(entry.what.rpartition(", ")[2] for entry in choice.rejected)}

    assert weighed(indexed) == {"gguf/Q4_K_M"}
    assert weighed(None) == {"gguf/Q4_K_M", "safetensors/bf16"}


def test_what_models_toml_insists_on_is_obeyed() -> None:
    def chosen(**insisted: str) -> str | None:
        words = EngineWish(**insisted)
        choice = fitting.choose(
            catalog.find(SMALL), ModelWish(name="x"), box(gpus=(gpu(),)), STUBS, NOTHING, insisted=words
        )
        return choice.way and f"{choice.way.engine.name} on {choice.way.engine.device}"

    assert chosen() == "vllm on gpu"
    assert chosen(gpu="none") == "llamacpp on cpu"
    assert chosen(gpu="none", cpu="vllm") == "vllm on cpu"


def test_a_users_row_is_weighed_like_ours() -> None:
    ours = catalog.find(SMALL)
    theirs: Row = msgspec.structs.replace(ours, id="mine")
    first, second = fitting.of((ours, theirs), box(), ENGINES)
    assert msgspec.structs.replace(first, id="mine") == second
