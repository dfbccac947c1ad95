"""Rows that a user adds: read at first use, shown as theirs, and refused with file, line and a way out."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from deploy import catalog, paths
from deploy.catalog import sketch, user
from deploy.errors import ConfigError

TODAY = date(2026, 11, 24)
ROW = """\
[[model]]
id = "our-4b"
hf_repo = "our/Model-4B"
architectures = ["Qwen3ForCausalLM"]
total_params_b = 4
native_dtype = "bfloat16"
context_length = 8192
source = ["our own training"]
as_of = 2026-11-01

[model.licence]
spdx = "Apache-2.0"
commercial = "yes"
source = "LICENSE in the repository"
"""
GGUF = '\n[[model.gguf]]\nhf_repo = "our/Model-4B-GGUF"\nsource = "us"\n'
OVERRIDE = '\n[model.vllm]\n[[model.vllm.override]]\ngeneration = "hopper"\nsource = "us"\n'
FP8 = '\n[[model.variant]]\nhf_repo = "a/b"\nsource = "us"\nprecision = "fp8"\n'
MLA = '\n[model.kv]\nkind = "mla"\nlayers = 2\nkv_lora_rank = 8\nqk_rope_head_dim = 4\n'
KV = '\n[model.kv]\nkind = "gqa"\nlayers = 2\nkv_heads = 2\nhead_dim = 64\n'


def write(text: str, name: str = "ours.toml") -> Path:
    path = paths.catalogue_dir() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(text: str) -> ConfigError:
    write(text)
    with pytest.raises(ConfigError) as caught:
        catalog.rows()
    return caught.value


def test_a_row_is_added() -> None:
    write(ROW)
    assert catalog.find("our-4b").facts().parameters == 4_000_000_000
    assert catalog.users() == {"our-4b"}
    assert len(catalog.rows()) == len(catalog.ours()) + 1


def test_without_files_there_are_only_ours() -> None:
    assert catalog.users() == frozenset()
    assert catalog.rows() == catalog.ours()


def test_a_row_with_the_id_of_ours_replaces_it() -> None:
    write(ROW.replace("our-4b", "qwen3-4b"))
    assert catalog.find("qwen3-4b").hf_repo == "our/Model-4B"
    assert [row.id for row in catalog.rows()].count("qwen3-4b") == 1


def test_a_users_file_does_not_say_whose_code_is_built_in() -> None:
    write(ROW.replace("Qwen3ForCausalLM", "OurOwnForCausalLM"))
    assert catalog.rows()[-1].architectures == ("OurOwnForCausalLM",)
    assert "OurOwnForCausalLM" not in catalog.architectures()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[[model]\n", 1, "not valid TOML"),
        (ROW.replace("id =", "idd =", 1), 2, "unknown key 'idd'"),
        (ROW.replace('source = "LICENSE in the repository"\n', ""), 11, "missing required field `source`"),
        (ROW.partition("[model.licence]")[0], 1, "missing required field `licence`"),
        (ROW.replace('["our own training"]', "[]"), 8, "must name where the facts are from"),
        (ROW.replace("2026-11-01", "2126-11-01"), 9, "2126-11-01 is in the future"),
        (ROW.replace("total_params_b = 4", "total_params_b = -4"), 5, "is -4, must be between 0.001 and 1000000"),
        (ROW.replace("total_params_b = 4", 'total_params_b = "4"'), 5, "got `str`"),
        (ROW.replace("total_params_b = 4", "total_params_b = inf"), 5, "is inf, must be between"),
        (ROW.replace("total_params_b = 4", "total_params_b = 1e-300"), 5, "is 1e-300, must be between 0.001"),
        (ROW.replace("context_length = 8192", "active_params_b = nan"), 7, "is nan, must be between 0.001"),
        (ROW + GGUF + "size_gb = inf\n", 19, "is inf"),
        (ROW + GGUF + "bytes = 0\n", 19, "is 0, must be between 1 and"),
        (ROW + GGUF + "size_gb = 1e-9\n", 19, "is 1e-09, must be between 0.001"),
        (ROW + '\n[[model.disk]]\nprecision = "fp8"\nsource = "x"\ntib = -1\n', 19, "is -1"),
        (ROW.replace("our/Model-4B", "../x"), 3, "is not of the form `org/name`"),
        (ROW.replace("our-4b", "auto"), 2, "not `auto`"),
        (ROW + ROW, 16, "`our-4b` is described twice"),
        (ROW + GGUF + 'file = "../x.gguf"\nprecision = "Q8_0"\n', 19, "is not the path of a .gguf file"),
        (ROW + GGUF + 'file = "x-Q8_0.gguf"\n', 16, "is missing: what the file's name states"),
        (ROW + GGUF + 'sha256 = "abc"\n', 19, "is not 64 hex digits"),
        (ROW + '\n[[model.revision]]\nhf_repo = "a/b"\nevidence = "x"\nsource = "x"\ncommit = "main"\n', 20, "40 hex"),
        (ROW + KV + "bytes_per_token_bf16 = 9\n", 21, "is 9, the dimensions give 1024"),
        (ROW + KV.replace("head_dim = 64\n", ""), 16, "of kind gqa needs head_dim"),
        (ROW + KV.replace("64", "0"), 20, "expected `int` >= 1"),
        (ROW + KV.replace("layers = 2", "layers = -3"), 18, "expected `int` >= 1"),
        (ROW + KV.replace("64", "4294967297"), 20, "expected `int` <= 4294967296"),
        (ROW + KV + "sliding_window = -9\n", 21, "expected `int` >= 1"),
        (ROW + KV.replace("64", "1073741824"), 16, "bytes per token, must be at most 1073741824"),
        (ROW + KV + "bytes_per_token_bf16 = 1073741825\n", 21, "expected `int` <= 1073741824"),
        (ROW + KV + "kv_layers = 3\n", 21, "is 3, of 2 layers"),
        (ROW + KV + "index_head_dim = 4\n", 21, "belongs to kind mla"),
        (ROW + KV.replace("gqa", "sparse-gqa") + "index_layers = 1\n", 21, "belongs to kind mla"),
        (ROW + MLA + "index_head_dim = -4\n", 21, "expected `int` >= 1"),
        (ROW + MLA + "index_head_dim = 4\nindex_layers = 3\n", 22, "is 3, of 2 layers"),
        (ROW + MLA + "index_layers = 1\n", 21, "needs index_head_dim"),
        (ROW + MLA.replace("qk_rope_head_dim = 4\n", ""), 16, "of kind mla needs qk_rope_head_dim"),
        (ROW + KV.replace("gqa", "hybrid-gqa"), 16, "of kind hybrid-gqa needs kv_layers"),
        (ROW + OVERRIDE + "context = -5\n", 20, "expected `int` >= 1"),
        (ROW + OVERRIDE + "slots = 0\n", 20, "expected `int` >= 1"),
        (ROW + OVERRIDE + 'args = ["--host", "0.0.0.0"]\n', 20, "`our-4b` has `--host`, which no recipe"),
        (ROW + OVERRIDE + 'env = { LD_PRELOAD = "x.so" }\n', 20, "LD_PRELOAD` of `our-4b` is `x.so`, which no recipe"),
        (ROW + OVERRIDE + "[model.vllm.override.env]\nVLLM_PLUGINS = 'x'\n", 21, "VLLM_PLUGINS` of `our-4b`"),
        (ROW + OVERRIDE + "env = { VLLM_USE_DEEP_GEMM = '/x' }\n", 20, "is `/x`, which no recipe"),
        (ROW + '\n[model.vllm]\nbase_args = ["--hf-overrides={}"]\n', 17, "`our-4b` has `--hf-overrides`"),
        (ROW + FP8 + 'extra_args = ["-tp", "8"]\n', 20, "has `-tp`"),
        (ROW + '\n[model.shape]\nheads = 0\nsource = "us"\n', 17, "expected `int` >= 1"),
        (ROW + "\n[model.shape]\nheads = 8\n", 16, "missing required field `source`"),
        (ROW + KV.replace('"gqa"', '"gqaa"'), 17, "invalid enum value 'gqaa'"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    error = refused(text)
    assert said in error.message
    assert error.where == f"{paths.catalogue_dir() / 'ours.toml'}:{line}"
    assert error.hint


def test_an_unknown_key_names_the_nearest() -> None:
    hint = refused(ROW.replace("context_length", "context_lenght")).hint or ""
    aside = f"mv {paths.catalogue_dir() / 'ours.toml'} {paths.catalogue_dir() / 'ours.toml.off'}"
    assert hint == f"did you mean `context_length`? Or set the file aside: {aside}"
    hint = refused(ROW + "x = 1\n").hint or ""
    assert hint == f"known here: spdx, commercial, source, note. Or set the file aside: {aside}"


def test_wheels_belong_to_a_pinned_file_and_add_up_to_it() -> None:
    part = (
        f'\n[[model.gguf.index]]\npackage = "p"\nversion = "1"\nmember = "m"\nbytes = 3\nwheel_sha256 = "{"0" * 64}"\n'
    )
    named = f'{GGUF}file = "x-Q8_0.gguf"\nprecision = "Q8_0"\nsha256 = "{"0" * 64}"\n'
    assert "needs the file's revision" in refused(ROW + named + part).message
    named += f'revision = "{"0" * 40}"\nbytes = 4\n'
    assert "adds up to 3 bytes, the file has 4" in refused(ROW + named + part).message
    write(ROW + named.replace("bytes = 4", "bytes = 3") + part)
    assert catalog.find("our-4b").indexed


def test_a_file_that_cannot_be_read_is_named_with_a_way_out() -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        catalog.find("qwen3-8b")
    assert caught.value.where == str(path)
    assert caught.value.hint == f"correct it, or set it aside: mv {path} {path}.off"
    path.rename(f"{path}.off")
    assert catalog.find("qwen3-8b")


def test_what_a_recipe_may_say_is_a_users_to_say() -> None:
    env = 'env = { VLLM_USE_DEEP_GEMM = "0", NCCL_NVLS_ENABLE = "1" }\ncontext = 4096\nslots = 1\n'
    write(ROW + '\n[model.vllm]\nbase_args = ["--max-model-len", "9", "--kv-cache-dtype=fp8", "--trust-remote-code"]\n')
    assert catalog.find("our-4b").facts().vllm_args == ("--kv-cache-dtype=fp8",)
    write(ROW.replace("our-4b", "our-5b") + OVERRIDE + env, "others.toml")
    assert user.rows(paths.catalogue_dir(), TODAY)["our-5b"].facts().overrides[0].slots == 1


def test_an_empty_file_adds_nothing() -> None:
    write("# later\n")
    assert catalog.users() == frozenset()


def test_a_pipe_a_device_and_a_folder_are_no_files_of_rows() -> None:
    """Nobody writes to the pipe, and the device never ends."""
    path = write("")
    for make in (os.mkfifo, lambda at: at.symlink_to("/dev/zero")):
        path.unlink()
        make(path)
        with pytest.raises(ConfigError, match="not a plain file") as caught:
            user.rows(path.parent, TODAY)
        assert caught.value.where == str(path)
        assert "mv " in str(caught.value.hint)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        user.rows(path.parent, TODAY)


def test_a_file_is_read_up_to_a_limit() -> None:
    write("#" * user.MOST_BYTES)
    with pytest.raises(ConfigError, match="too long"):
        user.rows(paths.catalogue_dir(), TODAY)
    write("#" * (user.MOST_BYTES + 1))
    with pytest.raises(ConfigError, match=f"more than {user.MOST_BYTES} bytes"):
        user.rows(paths.catalogue_dir(), TODAY)


def test_a_file_in_place_of_the_folder_is_said() -> None:
    folder = paths.catalogue_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text(ROW)
    with pytest.raises(ConfigError, match="folder cannot be read") as caught:
        catalog.rows()
    assert caught.value.where == str(folder)
    assert caught.value.hint == f"correct it, or set it aside: mv {folder} {folder}.off"


def test_no_sketch_is_of_a_size_that_no_weights_have() -> None:
    small = GGUF + 'precision = "Q8_0"\nfile = "x-Q8_0.gguf"\nbytes = 999999\n'
    write(ROW + small + f'sha256 = "{"0" * 64}"\nrevision = "{"0" * 40}"\n')
    assert [one.key for one in sketch.of(catalog.find("our-4b"))] == ["safetensors/bf16"]
