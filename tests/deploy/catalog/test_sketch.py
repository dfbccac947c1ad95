"""Sketches: what can be weighed of a row before it is locked, and how large it is taken to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import catalog, config
from deploy.catalog import Row, sketch
from deploy.lockfile import Variant
from deploy.resolving import locking

GB = 10**9


def _never(_: str) -> locking.Chosen:
    raise AssertionError("nothing is to be chosen")


def variants(name: str) -> tuple[Row, dict[str, Variant]]:
    row = catalog.find(name)
    return row, {one.key: one for one in sketch.of(row)}


def test_a_pinned_file_is_as_large_as_it_is_and_has_its_places() -> None:
    row, found = variants("qwen2.5-coder-0.5b")
    one = found["gguf/Q4_K_M"]
    assert one.size == 491_400_064
    assert [place.kind for place in one.places] == ["hub", "index"]
    assert one.files == ()
    assert one.origin.commit == row.gguf[0].revision


def test_a_pinned_file_is_known_by_the_bytes_that_are_locked(tmp_path: Path) -> None:
    """So that what was measured of it is found again."""
    wanted = config.parse('[[model]]\nname = "chat"\nsource = "qwen2.5-coder-0.5b"')
    made = locking.lock(wanted, previous=None, engines=(), choose=_never, base=tmp_path)
    (locked,) = made.models[0].variants
    _, found = variants("qwen2.5-coder-0.5b")
    assert (found[locked.key].tree, found[locked.key].size) == (locked.tree, locked.size)
    assert found["safetensors/bf16"].tree == ""


def test_a_stated_size_is_that_of_the_one_who_stated_it() -> None:
    _, found = variants("qwen3.8-27b")
    assert found["gguf/Q4_K_XL"].size == 18_800_000_000
    assert found["safetensors/bf16"].size == round(51.7 * 2**30)


def test_else_parameters_times_width_and_a_little_more() -> None:
    _, found = variants("qwen3-32b")
    for key, nominal in {"safetensors/bf16": 64, "safetensors/fp8": 32, "safetensors/int4": 16}.items():
        assert nominal * GB <= found[key].size <= nominal * GB * 1.25
    # bartowski's real file of this precision has 19.8 GB.
    assert found["gguf/Q4_K_M"].size == pytest.approx(19.8 * GB, rel=0.05)


@pytest.mark.parametrize("name", ["qwen3-4b", "qwen3-8b"])
def test_what_would_be_computed_of_a_file_is_near_what_it_has(name: str) -> None:
    row = catalog.find(name)
    (gguf,) = (one for one in row.gguf if one.pinned)
    computed = (row.total_params_b or 0) * GB * sketch.GGUF_BITS["Q4_K_M"] / 8 * sketch.GGUF_ALLOWANCE
    assert computed == pytest.approx(gguf.bytes, rel=0.06)


def test_facts_and_origin_are_of_the_variant() -> None:
    row, found = variants("qwen3.6-35b-a3b")
    fp8 = found["safetensors/fp8"]
    assert (fp8.origin.repo, fp8.origin.commit) == (
        "Qwen/Qwen3.6-35B-A3B-FP8",
        row.commit_of("Qwen/Qwen3.6-35B-A3B-FP8"),
    )
    assert "--moe-backend" in found["safetensors/nvfp4"].facts.vllm_args
    assert "--moe-backend" not in fp8.facts.vllm_args


def test_what_nobody_can_weigh_is_left_out() -> None:
    assert variants("qwen3-coder-next")[1] == {}
    row, found = variants("kimi-k2.6")
    assert set(found) == {"safetensors/int4", "safetensors/nvfp4"}
    assert [one.precision for one in row.ggufs] == ["Q8_K_XL"]


def test_every_row_but_two_can_be_weighed_in_every_precision_of_its_safetensors() -> None:
    for row in catalog.ours():
        weighed = {one.precision for one in sketch.of(row) if one.format == "safetensors"}
        if row.id not in ("qwen3-coder-next", "minimax-m3.1-flash"):
            assert weighed == {one.precision for one in row.weights}, row.id
