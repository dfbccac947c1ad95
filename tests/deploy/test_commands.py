"""The commands that start nothing, on a project with a file of this machine: output, JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import cli
from tests import tiny


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    tiny.gguf(folder / "tiny.gguf")
    (folder / "models.toml").write_text(
        '[[model]]\nname = "chat"\nsource = "file:tiny.gguf"\ncontext = 1024\n[engines]\ngpu = "none"\n'
    )
    monkeypatch.chdir(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(list(args))
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_lock_writes_once_and_then_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "lock")
    assert (code, out.split()[:2]) == (0, ["chat", "gguf/F16"])
    assert "locked: " in err
    before = (project / "models.lock").read_bytes()
    code, _, err = run(capsys, "lock")
    assert (code, err) == (0, "the lock is current\n")
    assert (project / "models.lock").read_bytes() == before


def test_a_check_without_a_lock_says_what_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "lock", "--check")
    assert (code, out) == (1, "")
    assert err.endswith("hint: ownweights lock\n")
    assert not (project / "models.lock").exists()


def test_plan_shows_reasons_and_command_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan")
    assert code == 0
    assert out.startswith("chat: fits\n  runs      gguf/F16 at ")
    assert "  not       2 pairs of an engine and a format that it does not read: --json has them" in out
    assert "  needs     KV cache " in out
    assert "  command   " in out
    assert sorted(path.name for path in project.iterdir()) == ["models.toml", "tiny.gguf"]


def test_plan_for_a_recorded_box(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Path(__file__).parents[1] / "fixtures" / "hardware" / "container-1.5cpu-4gb.json"
    code, out, _ = run(capsys, "plan", "--json", "--hardware", str(box))
    assert code == 0
    assert json.loads(out)["models"][0]["settings"]["threads"] == 1


def test_verify_before_and_after_pull_and_after_a_change(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "lock")
    code, out, _ = run(capsys, "verify")
    assert code == 1
    assert "missing" in out
    assert run(capsys, "pull")[0] == 0
    code, out, err = run(capsys, "verify", "--full")
    assert (code, out) == (0, "")
    assert err.startswith("as locked: 1 file(s)")
    with (project / "tiny.gguf").open("r+b") as file:
        file.write(b"gguf")
    code, out, _ = run(capsys, "verify", "--json")
    assert code == 3
    assert [(finding["path"], finding["problem"]) for finding in json.loads(out)] == [("tiny.gguf", "changed")]


def test_listings_in_three_forms(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = run(capsys, "models", "-q")[1].split()
    assert "qwen2.5-coder-0.5b" in ids
    assert [row["id"] for row in json.loads(run(capsys, "models", "--json")[1])] == ids
    assert len(run(capsys, "models")[1].splitlines()) == len(ids) + 1
    assert json.loads(run(capsys, "paths", "--json")[1])["state"]
    assert json.loads(run(capsys, "hardware", "--json")[1])["cpu"]["architecture"]
    assert "usable cores" in run(capsys, "hardware")[1]


def test_what_hardware_prints_can_be_planned_with(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "box.json").write_text(run(capsys, "hardware", "--json")[1])
    assert run(capsys, "plan", "--hardware", "box.json")[0] == 0


def test_doctor_tells_by_its_exit_code(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    verdicts = {result["name"]: result["status"] for result in json.loads(out)}
    assert code == int("fail" in verdicts.values())
    (project / "models.toml").write_text("[[model]]\nnmae = 1\n")
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "unknown key `nmae`" in out
    assert "hint: " in out
