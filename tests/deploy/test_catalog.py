import re

import pytest

from deploy import catalog
from deploy.errors import ConfigError
from deploy.soundness import SHA1, SHA256

ROWS = catalog.rows()
PINNED = {
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen2.5-coder-0.5b",
    "qwen2.5-coder-1.5b",
    "smollm2-135m",
}
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def test_ids_are_unique_and_every_family_is_there():
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert {row.family for row in ROWS} >= {"qwen", "deepseek", "glm", "kimi", "minimax"}


@each_row
def test_every_number_has_a_dated_source(row):
    assert row.source
    assert row.as_of.year >= 2025
    assert row.licence.source
    for entry in (*row.gguf, *row.revision):
        assert entry.source


@each_row
def test_kv_bytes_are_what_the_dimensions_give(row):
    if row.kv is None:
        return
    kv = row.kv
    per_layer = 2 * kv.kv_heads * kv.head_dim if kv.kind == "gqa" else kv.kv_lora_rank + kv.qk_rope_head_dim
    assert kv.bytes_per_token_bf16 == kv.layers * per_layer * 2


@each_row
def test_commits_and_hashes_are_whole(row):
    for revision in row.revision:
        assert SHA1.fullmatch(revision.commit)
    for gguf in row.gguf:
        assert SHA256.fullmatch(gguf.sha256)
        assert gguf.revision is None or SHA1.fullmatch(gguf.revision)


def test_the_pinned_rows_are_the_seven():
    assert {row.id for row in ROWS if row.pinned} == PINNED


@pytest.mark.parametrize("row", [row for row in ROWS if row.pinned], ids=lambda row: row.id)
def test_wheels_of_a_pinned_row_add_up_to_its_file(row):
    for gguf in row.gguf:
        for part in gguf.index:
            assert SHA256.fullmatch(part.wheel_sha256)
            assert re.fullmatch(r"[\w./-]+", part.member)
        assert not gguf.index or sum(part.bytes for part in gguf.index) == gguf.bytes


def test_facts_never_let_a_repositorys_code_run():
    assert "--trust-remote-code" in catalog.find("kimi-k2.5").vllm.base_args
    assert all("--trust-remote-code" not in row.facts.vllm_args for row in ROWS)


def test_facts_leave_to_the_plan_what_the_plan_decides():
    row = catalog.find("kimi-k3")
    assert "--gpu-memory-utilization" in row.vllm.base_args
    assert row.facts.vllm_args[:2] == ("--enable-auto-tool-choice", "--tool-call-parser")


def test_facts_count_parameters_exactly():
    assert catalog.find("qwen3-8b").facts.parameters == 8_200_000_000
    assert catalog.find("qwen3-30b-a3b").facts.active_parameters == 3_300_000_000
    assert catalog.find("qwen3-8b").facts.active_parameters is None


def test_unknown_dimensions_stay_unknown():
    assert catalog.find("qwen3-4b").facts.kv_bytes_per_token is None


def test_a_wrong_id_names_the_nearest():
    with pytest.raises(ConfigError) as caught:
        catalog.find("qwen3-7b")
    assert "`qwen3-7b`" in caught.value.message
    assert "`qwen3-8b`" in caught.value.hint


def test_a_strange_id_names_the_way_to_a_list():
    with pytest.raises(ConfigError) as caught:
        catalog.find("zzzzzzzz")
    assert "ownweights models" in caught.value.hint
