"""Our own rows: every number has a dated source, and whatever can be derived again is derived again here."""

from __future__ import annotations

import re
from datetime import date

import pytest

from deploy import catalog
from deploy.catalog import Row, rules
from deploy.catalog.recipe import PLANNED, TRUST
from deploy.catalog.widths import MOST_PER_TOKEN
from deploy.errors import ConfigError
from deploy.resolving import attention, facts
from deploy.soundness import SHA1, SHA256

ROWS = catalog.ours()
PINNED = {
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen2.5-coder-0.5b",
    "qwen2.5-coder-1.5b",
    "smollm2-135m",
}
INDEXED = {"qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m"}
BITS = {"fp32": 32, "bf16": 16, "fp8": 8, "mxfp8": 8, "int8": 8, "int4": 4, "fp4": 4, "nvfp4": 4, "mxfp4": 4}
# What a deployer must act on, as their own texts were read: everything else is MIT, Apache-2.0 or not known.
CONDITIONS = {
    *("deepseek-r1-distill-llama-8b", "deepseek-r1-distill-llama-70b", "kimi-k2", "kimi-k2.5", "kimi-k2.6", "kimi-k3"),
    *("minimax-m2", "minimax-m2.5", "minimax-m3", "minimax-m3.1-flash"),
}
UNKNOWN = {
    *(
        "qwen3-coder-next",
        "qwen3.8-flash-next",
        "qwen3.8-2.4t-a95b",
        "deepseek-v3",
        "deepseek-v3.1",
        "glm-4.7",
        "glm-5",
    ),
    *("glm-5.1", "glm-5.3", "glm-5.3-flash", "kimi-k2-thinking", "kimi-k2.7-code", "minimax-m2.1"),
}
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def test_ids_are_unique_and_every_family_is_there_in_full() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    families = [row.family for row in ROWS]
    assert {family: families.count(family) for family in families} == {
        **{"qwen": 27, "deepseek": 14, "glm": 10},
        **{"kimi": 6, "minimax": 6, "other": 1},
    }


@each_row
def test_a_row_of_ours_breaks_no_rule(row: Row) -> None:
    assert list(rules.flaws(row, date.today())) == []


@each_row
def test_every_number_has_a_dated_source(row: Row) -> None:
    assert row.source
    assert date(2025, 1, 1) <= row.as_of <= date.today()
    entries = (row.licence, *row.gguf, *row.revision, *row.variant, *row.disk, *([row.ollama] if row.ollama else []))
    assert all(entry.source for entry in entries)
    if row.vllm:
        assert row.vllm.recipe or row.vllm.source
        assert all(entry.source for entry in row.vllm.override)


@each_row
def test_what_is_absent_is_said(row: Row) -> None:
    absent = [row.architectures, row.total_params_b, row.context_length, row.native_dtype]
    assert all(absent) or row.unknown


@each_row
def test_kv_bytes_are_what_the_dimensions_give(row: Row) -> None:
    kv = row.kv
    if kv is None or kv.bytes_per_token_bf16 is None:
        assert row.facts().kv_bytes_per_token is None
        return
    if kv.kind == "mla":
        width = (kv.kv_lora_rank or 0) + (kv.qk_rope_head_dim or 0)
    else:
        width = 2 * (kv.kv_heads or 0) * (kv.head_dim or 0)
    layers = kv.kv_layers if kv.kind == "hybrid-gqa" else kv.layers
    assert kv.bytes_per_token_bf16 == (layers or 0) * width * 2 == row.facts().kv_bytes_per_token


@each_row
def test_no_row_keeps_more_per_token_than_a_row_may(row: Row) -> None:
    assert (row.facts().kv_bytes_per_token or 0) <= 376_832 < MOST_PER_TOKEN


@each_row
def test_a_cache_is_claimed_only_for_a_class_whose_formula_is_known(row: Row) -> None:
    if row.kv is None or row.kv.cache is None:
        return
    classes = {"gqa": attention.PLAIN, "mla": attention.MLA, "hybrid-gqa": attention.HYBRID}
    assert set(row.architectures) <= classes[row.kv.cache.kind]


def test_kinds_without_a_closed_form_are_kept_as_facts_only() -> None:
    for name in ("deepseek-v4-flash", "kimi-k3", "minimax-m3"):
        row = catalog.find(name)
        assert row.kv is not None
        assert row.facts().cache is None


@each_row
def test_a_recipes_minimum_holds_at_least_the_weights(row: Row) -> None:
    for one in row.variant:
        mixed = "fp4 experts" in (row.native_dtype or "") and one.precision == "fp8"
        bits = 4 if mixed else BITS[one.precision]
        if one.vram_minimum_gb is not None and row.total_params_b is not None:
            assert one.vram_minimum_gb >= row.total_params_b * bits / 8


@each_row
def test_commits_and_hashes_are_whole_and_of_repositories_that_the_row_names(row: Row) -> None:
    named = {row.hf_repo, *(one.hf_repo for one in row.variant)}
    for revision in row.revision:
        assert SHA1.fullmatch(revision.commit)
        assert revision.hf_repo in named
    for gguf in row.gguf:
        assert gguf.sha256 is None or SHA256.fullmatch(gguf.sha256)
        assert gguf.revision is None or SHA1.fullmatch(gguf.revision)


@each_row
def test_a_gguf_is_named_by_its_file_and_by_the_precision_in_its_name(row: Row) -> None:
    for gguf in row.gguf:
        if gguf.file is not None:
            assert re.fullmatch(r"[\w./-]+\.gguf", gguf.file)
            assert gguf.precision == facts.label(gguf.file)
            assert "mtp-" not in gguf.file
        if gguf.pinned:
            assert gguf.file is not None
            assert "-of-" not in gguf.file


def test_the_pinned_rows_are_the_seven_and_three_are_in_the_package_index() -> None:
    assert {row.id for row in ROWS if row.pinned} == PINNED
    assert {row.id for row in ROWS if row.indexed} == INDEXED


@pytest.mark.parametrize("row", [row for row in ROWS if row.indexed], ids=lambda row: row.id)
def test_wheels_of_a_pinned_row_add_up_to_its_file(row: Row) -> None:
    for gguf in row.gguf:
        for part in gguf.index:
            assert SHA256.fullmatch(part.wheel_sha256)
            assert re.fullmatch(r"[\w./-]+", part.member)
        assert not gguf.index or sum(part.bytes for part in gguf.index) == gguf.bytes


def test_licences_are_as_their_texts_were_read() -> None:
    said = {
        word: {row.id for row in ROWS if row.licence.commercial == word} for word in ("conditions", "no", "unknown")
    }
    assert said == {"conditions": CONDITIONS, "no": {"minimax-m2.7"}, "unknown": UNKNOWN}
    assert {row.licence.spdx for row in ROWS if row.licence.commercial == "yes"} == {"MIT", "Apache-2.0"}
    assert all(row.licence.name is None for row in ROWS if row.id in UNKNOWN)


@each_row
def test_facts_leave_to_the_plan_and_the_lock_what_they_decide(row: Row) -> None:
    for one in (None, *row.weights):
        found = row.facts(one)
        words = [*found.vllm_args, *(word for override in found.overrides for word in override.args)]
        assert not {word.partition("=")[0] for word in words} & {*PLANNED, TRUST}


def test_a_recipe_that_spreads_experts_says_so_to_the_plan() -> None:
    assert "--enable-expert-parallel" in catalog.find("deepseek-r1").facts().vllm_args


def test_flags_follow_the_variant_and_the_generation() -> None:
    row = catalog.find("qwen3-next-80b-a3b")
    nvfp4 = next(one for one in row.weights if one.precision == "nvfp4")
    assert row.facts().vllm_args == ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    assert row.facts(nvfp4).vllm_args == (*row.facts().vllm_args, "--kv-cache-dtype", "fp8")
    (hopper, blackwell) = catalog.find("deepseek-v4-pro").facts().overrides
    assert (hopper.generation, hopper.context, hopper.slots) == ("hopper", 200_000, 16)
    assert blackwell.args[0].startswith("--attention_config.use_fp4_indexer_cache")
    (hopper, _) = catalog.find("kimi-k3").facts().overrides
    assert (hopper.context, hopper.slots) == (32_768, 5)


def test_weights_of_another_model_are_no_variants() -> None:
    listed = {one.hf_repo for one in catalog.find("qwen3-235b-a22b").weights}
    assert "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8" in listed
    assert "Qwen/Qwen3-235B-A22B-FP8" not in listed
    # Dates in a name tell releases apart, and a thinking model is another one than its sibling.
    for row in ROWS:
        dates = {tuple(re.findall(r"-(\d{4})(?!\d)", one.hf_repo)) for one in row.weights}
        assert len(dates) == 1, row.id
        assert len({"Thinking" in one.hf_repo for one in row.weights}) == 1, row.id


def test_naming_flips_at_glm_5_3() -> None:
    native = {name: catalog.find(name).weights[0].precision for name in ("glm-5.2", "glm-5.3", "glm-5.3-flash")}
    assert native == {"glm-5.2": "bf16", "glm-5.3": "fp8", "glm-5.3-flash": "fp8"}


@each_row
def test_one_of_each_precision_and_the_models_own_first(row: Row) -> None:
    assert row.weights[0].hf_repo == row.hf_repo
    for entries in (row.weights, row.ggufs):
        labels = [one.precision for one in entries]
        assert len(set(labels)) == len(labels)


def test_the_makers_copy_comes_before_anothers() -> None:
    assert catalog.find("qwen3-8b").ggufs[0].hf_repo == "Qwen/Qwen3-8B-GGUF"
    assert [one.precision for one in catalog.find("deepseek-v3.2").weights] == ["fp8", "nvfp4", "int4"]


def test_no_tag_leaves_the_machine() -> None:
    tags = [row.ollama.tag for row in ROWS if row.ollama]
    assert len(tags) == 19
    assert not [tag for tag in tags if "cloud" in tag]


def test_facts_count_parameters_exactly() -> None:
    assert catalog.find("qwen3-8b").facts().parameters == 8_200_000_000
    assert catalog.find("qwen3-30b-a3b").facts().active_parameters == 3_300_000_000
    assert catalog.find("qwen3-8b").facts().active_parameters is None


def test_unknown_facts_stay_unknown() -> None:
    assert catalog.find("qwen3-4b").facts().kv_bytes_per_token is None
    found = catalog.find("qwen3-coder-next").facts()
    assert (found.architecture, found.parameters, found.context) == (None, None, None)


def test_a_wrong_id_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.find("qwen3-7b")
    assert "`qwen3-7b`" in caught.value.message
    assert "`qwen3-8b`" in str(caught.value.hint)


def test_a_strange_id_names_the_way_to_a_list() -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.find("zzzzzzzz")
    assert "ownweights models" in str(caught.value.hint)
