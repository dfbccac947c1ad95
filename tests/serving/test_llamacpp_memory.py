"""The terms against what xllamacpp 2026.10.11549 said it allocates, for made-up models: MiB as it printed them."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from deploy.dimensions import Cache, Recurrent, Shape
from deploy.engine import Settings
from deploy.lockfile import Facts, Variant
from deploy.memory import Term, total
from serving.engines.llamacpp import LlamaCpp
from serving.engines.llamacpp_memory import terms
from tests.serving.engine_cases import GB, box, variant

MIB = 1 << 20
GGUF = variant("gguf", size=GB)
QWEN = Cache(kind="gqa", layers=24, kv_heads=2, key_width=64, value_width=64)
QWEN_SHAPE = Shape(layers=24, hidden=896, heads=14, vocabulary=151936, inner=4864)
PLAIN = Cache(kind="gqa", layers=2, kv_heads=2, key_width=64, value_width=64)
MLA = Cache(kind="mla", layers=2, rank=128, rotary_width=32)
WINDOWED = Cache(kind="gqa", layers=1, kv_heads=2, key_width=64, value_width=64, window=512, window_layers=5)
RECURRENT = Recurrent(layers=3, key_heads=16, value_heads=32, key_width=128, value_width=128, kernel=4)
HYBRID = Cache(kind="hybrid-gqa", layers=1, kv_heads=2, key_width=64, value_width=64, recurrent=RECURRENT)


def model(cache: Cache | None, shape: Shape | None = None) -> Variant:
    return msgspec.structs.replace(GGUF, facts=Facts(cache=cache, shape=shape))


def settings(context: int, slots: int) -> Settings:
    return Settings(context_tokens=context, slots=slots, threads=2)


def table(weights: Variant, context: int, slots: int) -> dict[str, Term]:
    return {term.name: term for term in LlamaCpp().memory(weights, settings(context, slots), box())}


@pytest.mark.parametrize(
    ("cache", "context", "slots", "mib"),
    [
        (QWEN, 8192, 1, 96),
        (PLAIN, 2048, 8, 16),
        (PLAIN, 300, 3, 1.5),
        (PLAIN, 2100, 2, 4.5),
        (MLA, 2048, 1, 1.25),
        (MLA, 8192, 1, 5),
        (HYBRID, 2048, 4, 4),
        (WINDOWED, 2048, 1, 3.5),
        (WINDOWED, 8192, 1, 6.5),
        (WINDOWED, 2048, 4, 14),
    ],
)
def test_the_cache_is_as_large_as_it_says(cache: Cache, context: int, slots: int, mib: float) -> None:
    wanted = settings(context, slots)
    assert LlamaCpp().kv_bytes(model(cache), wanted, slots) == mib * MIB
    assert table(model(cache), context, slots)["KV cache"].bytes == mib * MIB
    one = LlamaCpp().kv_bytes(model(cache), wanted, 1)
    assert one
    assert one * slots == mib * MIB


@pytest.mark.parametrize(("context", "slots", "tokens"), [(2048, 1, 2048), (300, 3, 1536), (2100, 2, 4608)])
def test_every_slot_has_a_multiple_of_256_tokens(context: int, slots: int, tokens: int) -> None:
    assert LlamaCpp().kv_tokens(model(None), settings(context, slots)) == tokens


def test_a_cache_that_is_not_known_has_no_line() -> None:
    indexed = msgspec.structs.replace(MLA, indexer_width=128)
    for cache in (None, indexed):
        assert LlamaCpp().kv_bytes(model(cache), settings(2048, 1), 1) is None
        assert "KV cache" not in table(model(cache), 2048, 1)


@pytest.mark.parametrize(("slots", "mib"), [(1, 6.28), (4, 25.12), (8, 50.25)])
def test_a_recurrent_state_is_kept_once_per_slot_and_in_two_checkpoints(slots: int, mib: float) -> None:
    lines = table(model(HYBRID), 2048, slots)
    assert lines["recurrent state"].bytes / MIB == pytest.approx(mib, abs=0.01)
    assert lines["checkpoints"].bytes == 2 * lines["recurrent state"].bytes


@pytest.mark.parametrize(
    ("cache", "shape", "context", "slots", "mib"),
    [
        (QWEN, QWEN_SHAPE, 8192, 1, 45.27),
        (QWEN, QWEN_SHAPE, 2048, 1, 39.27),
        (PLAIN, Shape(hidden=256, heads=4, inner=4096), 8192, 1, 34.52),
        (PLAIN, Shape(hidden=1024, heads=4, inner=4096), 2048, 8, 36.02),
        (PLAIN, Shape(hidden=256, heads=32, inner=512), 2048, 1, 12.52),
        (WINDOWED, Shape(hidden=256, heads=4, inner=1024), 8192, 1, 17.53),
        (MLA, Shape(hidden=256, heads=4, inner=512), 8192, 1, 13.51),
        (MLA, Shape(hidden=256, heads=16, inner=512), 8192, 1, 23.51),
    ],
)
def test_the_compute_buffer(cache: Cache, shape: Shape, context: int, slots: int, mib: float) -> None:
    assert table(model(cache, shape), context, slots)["compute buffer"].bytes / MIB == pytest.approx(mib, rel=0.03)


@pytest.mark.parametrize(("slots", "mib"), [(1, 46.21), (4, 60.4), (8, 84.77)])
def test_recurrent_states_make_the_compute_buffer_larger(slots: int, mib: float) -> None:
    """Which rows are there at once depends on how many slots share a step: the largest of all is planned for."""
    shape = Shape(hidden=1024, heads=4, inner=3072)
    predicted = table(model(HYBRID, shape), 2048, slots)["compute buffer"].bytes / MIB
    assert mib <= predicted <= 1.25 * mib


@pytest.mark.parametrize(
    ("context", "slots", "peak"), [(2048, 1, 49_800_000), (8192, 8, 142_700_000), (32768, 4, 244_400_000)]
)
def test_all_together_is_within_a_tenth_of_a_tiny_models_peak(context: int, slots: int, peak: int) -> None:
    """Of a process whose slots were all full of text: two layers, 2.7 MB."""
    tiny = model(PLAIN, Shape(hidden=256, heads=4, inner=512, vocabulary=319))
    lines = table(msgspec.structs.replace(tiny, size=2_700_704), context, slots)
    assert sum(line.bytes for line in lines.values()) == pytest.approx(peak, rel=0.1)


def test_all_together_is_within_a_tenth_of_a_real_models_peak() -> None:
    """Qwen2.5-Coder 0.5B, all slots busy."""
    lines = table(msgspec.structs.replace(model(QWEN, QWEN_SHAPE), size=491_400_064), 8192, 8)
    assert sum(line.bytes for line in lines.values()) == pytest.approx(1_454_600_000, rel=0.1)


@pytest.mark.parametrize("shape", [None, QWEN_SHAPE])
@pytest.mark.parametrize("cache", [None, QWEN, MLA, WINDOWED, HYBRID])
def test_more_context_or_slots_make_no_line_smaller(cache: Cache | None, shape: Shape | None) -> None:
    contexts, counts = (2048, 2049, 8192, 131072), (1, 2, 8)
    grown = [[table(model(cache, shape), context, slots) for context in contexts] for slots in counts]
    for row in (*grown, *zip(*grown, strict=True)):
        for less, more in itertools.pairwise(row):
            assert less.keys() <= more.keys()
            assert all(line.bytes <= more[name].bytes for name, line in less.items())


def test_what_is_not_known_of_the_widths_is_rough() -> None:
    unknown, known = table(model(QWEN), 8192, 8), table(model(QWEN, QWEN_SHAPE), 8192, 8)
    for name in ("compute buffer", "tokenizer", "logits"):
        assert (unknown[name].confidence, known[name].confidence) == ("rough", "close")
    assert unknown["compute buffer"].bytes > GB // 20


def test_a_prompt_cache_is_a_line_of_its_own() -> None:
    """Ollama's is 8 GiB where nobody turned it off; ours is."""
    wanted = settings(8192, 1)
    without = terms(model(QWEN, QWEN_SHAPE), wanted, prompt_cache_bytes=0)
    kept = terms(model(QWEN, QWEN_SHAPE), wanted, prompt_cache_bytes=8 * 1024 * MIB)
    assert total(kept) == total(without) + 8 * 1024 * MIB
    assert {term.name for term in kept} - {term.name for term in without} == {"prompt cache"}
    assert without == LlamaCpp().memory(model(QWEN, QWEN_SHAPE), wanted, box())
