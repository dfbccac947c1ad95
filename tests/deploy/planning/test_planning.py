"""Whole plans: one model, several models on one box, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import config, lockfile, planning
from deploy.engine import Refusal
from deploy.hardware import Hardware, detection
from deploy.lockfile import Lock, Model, Variant
from deploy.plan import Plan
from serving.engines import ENGINES
from tests.deploy.boxes import (
    GB,
    LAYOUT,
    LLAMACPP,
    STUBS,
    VLLM_CPU,
    VLLM_GPU,
    Card,
    StubEngine,
    box,
    gpu,
    lock,
    plan,
    seen,
    variant,
)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "hardware"
GGUF = variant()
BF16 = variant(kind="safetensors", precision="bf16", size=16 * GB)
OLD = StubEngine("vllm", "gpu", "safetensors", Refusal(reason="the driver is too old", change="a newer driver"))


def several(hardware: Hardware, models: dict[str, tuple[Variant, ...]], text: str = "", **fields: Any) -> Plan:
    """In the order given; ``text`` is of the last one."""
    tables = "".join(f'[[model]]\nname = "{name}"\n' for name in models)
    locked = Lock(
        generator="test",
        inputs="sha256:0",
        models=tuple(Model(name=name, requested="row", variants=chosen) for name, chosen in models.items()),
    )
    engines = fields.pop("engines", STUBS)
    return planning.make(config.parse(tables + text), locked, hardware, engines, LAYOUT, **fields)


def gpus(count: int, **fields: Any) -> Hardware:
    return box(gpus=tuple(gpu(index, **fields) for index in range(count)))


class TestOneModel:
    def test_everything_that_is_needed_to_run_it_is_in_the_plan(self) -> None:
        (model,) = lock(GGUF).models
        named = msgspec.structs.replace(lock(), models=(msgspec.structs.replace(model, aliases=("gpt",)),))
        (chat,) = plan("", named, box()).models
        assert (chat.model, chat.aliases, chat.engine, chat.device) == ("chat", ("gpt",), "llamacpp", "cpu")
        assert (chat.variant, chat.weights_bytes) == ("gguf/Q4_K_M", GB)
        assert chat.revision == "c" * 12
        assert chat.command == LLAMACPP.command(chat.launch)
        assert chat.launch.weights == "/cache/gguf/Q4_K_M"
        assert chat.launch.environment == "/environments/llamacpp"
        assert chat.log == "/logs/chat.log"
        assert chat.verdict == "fits"

    def test_a_path_has_no_commit_so_its_bytes_are_named(self) -> None:
        here = msgspec.structs.replace(GGUF, origin=lockfile.Origin(kind="path"))
        (chat,) = plan("", lock(here), box()).models
        assert chat.revision == GGUF.tree.removeprefix("sha256:")[:12]

    def test_the_locks_own_reason_comes_first(self) -> None:
        (chat,) = plan("", lock(GGUF, reason="auto: it is small"), box()).models
        assert chat.because[0] == "auto: it is small"

    def test_a_limit_makes_the_verdict(self) -> None:
        (chat,) = plan("", lock(GGUF), box(free_bytes=int(1.3 * GB))).models
        assert chat.limits
        assert chat.verdict == "limits"

    def test_the_users_context_is_marked_as_fixed(self) -> None:
        assert plan("context = 4096", lock(GGUF), box()).models[0].context_fixed
        assert not plan("", lock(GGUF), box()).models[0].context_fixed

    def test_the_generation_is_that_of_the_gpus_it_is_given(self) -> None:
        """The first GPU of the box is an older one."""
        old = gpu(0, total_bytes=24 * GB)
        old = Card(msgspec.structs.replace(old.gpu, name="NVIDIA A10", compute_capability="8.6"), old.reading)
        (chat,) = plan("", lock(variant(kind="safetensors", size=40 * GB)), box(gpus=(old, gpu(1)))).models
        assert (chat.settings.devices, chat.launch.generation) == ((1,), "hopper")

    def test_the_speed_is_that_of_the_gpus_it_is_given(self) -> None:
        """The first GPU of the box is a T4."""
        old = gpu(0, total_bytes=16 * GB)
        old = Card(msgspec.structs.replace(old.gpu, name="Tesla T4", compute_capability="7.5"), old.reading)
        (beside,) = plan("", lock(BF16), box(gpus=(old, gpu(1)))).models
        (alone,) = plan("", lock(BF16), gpus(1)).models
        assert beside.settings.devices == (1,)
        assert beside.speed is not None
        assert beside.speed == alone.speed

    def test_a_model_that_models_toml_does_not_name_is_planned_all_the_same(self) -> None:
        (other,) = plan("", lock(GGUF, name="other"), box()).models
        assert (other.model, other.verdict) == ("other", "fits")

    def test_the_generation_of_its_gpus_and_their_names_are_told_to_the_engine(self) -> None:
        (chat,) = plan("", lock(BF16), gpus(2, free_bytes=60 * GB)).models
        assert chat.launch.generation == "hopper"
        assert chat.launch.gpus == tuple(map(str, chat.settings.devices))
        (there,) = plan("", lock(GGUF), box()).models
        assert (there.launch.generation, there.launch.gpus) == (None, ())

    def test_nothing_that_works_is_unplanned_with_a_hint_that_has_numbers(self) -> None:
        (missing,) = plan("", lock(GGUF, BF16), box(free_bytes=GB // 2)).unplanned
        assert missing.reason == "no engine here can run model `chat`"
        assert missing.hint == "llamacpp on cpu, gguf/Q4_K_M: 1.3 GB of free RAM, or a smaller model"
        assert len(missing.rejected) == 6

    def test_without_numbers_the_hint_is_what_the_engine_asks_for(self) -> None:
        (missing,) = plan("", lock(BF16), box(), (OLD,)).unplanned
        assert missing.hint == "vllm on gpu, safetensors/bf16: a newer driver"

    def test_sizes_that_nobody_has_counted_yet_are_the_catalogues(self) -> None:
        """The rest of the table is as it would be of locked files."""
        tables = []
        for chosen in (GGUF, msgspec.structs.replace(GGUF, files=())):
            (chat,) = plan("", lock(chosen), box()).models
            tables.append({term.name: (term.provenance, term.source) for term in chat.memory})
        locked, sketched = tables
        assert locked["weights"] == ("predicted", "stub")
        assert sketched.pop("weights") == ("third-party", "the catalogue's figure, not locked")
        assert sketched == {name: found for name, found in locked.items() if name != "weights"}

    def test_starts_that_took_long_before_are_given_longer(self) -> None:
        known = seen(GGUF, LLAMACPP, box(), load_s=500.0)
        (chat,) = plan("", lock(GGUF), box(), known=known).models
        assert chat.start_timeout_s == chat.launch.start_timeout_s == 2000.0
        assert plan("", lock(GGUF), box()).models[0].start_timeout_s == 60.0

    def test_a_measured_speed_replaces_the_predicted_one(self) -> None:
        predicted = plan("", lock(GGUF), box()).models[0].speed
        measured = plan("", lock(GGUF), box(), known=seen(GGUF, LLAMACPP, box(), tokens_per_s=3.5)).models[0].speed
        assert predicted is not None
        assert measured is not None
        assert (predicted.provenance, measured.provenance, measured.tokens_per_s) == ("predicted", "measured", 3.5)

    def test_what_the_engine_said_of_the_same_settings_is_a_reason(self) -> None:
        first = plan("", lock(GGUF), box()).models[0]
        known = seen(GGUF, LLAMACPP, box(), kv_tokens=65000, **msgspec.structs.asdict(first.settings))
        assert "the engine had room for 65000 tokens" in plan("", lock(GGUF), box(), known=known).models[0].because[-1]

    def test_the_same_inputs_give_the_same_bytes(self) -> None:
        first, second = (msgspec.json.encode(plan("", lock(GGUF, BF16), gpus(4))) for _ in range(2))
        assert first == second


class TestFallingToTheCpu:
    def test_is_no_plan_and_names_the_way_out(self) -> None:
        made = plan("", lock(GGUF, BF16), gpus(1), (OLD, LLAMACPP, VLLM_CPU))
        (missing,) = made.unplanned
        assert not made.models
        assert "would fall to the CPU" in missing.reason
        assert missing.hint.startswith("vllm on gpu, safetensors/bf16: a newer driver")
        assert '[engines] gpu = "none"' in missing.hint
        assert "RAM" not in missing.hint
        assert "the driver is too old" in [entry.reason for entry in missing.rejected]

    def test_is_accepted_by_a_word(self) -> None:
        for text in ('[engines]\ngpu = "none"', 'engine = "llamacpp"'):
            (chat,) = plan(text, lock(GGUF, BF16), gpus(1), (OLD, LLAMACPP, VLLM_CPU)).models
            assert chat.device == "cpu"

    def test_more_ram_alone_is_no_hint_where_the_gpu_is_what_is_wrong(self) -> None:
        """With that much RAM alone it would only fall to the CPU."""
        made = plan("", lock(variant(size=100 * GB), BF16), gpus(1), (OLD, LLAMACPP))
        (missing,) = made.unplanned
        assert "RAM" not in missing.hint or '[engines] gpu = "none"' in missing.hint

    def test_what_is_too_large_for_the_gpu_is_not_told_to_mend_it(self) -> None:
        """It would run on the CPU, slowly; nothing is wrong with the GPU."""
        large = variant(kind="safetensors", precision="bf16", size=100 * GB)
        (missing,) = plan("", lock(GGUF, large), gpus(1)).unplanned
        assert missing.reason == "no engine here can run model `chat`"
        assert missing.hint.startswith("vllm on gpu, safetensors/bf16: 2 GPUs with 80.0 GB free on each")
        assert "fix the GPU" not in missing.hint

    @pytest.mark.parametrize("name", ["nvml-failing", "old-driver"])
    def test_a_gpu_that_cannot_be_used_is_not_silently_ignored(self, name: str) -> None:
        hardware = detection.load(FIXTURES / f"{name}.json")
        (missing,) = plan("", lock(GGUF, BF16), hardware, ENGINES).unplanned
        assert "would fall to the CPU" in missing.reason

    def test_a_gpu_of_another_maker_is_no_gpu_for_these_engines_and_that_is_said(self) -> None:
        hardware = detection.load(FIXTURES / "amd-only.json")
        (chat,) = plan("", lock(GGUF, BF16), hardware, ENGINES).models
        assert (chat.engine, chat.device) == ("llamacpp", "cpu")
        reason = next(entry.reason for entry in chat.rejected if entry.what == "vllm on gpu, safetensors/bf16")
        assert "not used by this build" in reason


class TestSlices:
    """CUDA does not count MIG slices, so each goes by its name."""

    PARENT = Card(msgspec.structs.replace(gpu(0).gpu, mig=True, uuid="GPU-0"), gpu(0).reading)
    PART = Card(
        msgspec.structs.replace(gpu(1, total_bytes=40 * GB).gpu, slice_of=0, uuid="MIG-1"),
        gpu(1, total_bytes=40 * GB).reading,
    )

    def test_the_engine_is_given_the_uuid(self) -> None:
        (chat,) = plan("", lock(BF16), box(gpus=(self.PARENT, self.PART)), ENGINES).models
        assert chat.settings.devices == (1,)
        assert chat.launch.gpus == ("MIG-1",)
        assert chat.command.env["CUDA_VISIBLE_DEVICES"] == "MIG-1"

    def test_a_recorded_box_with_one_is_planned(self) -> None:
        hardware = detection.load(FIXTURES / "mig-slice.json")
        (chat,) = plan("", lock(variant(kind="safetensors", precision="bf16")), hardware, ENGINES).models
        (device,) = chat.settings.devices
        assert next(one.slice_of for one in hardware.gpus if one.index == device) is not None

    def test_a_split_gpu_without_slices_cannot_be_used(self) -> None:
        (missing,) = plan("", lock(BF16), box(free_bytes=GB, gpus=(self.PARENT,)), ENGINES).unplanned
        assert "MIG" in missing.rejected[0].reason


class TestSeveralModelsInRam:
    def test_all_of_them_run_where_there_is_room(self) -> None:
        made = several(box(free_bytes=64 * GB), {"a": (GGUF,), "b": (GGUF,)})
        assert [(one.model, one.settings.slots) for one in made.models] == [("a", 8), ("b", 8)]

    def test_the_first_grows_into_what_the_others_leave(self) -> None:
        large = variant(size=4 * GB, kv=98304)
        made = several(box(free_bytes=16 * GB), {"a": (large,), "b": (large,)})
        assert [one.settings.slots for one in made.models] == [4, 2]
        assert made.verdict == "limits"
        held = [sum(term.bytes for term in one.memory) for one in made.models]
        assert sum(held) <= 16 * GB * 0.9

    def test_the_order_is_that_of_models_toml_not_of_the_lock(self) -> None:
        models = {"a": (variant(size=4 * GB, kv=98304),), "b": (variant(size=4 * GB, kv=98304),)}
        locked = [Model(name=name, requested="row", variants=found) for name, found in models.items()]
        wanted = config.parse('[[model]]\nname = "b"\n[[model]]\nname = "a"')
        both = Lock(generator="test", inputs="sha256:0", models=tuple(locked))
        made = planning.make(wanted, both, box(free_bytes=16 * GB), STUBS, LAYOUT)
        assert [(one.model, one.settings.slots) for one in made.models] == [("b", 4), ("a", 2)]

    def test_the_one_that_does_not_fit_names_whom_to_remove(self) -> None:
        made = several(
            box(free_bytes=16 * GB),
            {"small": (GGUF,), "large": (variant(size=6 * GB),), "last": (variant(size=12 * GB),)},
        )
        assert [one.model for one in made.models] == ["small", "large"]
        (missing,) = made.unplanned
        assert missing.model == "last"
        assert missing.hint.startswith("alone it would fit: remove `large` (")
        held = next(entry.reason for entry in missing.rejected if entry.device == "cpu" and entry.reads)
        assert held.endswith(" GB of other models")

    def test_one_that_would_not_fit_alone_blames_nobody(self) -> None:
        made = several(box(free_bytes=16 * GB), {"a": (GGUF,), "b": (variant(size=100 * GB),)})
        (missing,) = made.unplanned
        assert "remove" not in missing.hint
        assert "of free RAM" in missing.hint

    def test_one_that_does_not_fit_takes_nothing_from_the_others(self) -> None:
        alone = several(box(free_bytes=16 * GB), {"a": (GGUF,)}).models
        both = several(box(free_bytes=16 * GB), {"b": (variant(size=100 * GB),), "a": (GGUF,)})
        assert both.models == alone

    def test_one_that_would_fall_to_the_cpu_takes_nothing_from_the_others_either(self) -> None:
        engines = (OLD, LLAMACPP, VLLM_CPU)
        fields: dict[str, Any] = {"engines": engines, "text": 'engine = "llamacpp"\n'}
        hardware = box(free_bytes=8 * GB, gpus=(gpu(),))
        alone = several(hardware, {"b": (variant(kv=98304),)}, **fields).models
        both = several(hardware, {"a": (variant(size=3 * GB),), "b": (variant(kv=98304),)}, **fields)
        assert [one.model for one in both.unplanned] == ["a"]
        assert both.models == alone


class TestSeveralModelsOnGpus:
    def test_two_models_on_two_gpus_use_both(self) -> None:
        made = several(gpus(2), {"a": (BF16,), "b": (BF16,)})
        assert [one.settings.devices for one in made.models] == [(0,), (1,)]
        assert made.verdict == "fits"

    def test_two_models_on_one_gpu_share_it(self) -> None:
        made = several(gpus(1), {"a": (BF16,), "b": (BF16,)})
        shares = [one.settings.gpu_memory_share or 0 for one in made.models]
        assert sum(shares) <= 1
        assert shares[0] > shares[1] > 0.2
        assert [one.settings.devices for one in made.models] == [(0,), (0,)]

    def test_the_one_that_does_not_fit_names_whom_to_remove(self) -> None:
        large = variant(kind="safetensors", precision="bf16", size=50 * GB)
        made = several(gpus(1), {"a": (large,), "b": (large,)})
        (missing,) = made.unplanned
        assert missing.hint.startswith("alone it would fit: remove `a` (")

    def test_also_where_it_would_run_on_the_cpu(self) -> None:
        """The GPU is well: another model is on it."""
        large = variant(kind="safetensors", precision="bf16", size=50 * GB)
        made = several(gpus(1), {"a": (large, GGUF), "b": (large, GGUF)})
        (missing,) = made.unplanned
        assert "remove `a`" in missing.hint

    def test_the_one_to_remove_is_on_the_same_device(self) -> None:
        """The model on the GPU is the largest, and holds no RAM."""
        ten = (variant(size=10 * GB),)
        text = 'engine = "llamacpp"\n'
        models = {"a": (BF16,), "b": ten, "c": ten}
        wanted = f'[[model]]\nname = "a"\n[[model]]\nname = "b"\n{text}[[model]]\nname = "c"\n{text}'
        found = tuple(Model(name=name, requested="row", variants=chosen) for name, chosen in models.items())
        locked = Lock(generator="test", inputs="sha256:0", models=found)
        made = planning.make(config.parse(wanted), locked, gpus(1), STUBS, LAYOUT)
        (missing,) = made.unplanned
        assert missing.model == "c"
        assert "remove `b`" in missing.hint

    def test_a_model_on_the_cpu_and_one_on_the_gpu_do_not_count_against_each_other(self) -> None:
        made = several(gpus(1), {"a": (BF16,), "b": (GGUF,)}, 'engine = "llamacpp"')
        assert [one.device for one in made.models] == ["gpu", "cpu"]
        assert [one.settings.slots for one in made.models] == [256, 8]

    @pytest.mark.parametrize("unknown", ["a", "b"])
    def test_beside_a_cache_of_unknown_size_shares_are_of_one_gpu_still(self, unknown: str) -> None:
        """The engine takes the whole share that it is given."""
        blind = variant(kind="safetensors", precision="bf16", size=16 * GB, kv=None)
        made = several(gpus(1), {name: (blind if name == unknown else BF16,) for name in "ab"}, engines=(VLLM_GPU,))
        assert not made.unplanned
        assert sum(one.settings.gpu_memory_share or 0 for one in made.models) <= 1

    @given(
        sizes=st.lists(st.integers(GB, 60 * GB), min_size=2, max_size=4),
        layers=st.lists(st.integers(1, 400), min_size=4, max_size=4),
        windows=st.lists(st.sampled_from([2048, 8192, 40960, 131072]), min_size=4, max_size=4),
        count=st.sampled_from([1, 2, 4]),
        free=st.integers(20, 80),
    )
    def test_together_they_never_take_more_than_there_is(
        self, sizes: list[int], layers: list[int], windows: list[int], count: int, free: int
    ) -> None:
        models = {
            f"m{number}": (variant(kind="safetensors", size=size, kv=layers[number] * 512, context=windows[number]),)
            for number, size in enumerate(sizes)
        }
        made = several(gpus(count, free_bytes=free * GB), models, engines=(VLLM_GPU,))
        held = dict.fromkeys(range(count), 0)
        for one in made.models:
            for device in one.settings.devices:
                held[device] += sum(term.bytes for term in one.memory)
        assert all(size <= free * GB for size in held.values())


@given(
    sizes=st.lists(st.integers(GB // 10, 20 * GB), min_size=2, max_size=4),
    layers=st.lists(st.integers(1, 400), min_size=4, max_size=4),
    free=st.integers(1, 64),
)
def test_together_they_never_take_more_ram_than_there_is(sizes: list[int], layers: list[int], free: int) -> None:
    models = {f"m{number}": (variant(size=size, kv=layers[number] * 512),) for number, size in enumerate(sizes)}
    made = several(box(free_bytes=free * GB), models, engines=(LLAMACPP,))
    assert sum(term.bytes for one in made.models for term in one.memory) <= free * GB * 0.9


@given(free_bytes=st.integers(60 * GB, 80 * GB), size=st.integers(10 * GB, 20 * GB))
def test_what_was_set_aside_for_a_model_is_enough_when_the_others_have_grown(free_bytes: int, size: int) -> None:
    """Both fit at least, with room to spare; shares are whole thousandths, and none of them is lost between two."""
    second = variant(kind="safetensors", precision="bf16", size=size)
    made = several(
        gpus(1, free_bytes=free_bytes),
        {"a": (variant(kind="safetensors", precision="bf16"),), "b": (second,)},
        "context = 32768\nslots = 1\n",
        engines=(VLLM_GPU,),
    )
    assert not made.unplanned


def test_wishes_that_the_lock_does_not_know_are_no_model_of_the_plan() -> None:
    made = several(box(), {"a": (GGUF,)}, '[[model]]\nname = "later"\n')
    assert [one.model for one in made.models] == ["a"]
