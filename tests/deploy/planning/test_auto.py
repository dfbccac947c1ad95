"""`auto`: the order, the limits, and a reason for every row that was passed over."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy import catalog, config, planning
from deploy.catalog import Row, sketch
from deploy.config import EngineWish, ModelWish
from deploy.errors import PlanError
from deploy.hardware import Hardware, detection
from deploy.lockfile import Lock, Model
from deploy.measured import NOTHING, Known, store
from deploy.plan import ModelPlan
from deploy.planning import auto, fitting
from deploy.resolving.locking import Chosen
from deploy.soundness import tree_digest
from serving.engines import ENGINES
from tests.deploy.boxes import GB, LAYOUT, Card, box, gpu, seen, variant
from tests.hubserver import hub

ROWS = {row.id: row for row in catalog.rows()}
SMALL = ROWS["qwen2.5-coder-0.5b"]
LLAMACPP = next(engine for engine in ENGINES if engine.name == "llamacpp")
ONE_CONTEXT = ModelWish(name="x", context=8192, slots=1)
FIXTURES = Path(__file__).parents[2] / "fixtures" / "hardware"


def pick(
    hardware: Hardware | None = None,
    *,
    reachable: bool = True,
    rows: tuple[Row, ...] = catalog.ours(),
    engines: Any = ENGINES,
    insisted: EngineWish = fitting.ANY,
    known: Known = NOTHING,
) -> Chosen:
    return auto.pick(
        rows,
        auto.Box(
            hardware=hardware or box(cores=2),
            engines=engines,
            insisted=insisted,
            known=known,
            reachable=reachable,
        ),
    )


def bandwidth(hardware: Hardware, bytes_per_s: float) -> Hardware:
    memory = msgspec.structs.replace(hardware.memory, bandwidth_bytes_per_s=bytes_per_s)
    return msgspec.structs.replace(hardware, memory=memory)


def reasons(best: Chosen) -> dict[str, str]:
    return {entry.id: entry.reason for entry in best.passed}


def planned(best: Chosen, hardware: Hardware, text: str = "", known: Known = NOTHING) -> ModelPlan:
    """What will run of that row, by the catalogue's figures."""
    model = Model(
        name="chat",
        requested="auto",
        catalogue=best.id,
        reason=best.reason,
        preferred=best.variant,
        passed=best.passed,
        variants=sketch.of(ROWS[best.id]),
    )
    wanted = config.parse(f'[[model]]\nname = "chat"\n{text}')
    locked = Lock(generator="test", inputs="sha256:0", models=(model,))
    (found,) = planning.make(wanted, locked, hardware, ENGINES, LAYOUT, known=known).models
    return found


def like(row: Row, name: str, **fields: Any) -> Row:
    return msgspec.structs.replace(row, id=name, **fields)


class TestWithoutAHub:
    def test_two_cores_get_the_real_qwen_from_the_package_index(self) -> None:
        best = pick(reachable=False)
        assert best.id == "qwen2.5-coder-0.5b"
        assert "only the Hub has it" in best.reason

    def test_more_cores_get_the_larger_one(self) -> None:
        assert pick(box(cores=8), reachable=False).id == "qwen2.5-coder-1.5b"

    def test_the_first_that_only_the_hub_has_is_what_a_hub_would_give(self) -> None:
        missed = [entry.id for entry in pick(reachable=False).passed if entry.reason == auto.AWAY]
        assert missed[0] == pick(reachable=True).id

    def test_little_memory_gets_a_small_model(self) -> None:
        best = pick(box(cores=2, free_bytes=900_000_000), reachable=False)
        assert best.id == "smollm2-135m"
        assert reasons(best)["qwen2.5-coder-0.5b"].endswith("is more than 70% of 900 MB free memory")

    def test_no_gpu_row_is_in_the_index_so_a_gpu_box_is_told(self) -> None:
        with pytest.raises(PlanError, match="only the Hub has it"):
            pick(box(gpus=(gpu(),)), reachable=False)

    def test_of_an_indexed_row_only_what_the_index_has_is_weighed(self) -> None:
        """vLLM alone reads no GGUF, and safetensors are on the Hub."""
        engines = tuple(engine for engine in ENGINES if engine.name == "vllm")
        with pytest.raises(PlanError):
            pick(rows=(SMALL,), engines=engines, reachable=False)
        assert pick(box(cores=8), rows=(SMALL,), engines=engines, reachable=True).id == SMALL.id


class TestOrder:
    def test_it_is_by_parameters(self) -> None:
        best = pick(box(cores=8))
        passed = [ROWS[entry.id].total_params_b or 0 for entry in best.passed]
        assert passed == sorted(passed, reverse=True)
        assert passed[-1] >= (ROWS[best.id].total_params_b or 0)
        assert f"auto: {best.id} is the catalogue row with the most parameters" in best.reason

    def test_of_rows_as_large_the_newer_one_is_better(self) -> None:
        old = like(SMALL, "z-old", as_of=date(2026, 1, 1))
        new = like(SMALL, "a-new", as_of=date(2026, 6, 1))
        assert pick(rows=(old, new)).id == "a-new"
        assert pick(rows=(new, old)).id == "a-new"

    def test_the_next_larger_one_and_what_it_lacks_is_in_the_reason(self) -> None:
        best = pick()
        last = best.passed[-1]
        assert best.reason.endswith(f"next larger, {last.id}: {last.reason}")

    def test_the_order_of_the_rows_decides_nothing(self) -> None:
        assert pick(rows=catalog.ours()[::-1]) == pick()


@pytest.mark.parametrize(
    "hardware",
    [box(cores=2), box(cores=64, free_bytes=256 * GB), box(gpus=(gpu(),)), box(gpus=tuple(map(gpu, range(8))))],
    ids=["2 cores", "64 cores", "one GPU", "eight GPUs"],
)
def test_every_row_that_was_passed_over_has_a_reason_and_a_change(hardware: Hardware) -> None:
    best = pick(hardware)
    assert best.passed
    assert all(entry.reason and entry.change for entry in best.passed)
    larger = {row.id for row in catalog.ours() if (row.total_params_b or 0) > (ROWS[best.id].total_params_b or 0)}
    assert larger <= {entry.id for entry in best.passed}


class TestLicence:
    def test_conditions_pass_a_row_over_and_name_the_words_that_accept_them(self) -> None:
        best = pick(box(cores=64, free_bytes=256 * GB))
        passed = {entry.id: entry for entry in best.passed}
        conditional = [row for row in catalog.ours() if row.licence.commercial != "yes" and row.id in passed]
        assert len(conditional) > 10
        for row in conditional:
            assert f"its licence ({row.licence.spdx})" in passed[row.id].reason
            assert f'source = "{row.id}"' in passed[row.id].change
            assert f'allow-licence = "{row.licence.spdx}"' in passed[row.id].change

    def test_no_row_with_conditions_is_ever_taken(self) -> None:
        conditional = tuple(row for row in catalog.ours() if row.licence.commercial != "yes")
        with pytest.raises(PlanError, match="its licence"):
            pick(box(cores=64, free_bytes=4000 * GB), rows=conditional)


class TestMemory:
    def test_no_more_than_seventy_percent_of_what_is_free(self) -> None:
        way = fitting.choose(SMALL, ONE_CONTEXT, box(cores=2), ENGINES, NOTHING).way
        assert way is not None
        enough = int(way.need_bytes / auto.MEMORY_SHARE)
        assert pick(box(cores=2, free_bytes=enough + 100), rows=(SMALL,)).id == SMALL.id
        with pytest.raises(PlanError, match="is more than 70% of"):
            pick(box(cores=2, free_bytes=enough - 1_000_000), rows=(SMALL,))

    def test_on_a_gpu_the_cache_is_counted_for_one_context_only(self) -> None:
        best = pick(box(gpus=(gpu(total_bytes=80 * GB),)), rows=(ROWS["qwen3-8b"],))
        assert best.id == "qwen3-8b"

    def test_a_smaller_variant_is_weighed_where_the_best_is_too_large(self) -> None:
        """In bf16 it takes 82 % of the GPU, in FP8 less than half."""
        assert pick(box(gpus=(gpu(total_bytes=80 * GB),)), rows=(ROWS["qwen3-32b"],)).id == "qwen3-32b"

    def test_more_memory_never_gives_a_smaller_model(self) -> None:
        sizes = [
            ROWS[pick(box(gpus=(gpu(total_bytes=total * GB),))).id].total_params_b or 0 for total in range(16, 180, 4)
        ]
        assert sizes == sorted(sizes)

    def test_no_row_left_names_every_reason(self) -> None:
        with pytest.raises(PlanError, match="no catalogue row fits") as caught:
            pick(box(cores=2, free_bytes=1000), reachable=False)
        lines = caught.value.message.splitlines()[1:]
        assert len(lines) == len(catalog.ours())
        assert all(" → " in line for line in lines)
        assert any(line.startswith("  smollm2-135m: needs ") for line in lines)


class TestSpeed:
    def test_a_slow_row_is_passed_over_on_a_cpu(self) -> None:
        hardware = bandwidth(box(cores=64, free_bytes=256 * GB), 20e9)
        best = pick(hardware)
        assert reasons(best)["qwen3-8b"].endswith("tokens/s per stream, fewer than 15")

    def test_more_bandwidth_gives_a_larger_model(self) -> None:
        size = [
            ROWS[pick(bandwidth(box(cores=64, free_bytes=64 * GB), speed)).id].total_params_b or 0
            for speed in (10e9, 40e9, 400e9)
        ]
        assert size == sorted(size)
        assert size[0] < size[-1]

    def test_a_faster_variant_is_weighed_where_the_best_is_too_slow(self) -> None:
        """Q8_0 would keep more bits, and be too slow; Q4_K_M is fast enough."""
        row = ROWS["qwen3.6-35b-a3b"]
        assert {one.precision for one in row.ggufs} >= {"Q4_K_M", "Q8_0"}
        assert pick(box(cores=64, free_bytes=64 * GB), rows=(row,)).id == row.id

    def test_on_a_gpu_it_is_that_of_the_gpus_that_the_plan_gives(self) -> None:
        """A T4 beside an H100, and too small for it."""
        small = gpu(total_bytes=16 * GB)
        small = Card(msgspec.structs.replace(small.gpu, name="Tesla T4", compute_capability="7.5"), small.reading)
        row = ROWS["qwen3-8b"]
        beside = pick(box(gpus=(small, gpu(1))), rows=(row,))
        assert beside == pick(box(gpus=(gpu(),)), rows=(row,))
        # 16.7 GB at half of 3350 GB/s, and 2 ms.
        assert "predicted 83 tokens/s" in beside.reason

    def test_on_a_gpu_speed_passes_nothing_over(self) -> None:
        """A slow card: 16.7 GB of weights at half of 320 GB/s, and 2 ms, are 9.4 tokens/s."""
        slow = gpu(total_bytes=80 * GB)
        slow = Card(msgspec.structs.replace(slow.gpu, name="Tesla T4"), slow.reading)
        best = pick(box(gpus=(slow,)), rows=(ROWS["qwen3-8b"],))
        assert "predicted 9 tokens/s" in best.reason


class TestMeasured:
    """A benchmark on this box, of the pinned file of a row that the package index has."""

    LARGER = ROWS["qwen2.5-coder-1.5b"]

    def speed(self, tokens_per_s: float, cores: int = 2) -> Known:
        """As a benchmark of the locked file leaves it."""
        (file,) = (gguf.pin for gguf in self.LARGER.ggufs if gguf.pin)
        locked = msgspec.structs.replace(variant(), tree=tree_digest((file,)), files=(file,))
        return seen(locked, LLAMACPP, box(cores=cores), tokens_per_s=tokens_per_s)

    def pick(self, known: Known, cores: int = 2) -> Chosen:
        return pick(box(cores=cores), rows=(SMALL, self.LARGER), reachable=False, known=known)

    def test_a_row_that_was_predicted_too_slow_is_taken(self) -> None:
        assert reasons(self.pick(NOTHING))[self.LARGER.id].startswith("predicted 14 tokens/s")
        best = self.pick(self.speed(15.0))
        assert best.id == self.LARGER.id
        assert "(measured 15 tokens/s per stream)" in best.reason

    def test_a_row_that_was_predicted_fast_enough_is_passed_over(self) -> None:
        assert self.pick(NOTHING, cores=8).id == self.LARGER.id
        best = self.pick(self.speed(14.0, cores=8), cores=8)
        assert best.id == SMALL.id
        assert reasons(best)[self.LARGER.id] == "measured 14 tokens/s per stream, fewer than 15"

    @pytest.mark.parametrize(
        "other",
        [
            {"tree": "sha256:" + "0" * 64},
            {"engine": "vllm"},
            {"device": "gpu"},
            {"engine_version": "0"},
            {"hardware": box(cores=4).fingerprint},
        ],
        ids=lambda other: next(iter(other)),
    )
    def test_what_was_measured_of_something_else_changes_nothing(self, other: dict[str, str]) -> None:
        (entry,) = self.speed(15.0).entries
        known = Known(entries=(msgspec.structs.replace(entry, **other),))
        assert self.pick(known) == self.pick(NOTHING)

    def test_it_is_read_from_where_benchmarks_leave_it(self) -> None:
        assert auto.choose(box(cores=2), ENGINES, "chat").id == SMALL.id
        for entry in self.speed(15.0).entries:
            store.add(entry)
        assert auto.choose(box(cores=2), ENGINES, "chat").id == self.LARGER.id


class TestInsisted:
    """What [engines] of models.toml says."""

    def test_without_the_gpu_it_is_what_the_cpu_can_do(self) -> None:
        both = box(cores=2, gpus=(gpu(),))
        accepted = pick(both, insisted=EngineWish(gpu="none"))
        assert accepted.id == pick(box(cores=2)).id != pick(both).id

    def test_a_cpu_engine_reads_only_what_it_reads(self) -> None:
        """vLLM reads no GGUF, and nothing else is in the package index."""
        assert pick(rows=(SMALL,), reachable=False).id == SMALL.id
        with pytest.raises(PlanError, match='cpu = "vllm"'):
            pick(rows=(SMALL,), reachable=False, insisted=EngineWish(cpu="vllm"))

    def test_the_command_obeys_it_too(self) -> None:
        both = box(cores=2, gpus=(gpu(),))
        chosen = auto.choose(both, ENGINES, "chat", insisted=EngineWish(gpu="none"))
        assert chosen.id == auto.choose(box(cores=2), ENGINES, "chat").id


class TestVariants:
    """Each is weighed by itself."""

    def test_what_is_told_of_a_row_is_the_one_that_lacks_least(self) -> None:
        """In int4 it runs on one H100, though with less than 30 % of its memory free; bf16 would need four."""
        best = pick(box(gpus=(gpu(total_bytes=85 * GB),)))
        assert reasons(best)["qwen3.5-122b-a10b"].endswith("is more than 70% of 85.0 GB free memory")

    def test_of_several_that_would_run_and_are_slow_the_smallest_is_told(self) -> None:
        """At 0.8 of 200 GB/s: int4 has 19.2 GB, bf16 65.3, which would be 2 tokens/s."""
        row = ROWS["qwen3-32b"]
        with pytest.raises(PlanError, match=r"predicted 8 tokens/s per stream, fewer than 15") as caught:
            pick(bandwidth(box(cores=64, free_bytes=256 * GB), 200e9), rows=(row,))
        assert 'source = "qwen3-32b" in models.toml' in caught.value.message

    def test_where_none_would_run_the_least_that_would_help_is_told(self) -> None:
        """On GPUs, as there are some: RAM alone would help the CPU only."""
        row = ROWS["qwen3-235b-a22b"]
        with pytest.raises(PlanError) as caught:
            pick(box(gpus=(gpu(),)), rows=(row,))
        (line,) = caught.value.message.splitlines()[1:]
        assert re.search(r"needs .* on each of 1 GPU, and 73\.6 GB can be taken → 4 GPUs with 80\.0 GB free", line)

    def test_the_preferred_engine_comes_before_more_bits(self) -> None:
        """As in the plan: vLLM would run bf16 on this CPU too; 0.49 GB at 40 GB/s are 81 tokens/s."""
        best = pick(box(cores=64, free_bytes=64 * GB), rows=(SMALL,))
        assert "predicted 81 tokens/s" in best.reason

    def test_one_whose_cache_is_not_known_is_not_taken_for_granted(self) -> None:
        blind = like(SMALL, "blind", kv=None, total_params_b=0.6)
        best = pick(rows=(blind, SMALL))
        assert best.id == SMALL.id
        assert reasons(best)["blind"] == "the size of its KV cache is not known before it is locked"


class TestGpu:
    def test_it_gets_a_larger_model_than_the_cpu_beside_it(self) -> None:
        beside = pick(box(gpus=(gpu(),)))
        alone = pick(box())
        assert (ROWS[beside.id].total_params_b or 0) > (ROWS[alone.id].total_params_b or 0)

    def test_eight_get_a_larger_one_than_one(self) -> None:
        many, one = pick(box(gpus=tuple(map(gpu, range(8))))), pick(box(gpus=(gpu(),)))
        assert (ROWS[many.id].total_params_b or 0) > (ROWS[one.id].total_params_b or 0)

    def test_one_that_cannot_be_used_is_no_reason_to_take_the_cpu(self) -> None:
        with pytest.raises(PlanError, match="driver 580 or newer"):
            pick(detection.load(FIXTURES / "old-driver.json"), rows=(SMALL,))


class TestOutcome:
    def test_an_unreachable_hub_is_one_loud_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        best = auto.choose(box(cores=2), ENGINES, "chat")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: the Hub (http://127.0.0.1:9) cannot be reached")
        assert f"`chat` is `qwen2.5-coder-0.5b` instead of `{pick().id}`" in line
        assert "ownweights lock --upgrade chat && make deploy" in line
        assert best.id in best.reason

    def test_a_reachable_hub_is_not_mentioned(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with hub([]) as running:
            monkeypatch.setenv("HF_ENDPOINT", running.url)
            assert auto.choose(box(cores=2), ENGINES, "chat").id == pick().id
        assert capsys.readouterr().err == ""


BOXES = {
    "2 cores": box(cores=2),
    "64 cores": box(cores=64, free_bytes=64 * GB),
    "one GPU": box(gpus=(gpu(),)),
    "four GPUs": box(cores=32, gpus=tuple(map(gpu, range(4)))),
}


class TestPlanned:
    """The plan runs what was weighed here."""

    @pytest.mark.parametrize("hardware", BOXES.values(), ids=BOXES)
    def test_the_pace_in_the_reason_is_that_of_the_plan(self, hardware: Hardware) -> None:
        best = pick(hardware)
        found = planned(best, hardware)
        assert found.speed is not None
        assert found.variant == best.variant
        assert f"({found.speed.provenance} {found.speed.tokens_per_s:.0f} tokens/s per stream)" in best.reason
        assert found.because[0] == best.reason

    def test_a_measured_pace_is_that_of_the_plan_too(self) -> None:
        row = TestMeasured.LARGER
        known = TestMeasured().speed(15.0)
        best = pick(box(cores=2), rows=(SMALL, row), reachable=False, known=known)
        found = planned(best, box(cores=2), known=known)
        assert found.speed is not None
        assert (found.speed.provenance, found.speed.tokens_per_s) == ("measured", 15.0)

    def test_a_larger_variant_that_fits_is_taken_by_its_name_only(self) -> None:
        """Q8_0 has room too, and is too slow."""
        hardware = BOXES["64 cores"]
        best = pick(hardware, rows=(ROWS["qwen3.6-35b-a3b"],))
        forgotten = msgspec.structs.replace(best, variant=None)
        assert best.variant == planned(best, hardware).variant == "gguf/Q4_K_M"
        assert planned(forgotten, hardware).variant == "gguf/Q8_0"
        assert planned(best, hardware, 'precision = "Q8_0"').variant == "gguf/Q8_0"

    def test_rows_that_were_passed_over_are_in_the_plan_the_nearest_first(self) -> None:
        hardware = BOXES["2 cores"]
        best = pick(hardware)
        rows = [entry for entry in planned(best, hardware).rejected if entry.device is None]
        assert [(entry.what, entry.reason, entry.change) for entry in rows] == [
            (f"catalogue row {one.id}", one.reason, one.change) for one in best.passed[::-1]
        ]
