"""`ownweights doctor`: lines that can be read, hints that can be copied, an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import cli, doctor


def test_one_aligned_line_per_check_and_every_hint_below_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["doctor"]) == 1, "there is no models.toml"
    out, said = capsys.readouterr()
    lines = [line for line in out.splitlines() if not line.lstrip().startswith("hint: ")]
    hints = [line for line in out.splitlines() if line.lstrip().startswith("hint: ")]
    column = 6 + max(map(len, doctor.CHECKS)) + 2
    assert [line[6:column].rstrip() for line in lines] == list(doctor.CHECKS)
    assert all(line[column - 1] == " " != line[column] for line in lines)
    assert {line.index("hint: ") for line in hints} == {column}
    assert "hint: printf" in out
    failed = sum(line.startswith("fail") for line in lines)
    assert f"{len(lines)} checks: {failed} fail" in said
