"""`ownweights verify`: what it looks at, what it reads, what it says, and its exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploy import cli, lockfile
from deploy.lockfile import Lock, Model, Variant
from deploy.weights import cache, puller, stamps
from tests import locked
from tests.hubrepo import Repo
from tests.hubserver import hub

CHAT = Repo("org/chat-GGUF", files={"q4.gguf": b"4" * 1000, "q8.gguf": b"8" * 2000})
CODE = Repo("org/code-GGUF", files={"code.gguf": b"c" * 3000})


@pytest.fixture
def variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Variant, Variant]:
    """A project with two models, both pulled."""
    chat, code = locked.of(CHAT), locked.of(CODE)
    models = tuple(
        Model(name=name, aliases=(name.upper(),), requested="test", variants=(variant,))
        for name, variant in (("chat", chat), ("code", code))
    )
    text = lockfile.write(Lock(generator="test", inputs="sha256:0", models=models))
    (tmp_path / lockfile.FILE).write_text(text)
    (tmp_path / "models.toml").write_text('[[model]]\nname = "chat"\n')
    monkeypatch.chdir(tmp_path)
    with hub([CHAT, CODE]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        puller.pull((chat, code))
    return chat, code


def blob(variant: Variant, path: str) -> Path:
    return cache.blob(variant, next(file for file in variant.files if file.path == path))


def flip(path: Path) -> None:
    """One byte, so that its times do not tell."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def findings(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[tuple[str, str, str]]]:
    code = cli.run(["verify", "--json", *args])
    return code, [(row["model"], row["path"], row["problem"]) for row in json.loads(capsys.readouterr().out)]


def test_what_is_as_locked_says_so_on_stderr(
    variants: tuple[Variant, Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    for depth in ([], ["--quick"], ["--full"]):
        assert cli.run(["verify", *depth]) == 0
        seen = capsys.readouterr()
        assert seen.out == ""
        assert "as locked: 3 file(s), 6 kB" in seen.err
    assert "/s" in seen.err
    assert findings(capsys) == (0, [])


def test_a_difference_has_an_exit_code_of_its_own(
    variants: tuple[Variant, Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    flip(blob(variants[1], "code.gguf"))
    assert findings(capsys) == findings(capsys, "--quick") == (0, [])
    assert findings(capsys, "--full") == (3, [("code", "code.gguf", "changed")])
    blob(variants[0], "q4.gguf").unlink()
    assert findings(capsys, "--full") == (3, [("chat", "q4.gguf", "missing"), ("code", "code.gguf", "changed")])
    assert cli.run(["verify"]) == 3
    shown = capsys.readouterr().out
    assert "chat   gguf/Q4_K_M  q4.gguf    missing" in shown
    assert CODE.blobs["code.gguf"].sha256 in shown


def test_what_is_only_missing_is_not_wrong(
    variants: tuple[Variant, Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    blob(variants[0], "q4.gguf").unlink()
    assert findings(capsys) == (1, [("chat", "q4.gguf", "missing")])


def test_quick_reads_nothing_and_says_what_nobody_has_hashed(
    variants: tuple[Variant, Variant], capsys: pytest.CaptureFixture[str]
) -> None:
    stamps.forget(blob(variants[0], "q8.gguf"))
    path = blob(variants[1], "code.gguf")
    os.utime(path, ns=(1, 1))
    # It cannot have been read: what is in there is wrong.
    flip(path)
    unproved = [("chat", "q8.gguf", "unproved"), ("code", "code.gguf", "unproved")]
    assert findings(capsys, "--quick") == (1, unproved)
    assert findings(capsys) == (3, [("code", "code.gguf", "changed")])
    assert findings(capsys, "--quick", "chat") == (0, [])


def test_quick_sees_another_length(variants: tuple[Variant, Variant], capsys: pytest.CaptureFixture[str]) -> None:
    with blob(variants[1], "code.gguf").open("ab") as file:
        file.write(b"?")
    assert findings(capsys, "--quick") == (3, [("code", "code.gguf", "changed")])


def test_only_what_is_named_is_looked_at(variants: tuple[Variant, Variant], capsys: pytest.CaptureFixture[str]) -> None:
    flip(blob(variants[1], "code.gguf"))
    assert findings(capsys, "--full", "chat")[0] == 0
    assert findings(capsys, "--full", "CODE")[0] == 3
    assert findings(capsys, "--full", "--variant", "gguf/Q4_K_M")[0] == 3
    assert cli.run(["verify", "other"]) == 1
    assert "no model `other` in the lock" in capsys.readouterr().err
    assert cli.run(["verify", "--variant", "gguf/Q2_K"]) == 1
    assert "no variant `gguf/Q2_K`" in capsys.readouterr().err
