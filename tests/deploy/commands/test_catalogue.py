"""`models`: columns that fit a terminal, ids for scripts, JSON with everything, and whose rows they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import catalog, cli, paths
from deploy.commands import catalogue
from deploy.planning.fitting import Fit
from tests.deploy.catalog.test_user import ROW

BOX = Path(__file__).parents[2] / "fixtures" / "hardware" / "vm-2core-24gb.json"


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(["models", *args])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


@pytest.fixture
def theirs() -> None:
    path = paths.catalogue_dir() / "ours.toml"
    path.parent.mkdir(parents=True)
    path.write_text(ROW)


def test_the_table_fits_a_terminal_and_says_what_is_unknown(capsys: pytest.CaptureFixture[str], theirs: None) -> None:
    code, out, _ = run(capsys)
    lines = {line.split()[0]: line.split() for line in out.splitlines()}
    assert code == 0
    assert max(map(len, out.splitlines())) <= catalogue.COLUMNS
    assert set(lines) == {"ID", *(row.id for row in catalog.rows())}
    assert lines["qwen3-30b-a3b"][1:6] == ["30.5B", "3.3B", "40960", "Apache-2.0", "hub"]
    assert lines["qwen2.5-coder-0.5b"][5:] == ["index", "bf16", "Q4_K_M"]
    assert lines["qwen3-8b"][5:] == ["pinned", "bf16", "fp8", "int4", "Q4_K_M"]
    assert lines["kimi-k3"][1:3] == ["2800B", "unknown"]
    assert lines["qwen3-coder-next"][1:5] == ["unknown"] * 4
    assert lines["our-4b"][5:7] == ["hub,", "yours"]


def test_ids_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "-q")
    assert (code, sorted(out.split())) == (0, sorted(row.id for row in catalog.ours()))


def test_json_has_every_fact_and_its_source(capsys: pytest.CaptureFixture[str], theirs: None) -> None:
    code, out, _ = run(capsys, "--json")
    rows = {row["id"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["qwen3-8b"]["licence"]["source"]
    assert [name for name, row in rows.items() if row["user"]] == ["our-4b"]


def test_a_users_file_that_is_wrong_is_one_error(capsys: pytest.CaptureFixture[str], theirs: None) -> None:
    (paths.catalogue_dir() / "ours.toml").write_text("[[model]]\nid = 3\n")
    code, out, err = run(capsys)
    assert (code, out) == (1, "")
    assert err.startswith("error: a row of the catalogue: expected `str`, got `int`")
    assert "ours.toml:2" in err
    assert "hint: " in err


def test_a_box_without_the_question_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--hardware", str(BOX))
    assert code == 1
    assert "--hardware needs --fits" in err


def test_what_fits_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--fits", "--json", "--hardware", str(BOX))
    fits = json.loads(out)
    verdicts = [fit["verdict"] for fit in fits]
    assert code == 0
    assert verdicts == sorted(verdicts, key=catalogue.VERDICTS.index)
    by_id = {fit["id"]: fit for fit in fits}
    assert by_id["qwen2.5-coder-0.5b"]["verdict"] in ("fits", "limits")
    assert by_id["kimi-k3"]["verdict"] == "no"
    assert by_id["kimi-k3"]["change"]
    assert by_id["qwen3-coder-next"]["verdict"] == "unknown"


def test_its_table_cuts_what_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    long = Fit(id="x" * 29, verdict="no", change="a box with more of everything " * 9)
    good = Fit(id="y", verdict="fits", variant="gguf/Q4_K_M", engine="llamacpp", context_tokens=8192, tokens_per_s=41.7)
    wide = Fit(id="z", verdict="limits", variant="safetensors/bf16", engine="vllm", gpus=8, limits=("2 slots, not 8",))
    catalogue._table((good, wide, long))
    runs, others = capsys.readouterr().out.split("\n\n")
    assert runs.splitlines()[1].split() == ["y", "fits", "Q4_K_M", "llamacpp", "unknown", "8192", "42", "-"]
    assert "vllm x 8" in runs
    assert runs.endswith("2 slots, not 8")
    assert len(others.splitlines()[1]) == catalogue.COLUMNS
    assert others.endswith("…\n")
