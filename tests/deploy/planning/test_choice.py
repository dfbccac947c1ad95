"""Which engine and which variant, and what is said of those that were not chosen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from deploy import config
from deploy.engine import Engine, Fix, Refusal
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from deploy.measured import NOTHING, Known
from deploy.plan import Rejection
from deploy.planning.budget import RAM
from deploy.planning.choice import LIFTED, Choice, Chooser, telling
from deploy.planning.way import Way
from tests.deploy.boxes import (
    ENGINE_BYTES,
    GB,
    LLAMACPP,
    STUBS,
    VLLM_CPU,
    VLLM_GPU,
    Card,
    StubEngine,
    box,
    gpu,
    seen,
    variant,
)

Q4 = variant()
Q8 = variant(precision="Q8_0", size=2 * GB)
BF16 = variant(kind="safetensors", precision="bf16", size=16 * GB)
FP8 = variant(kind="safetensors", precision="fp8", size=8 * GB)
NO_GPU = StubEngine("vllm", "gpu", "safetensors", Refusal(reason="there is no GPU", change="a GPU"))
ON_CPU = (NO_GPU, LLAMACPP, VLLM_CPU)


def chooser(
    *variants: Variant,
    hardware: Hardware | None = None,
    engines: tuple[Engine, ...] = STUBS,
    known: Known = NOTHING,
    preferred: str | None = None,
    text: str = "",
) -> Chooser:
    wanted = config.parse(f'[[model]]\nname = "chat"\n{text}')
    return Chooser(
        config=wanted,
        wish=wanted.model[0],
        variants=variants,
        hardware=hardware or box(),
        engines=engines,
        known=known,
        preferred=preferred,
    )


def choose(*variants: Variant, **fields: Any) -> Choice:
    return chooser(*variants, **fields).choose({})


def chosen(choice: Choice) -> Way:
    assert choice.way is not None
    return choice.way


def key(choice: Choice) -> tuple[str, str, str]:
    way = chosen(choice)
    return way.engine.name, way.engine.device, way.variant.key


def test_engines_are_tried_in_their_order() -> None:
    hardware = box(gpus=(gpu(),))
    assert key(choose(Q4, BF16, hardware=hardware)) == ("vllm", "gpu", "safetensors/bf16")
    assert key(choose(Q4, BF16, engines=ON_CPU)) == ("llamacpp", "cpu", "gguf/Q4_K_M")
    assert key(choose(Q4, FP8, engines=ON_CPU[::-1])) == ("vllm", "cpu", "safetensors/fp8")


def test_a_later_engine_is_taken_where_an_earlier_one_lacks_memory() -> None:
    large = variant(size=100 * GB)
    assert key(choose(large, FP8, engines=ON_CPU)) == ("vllm", "cpu", "safetensors/fp8")


def test_every_pair_that_was_not_chosen_has_its_reason_and_a_change() -> None:
    choice = choose(Q4, FP8, engines=ON_CPU)
    assert [(entry.what, entry.reason) for entry in choice.rejected] == [
        ("vllm on gpu, gguf/Q4_K_M", "reads safetensors only"),
        ("vllm on gpu, safetensors/fp8", "there is no GPU"),
        ("llamacpp on cpu, safetensors/fp8", "reads gguf only"),
        ("vllm on cpu, gguf/Q4_K_M", "reads safetensors only"),
        ("vllm on cpu, safetensors/fp8", "llamacpp on cpu, gguf/Q4_K_M is preferred and fits"),
    ]
    assert all(entry.change for entry in choice.rejected)


def test_of_variants_the_one_with_most_bits_is_taken_and_the_others_say_so() -> None:
    choice = choose(Q4, Q8)
    assert key(choice)[-1] == "gguf/Q8_0"
    (other,) = [entry for entry in choice.rejected if entry.what == "llamacpp on cpu, gguf/Q4_K_M"]
    assert other.reason.startswith("llamacpp on cpu, gguf/Q8_0 fits as well and keeps more")
    assert other.change == 'precision = "Q4_K_M" for this model'
    (why,) = [line for line in chosen(choice).because if line.startswith("Q8_0 (2.0 GB) keeps")]
    assert "8192 tokens" in why


def test_a_variant_that_does_not_reach_the_wanted_context_comes_second() -> None:
    hardware = box(free_bytes=int((2 * GB + ENGINE_BYTES + 4096 * 12288) / 0.9) + 1)
    choice = choose(Q4, Q8, hardware=hardware)
    assert key(choice)[-1] == "gguf/Q4_K_M"
    reasons = {entry.what: entry.reason for entry in choice.rejected}
    assert reasons["llamacpp on cpu, gguf/Q8_0"] == (
        "it fits with a context of 4096 only, llamacpp on cpu, gguf/Q4_K_M with more"
    )


def test_one_variant_alone_needs_no_reason_for_itself() -> None:
    assert not [line for line in chosen(choose(Q4)).because if line.startswith("Q4_K_M")]


class TestPreferred:
    """The variant that `auto` weighed."""

    def test_it_is_taken_although_a_larger_one_fits(self) -> None:
        choice = choose(Q4, Q8, preferred=Q4.key)
        assert key(choose(Q4, Q8))[-1] == Q8.key
        assert key(choice)[-1] == Q4.key
        assert "Q4_K_M (1.0 GB) is the variant that auto weighed" in chosen(choice).because
        larger = next(entry for entry in choice.rejected if entry.what == "llamacpp on cpu, gguf/Q8_0")
        assert larger.change == 'precision = "Q8_0" for this model'
        assert "auto weighed" in larger.reason
        assert "keeps more" not in larger.reason

    def test_a_precision_that_is_wished_for_comes_first(self) -> None:
        assert key(choose(Q4, Q8, preferred=Q4.key, text='precision = "Q8_0"'))[-1] == Q8.key

    def test_one_that_does_not_fit_stands_in_nobodys_way(self) -> None:
        assert key(choose(Q4, variant(precision="Q8_0", size=100 * GB), preferred="gguf/Q8_0"))[-1] == Q4.key
        assert key(choose(Q4, Q8, preferred="gguf/of another lock"))[-1] == Q8.key

    def test_the_preferred_engine_is_not_left_for_it(self) -> None:
        """A box that has a GPU now."""
        assert key(choose(Q4, BF16, hardware=box(gpus=(gpu(),)), preferred=Q4.key))[0] == "vllm"


@pytest.mark.parametrize(
    ("text", "engine", "variant_key"),
    [
        ('engine = "vllm"', "vllm", "safetensors/fp8"),
        ('[engines]\ncpu = "vllm"', "vllm", "safetensors/fp8"),
        ('precision = "q4_k_m"', "llamacpp", "gguf/Q4_K_M"),
        ('precision = "Q8_0"', "llamacpp", "gguf/Q8_0"),
        ('precision = "fp8"', "vllm", "safetensors/fp8"),
    ],
)
def test_the_users_words_win(text: str, engine: str, variant_key: str) -> None:
    choice = choose(Q4, Q8, FP8, engines=ON_CPU, text=text)
    assert (key(choice)[0], key(choice)[2]) == (engine, variant_key)
    said = [entry for entry in choice.rejected if "insists" in entry.reason]
    assert said
    assert {entry.change for entry in said} == {"leave that out of models.toml"}


def test_a_precision_beside_a_gguf_source_of_its_own_picks_among_the_files_there() -> None:
    text = 'source = "hf:a/b"\ngguf = "hf:a/b-GGUF"\nprecision = "Q4_K_M"'
    choice = choose(Q4, Q8, BF16, hardware=box(gpus=(gpu(),)), text=text)
    assert key(choice) == ("vllm", "gpu", "safetensors/bf16")


def test_gpu_none_takes_a_box_with_a_gpu_to_the_cpu() -> None:
    hardware = box(gpus=(gpu(),))
    found = chooser(Q4, BF16, hardware=hardware, text='[engines]\ngpu = "none"')
    way = chosen(found.choose({}))
    assert way.engine is LLAMACPP
    assert not found.falls(way.engine)


class TestFalling:
    """To the CPU, where there is a GPU that could not be used."""

    REFUSING = (StubEngine("vllm", "gpu", "safetensors", Refusal(reason="too old", change="newer")), LLAMACPP, VLLM_CPU)

    @pytest.mark.parametrize(
        ("hardware", "text", "falls"),
        [
            (box(gpus=(gpu(),)), "", True),
            (box(gpu_error="NVML: driver/library version mismatch"), "", True),
            (box(gpus=(gpu(),)), '[engines]\ngpu = "none"', False),
            (box(gpus=(gpu(),)), 'engine = "llamacpp"', False),
            (box(gpus=(gpu(),)), 'engine = "vllm"', True),
            (box(gpus=(Card(msgspec.structs.replace(gpu().gpu, vendor="amd"), gpu().reading),)), "", False),
            (box(), "", False),
        ],
        ids=["GPU", "unreadable GPU", "accepted", "CPU engine named", "engine with both", "AMD", "no GPU"],
    )
    def test_is_noticed(self, hardware: Hardware, text: str, falls: bool) -> None:
        found = chooser(Q4, FP8, hardware=hardware, engines=self.REFUSING, text=text)
        assert found.falls(chosen(found.choose({})).engine) is falls

    def test_a_model_on_the_gpu_does_not(self) -> None:
        found = chooser(BF16, hardware=box(gpus=(gpu(),)))
        assert not found.falls(chosen(found.choose({})).engine)


def test_nothing_that_works_leaves_a_reason_for_each() -> None:
    choice = choose(Q4, FP8, hardware=box(free_bytes=GB // 2), engines=ON_CPU)
    assert choice.way is None
    assert len(choice.rejected) == 6
    assert all(entry.reason and entry.change for entry in choice.rejected)


def test_more_context_than_one_variant_has_rejects_that_one_only() -> None:
    short = variant(precision="Q8_0", size=2 * GB, context=4096)
    choice = choose(short, Q4, text="context = 8192")
    assert key(choice)[-1] == "gguf/Q4_K_M"
    refused = next(entry for entry in choice.rejected if entry.what == "llamacpp on cpu, gguf/Q8_0")
    assert refused.reason == "context = 8192 is more than the model's 4096"
    assert refused.fix == Fix(context=4096)


def test_what_others_hold_is_taken_into_account() -> None:
    found = chooser(Q4, engines=ON_CPU)
    assert found.choose({RAM: 14 * GB}).way is None
    assert found.choose({RAM: 10 * GB}).way is not None


class Picky(StubEngine):
    """Refuses GPUs of 8 GB."""

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        old = [one for one in hardware.usable_gpus if one.memory_total_bytes == 8 * GB]
        return Refusal(reason="too old", change="a newer GPU") if old else super().refuse(variant, hardware)


class TestMixedGpus:
    PICKY = (Picky("vllm", "gpu", "safetensors"),)

    def test_the_group_that_fits_is_taken(self) -> None:
        hardware = box(gpus=(gpu(0, total_bytes=8 * GB), gpu(1), gpu(2)))
        assert chosen(choose(BF16, hardware=hardware)).settings.devices == (1,)

    def test_what_one_kind_lacks_is_no_reason_against_the_other(self) -> None:
        hardware = box(gpus=(gpu(0, total_bytes=8 * GB), gpu(1)))
        assert chosen(choose(BF16, hardware=hardware, engines=self.PICKY)).settings.devices == (1,)

    def test_a_refusal_with_numbers_is_kept_whatever_the_order_of_the_gpus(self) -> None:
        large = variant(kind="safetensors", precision="bf16", size=200 * GB)
        for first, second in ((8 * GB, 80 * GB), (80 * GB, 8 * GB)):
            hardware = box(gpus=(gpu(0, total_bytes=first), gpu(1, total_bytes=second)))
            (rejected,) = choose(large, hardware=hardware, engines=self.PICKY).rejected
            assert rejected.fix is not None


def test_the_other_build_of_an_engine_is_not_reached_by_its_name_alone() -> None:
    hardware = box(gpus=(gpu(),))
    (other,) = [entry for entry in choose(FP8, hardware=hardware).rejected if entry.what.startswith("vllm on cpu")]
    assert '[engines] gpu = "none"' in other.change
    assert key(choose(FP8, hardware=hardware, text='engine = "vllm"'))[1] == "gpu"
    assert key(choose(FP8, hardware=hardware, text='[engines]\ngpu = "none"'))[1] == "cpu"


class TestCorrected:
    """An engine that named a smaller context than it was started with here."""

    HARDWARE = box(gpus=(gpu(),))

    def known(self, named: int, **settings: Any) -> Known:
        asked = {"context_tokens": 32768, "slots": 256, "gpu_memory_share": 0.92} | settings
        return seen(
            BF16, VLLM_GPU, self.HARDWARE, correction="estimated maximum model length", named=named,
            split=VLLM_GPU.splits(BF16, self.HARDWARE.gpus, ())[0], **asked,
        )  # fmt: skip

    def test_the_named_context_is_taken_and_said(self) -> None:
        way = chosen(choose(BF16, hardware=self.HARDWARE, known=self.known(20000)))
        assert way.settings.context_tokens == 20000
        assert way.limits == (
            "a context of 20000 tokens: 32768 did not start (estimated maximum model length); " + LIFTED,
        )

    def test_the_users_own_context_is_not_lowered(self) -> None:
        way = chosen(choose(BF16, hardware=self.HARDWARE, known=self.known(20000), text="context = 32768"))
        assert (way.settings.context_tokens, way.limits) == (32768, ())

    def test_with_fewer_slots_it_says_nothing(self) -> None:
        way = chosen(choose(BF16, hardware=self.HARDWARE, known=self.known(20000, slots=8)))
        assert way.settings.context_tokens == 32768

    def test_a_variant_without_it_is_preferred_where_it_reaches_further(self) -> None:
        choice = choose(BF16, FP8, hardware=self.HARDWARE, known=self.known(20000))
        assert BF16.tree != FP8.tree
        assert key(choice)[-1] == "safetensors/fp8"

    def test_context_beyond_the_wanted_one_counts_less_than_bits(self) -> None:
        wide = variant(kind="safetensors", precision="fp8", size=8 * GB, context=131072)
        best = variant(kind="safetensors", precision="bf16", size=16 * GB, context=131072)
        known = seen(
            wide,
            VLLM_GPU,
            self.HARDWARE,
            correction="too long",
            named=100_000,
            context_tokens=131072,
            slots=256,
            gpu_memory_share=0.92,
        )
        assert key(choose(best, wide, hardware=self.HARDWARE, known=known))[-1] == "safetensors/bf16"

    def test_what_nobody_wanted_is_not_missed(self) -> None:
        """The model could do 131072; 32768 are wanted, and 100000 start."""
        wide = variant(kind="safetensors", precision="bf16", size=16 * GB, context=131072)
        known = seen(
            wide, VLLM_GPU, self.HARDWARE, correction="too long", named=100_000,
            context_tokens=131072, slots=256, gpu_memory_share=0.92,
        )  # fmt: skip
        way = chosen(choose(wide, hardware=self.HARDWARE, known=known))
        assert way.settings.context_tokens == 100_000
        assert way.limits == ()
        assert "a context of 100000 tokens: 131072 did not start (too long); " + LIFTED in way.because


def test_reasons_come_with_engine_first() -> None:
    hardware = box(gpus=(gpu(),))
    assert chosen(choose(BF16, hardware=hardware)).because[0] == (
        "1 GPU (NVIDIA H100 80GB HBM3): vllm is preferred there and reads safetensors"
    )
    assert chosen(choose(Q4, engines=ON_CPU)).because[0].startswith("no GPU to use: llamacpp is the first CPU engine")


def test_a_wish_without_words_is_no_insistence() -> None:
    assert not [line for engine in STUBS for line in chooser(Q4).insists(engine, Q4)]


def refused(what: object, fix: Fix | None = None, **fields: Any) -> Rejection:
    return Rejection(what=str(what), reason="no", change="more", fix=fix, **fields)


class TestTelling:
    """Of all refusals the one that helps most."""

    @pytest.mark.parametrize(
        ("fixes", "least"),
        [
            ([None, Fix(memory_bytes=9), Fix(memory_bytes=5, gpus=4), Fix(memory_bytes=8)], 3),
            ([None, Fix(memory_bytes=9), Fix(memory_bytes=4, gpus=2)], 2),
            ([None, Fix(memory_bytes=9), Fix(context=4096)], 2),
            ([None, None], 0),
            ([], None),
        ],
    )
    @pytest.mark.parametrize("device", ["gpu", "cpu"])
    def test_it_is_the_least_change(self, fixes: list[Fix | None], least: int | None, device: str) -> None:
        found = telling(tuple(refused(number, one, device=device) for number, one in enumerate(fixes)))
        assert (found and found.what) == (None if least is None else str(least))

    def test_more_gpus_are_told_before_less_ram_where_there_are_gpus(self) -> None:
        ram = refused("ram", Fix(memory_bytes=GB), device="cpu")
        gpus = [refused(count, Fix(memory_bytes=80 * GB, gpus=count), device="gpu") for count in (8, 4)]
        assert telling((ram, *gpus)) == gpus[1]

    def test_numbers_are_told_before_words_wherever_they_are_from(self) -> None:
        words = refused("a newer driver", device="gpu")
        ram = refused("ram", Fix(memory_bytes=GB), device="cpu")
        assert telling((words, ram)) == ram

    def test_without_numbers_an_engine_that_reads_the_format_tells_most(self) -> None:
        foreign, here = refused("other", reads=False), refused("this")
        assert telling((foreign, here)) == here
        assert telling((foreign,)) == foreign


def test_what_an_engine_does_not_read_and_its_device_are_marked() -> None:
    marks = [(entry.device, entry.reads) for entry in choose(Q4, FP8, engines=ON_CPU).rejected]
    assert marks == [("gpu", False), ("gpu", True), ("cpu", False), ("cpu", False), ("cpu", True)]
