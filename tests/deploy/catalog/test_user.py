"""Rows that a user adds: read at first use, shown as theirs, and refused with file, line and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import catalog, paths
from deploy.errors import ConfigError

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
        (ROW.replace("total_params_b = 4", "total_params_b = -4"), 5, "is -4, must be more than 0"),
        (ROW.replace("total_params_b = 4", 'total_params_b = "4"'), 5, "got `str`"),
        (ROW.replace("total_params_b = 4", "total_params_b = inf"), 5, "is inf, must be more than 0 and at most"),
        (ROW.replace("context_length = 8192", "active_params_b = nan"), 7, "is nan, must be more than 0"),
        (ROW + GGUF + "size_gb = inf\n", 19, "is inf"),
        (ROW + GGUF + "bytes = 0\n", 19, "is 0, must be more than 0"),
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
        (ROW + KV.replace("64", "0"), 16, "not more than 0"),
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
    assert refused(ROW.replace("context_length", "context_lenght")).hint == "did you mean `context_length`?"


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
