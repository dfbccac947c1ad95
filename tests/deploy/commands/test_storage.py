"""`ownweights history` and `ownweights gc`: what is listed, what is asked, what goes and what stays."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import cli, environment, flock, lockfile, paths
from deploy.changes import history
from deploy.lockfile import Lock, Model, Place, Variant, Wheel
from deploy.weights import cache, puller, verify
from serving.engines import ENGINES
from tests import locked
from tests.hubrepo import Repo
from tests.hubserver import hub

ROOT = Path(__file__).parents[3]
GGUF = Repo("org/tiny-GGUF", files={"q4.gguf": b"4" * 5000, "q8.gguf": b"8" * 9000})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project, in a world with a Hub."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.toml").write_text('[[model]]\nname = "chat"\n')
    monkeypatch.chdir(folder)
    with hub([GGUF]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield folder


def lock_of(*variants: Variant) -> Lock:
    model = Model(name="chat", requested="test", variants=variants)
    return Lock(generator="test", inputs="sha256:0", models=(model,))


def pulled(name: str) -> Variant:
    variant = locked.of(GGUF, name)
    puller.pull((variant,))
    return variant


def gc(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    capsys.readouterr()
    assert cli.run(["gc", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def kinds(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    return [item["kind"] for item in gc(capsys, *options)["items"]]


def test_history_numbers_what_rollback_takes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, reason in (("q4.gguf", "locked"), ("q8.gguf", "upgrade of chat")):
        history.keep(project, lock_of(locked.of(GGUF, name)), reason)
    (project / lockfile.FILE).write_text(lockfile.write(lock_of(locked.of(GGUF))))
    assert cli.run(["history"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NUMBER", "SINCE", "LOCK", "MODELS", "WHY"]
    assert [row.split()[0] for row in rows] == ["0", "1", "2"]
    assert rows[0].endswith(f"chat gguf/Q4_K_M {'1' * 12}  {history.FOUND}")
    assert rows[1].endswith("upgrade of chat")
    assert cli.run(["history", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["digest"] for row in listed] == [entry.digest for entry in history.entries(project)]
    assert set(listed[0]) == {"number", "digest", "at", "reason", "inputs", "models"}


def test_nothing_goes_without_a_yes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variant = pulled("q4.gguf")
    assert cli.run(["gc"]) == 0
    seen = capsys.readouterr()
    assert "weights  " in seen.out
    assert "in none of the last 3 locks of any project" in seen.out
    assert "nothing was freed: `ownweights gc --yes` does it" in seen.err
    listed = gc(capsys)
    assert listed["freed_bytes"] is None
    assert verify.check(variant, full=True) == ()
    freed = gc(capsys, "--yes")
    assert freed["items"] == listed["items"]
    assert freed["freed_bytes"] == listed["items"][0]["frees_bytes"] > 5000
    assert not cache.folder(variant).exists()
    assert cli.run(["gc"]) == 0
    assert "nothing to free" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "gone"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_it_asks(project: Path, answer: str, gone: bool) -> None:
    variant = pulled("q4.gguf")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as keyboard:
        call = [sys.executable, "-m", "deploy.cli", "gc"]
        process = subprocess.Popen(call, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.close(theirs)
        keyboard.write(f"{answer}\n".encode())
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "weights" in out
    assert "free it?" in err
    assert cache.folder(variant).exists() is not gone


def test_what_a_pull_has_found_complete_stays_until_it_has_said_so(project: Path) -> None:
    variant = pulled("q4.gguf")
    blob = cache.blob(variant, variant.files[0])
    call = [sys.executable, "-m", "deploy.cli", "gc", "--yes"]
    with flock.shared(paths.weights_lock_file(), waiting="nobody"):
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        heard = iter(process.stderr.readline, "")
        assert any("weights are being fetched: waiting" in line for line in heard)
        assert blob.exists()
    process.communicate()
    assert process.returncode == 0
    assert not blob.exists()


def test_a_pull_waits_for_what_is_being_removed(project: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})"
    code += "; from tests.deploy.commands.test_storage import pulled; pulled('q4.gguf'); print('pulled', flush=True)"
    with flock.held(paths.weights_lock_file()):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert "being removed by `gc`: waiting" in process.stderr.readline()
    out, _ = process.communicate()
    assert out == "pulled\n"


def test_two_projects_share_a_repository(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    q4, q8 = pulled("q4.gguf"), pulled("q8.gguf")
    history.keep(project, lock_of(q4), "locked")
    history.keep(tmp_path / "other", lock_of(q8), "locked")
    assert kinds(capsys) == []
    history.keep(project, lock_of(q4, locked.of(GGUF)), "locked")
    history.keep(tmp_path / "other", lock_of(q4), "locked")
    history.list_file(project).unlink()
    gc(capsys, "--yes", "--keep", "1")
    assert not cache.blob(q8, q8.files[0]).exists()
    assert verify.check(q4, full=True) == ()


def test_the_locks_of_a_folder_that_is_gone_still_count_and_it_says_so(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history.keep(tmp_path / "gone", lock_of(pulled("q4.gguf")), "locked")
    assert cli.run(["gc", "--yes"]) == 0
    path = history.list_file(tmp_path / "gone")
    assert f"`{tmp_path / 'gone'}`, which is gone, still count: `rm '{path}'`" in capsys.readouterr().err
    path.unlink()
    assert set(kinds(capsys)) == {"weights", "lock"}


def test_the_lock_that_lies_in_a_project_counts_although_it_is_not_the_newest(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    q4, q8 = pulled("q4.gguf"), pulled("q8.gguf")
    other = tmp_path / "other"
    other.mkdir()
    history.keep(other, lock_of(q8), "locked")
    (other / lockfile.FILE).write_text(lockfile.write(lock_of(q4)))
    gc(capsys, "--yes", "--keep", "1")
    assert verify.check(q4) == verify.check(q8) == ()


def test_a_lock_that_cannot_be_read_stops_everything(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variant = pulled("q4.gguf")
    history.keep(project, lock_of(variant), "locked")
    history.lock_file(lock_of(variant).digest).write_bytes(b"?")
    assert cli.run(["gc", "--yes"]) == 1
    assert "the kept lock is damaged" in capsys.readouterr().err
    assert cache.folder(variant).exists()


def test_older_locks_go(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [lock_of(locked.of(Repo("org/x-GGUF", files={"x.gguf": bytes([number])}))) for number in range(5)]
    for lock in made:
        history.keep(project, lock, "locked")
    assert kinds(capsys) == ["lock"]
    gc(capsys, "--yes")
    assert {path.stem for path in paths.locks_dir().iterdir()} == {lock.digest for lock in made[-3:]}
    assert [entry.digest for entry in history.entries(project)] == [lock.digest for lock in reversed(made[-3:])]
    assert kinds(capsys) == []


def test_wheels_go_unless_a_lock_names_them_or_somebody_holds_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, unnamed = "a" * 64, "b" * 64
    wheel = Wheel(package="tiny", version="1", member="x", size=5000, sha256=named)
    history.keep(
        project,
        lock_of(locked.of(GGUF, "q4.gguf", places=(Place(kind="index", path="q4.gguf", wheels=(wheel,)),))),
        "x",
    )
    for sha256 in (named, unnamed):
        folder = paths.wheels_dir() / sha256
        (folder / "scratch").mkdir(parents=True)
        (folder / "lock").touch()
        (folder / "scratch" / "tiny.whl").write_bytes(b"?" * 4096)
        (folder / "tiny.whl").write_bytes(b"!" * 4096)
    with (paths.wheels_dir() / unnamed / "lock").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert [item["path"] for item in gc(capsys)["items"]] == [str(paths.wheels_dir() / named / "scratch")]
    gc(capsys, "--yes")
    assert sorted(path.name for path in paths.wheels_dir().rglob("*.whl")) == ["tiny.whl"]
    assert (paths.wheels_dir() / named / "tiny.whl").exists()


def test_environments_of_other_engines_go_and_linked_packages_free_nothing(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    current = environment.folder(ENGINES[0])
    old, killed = (current.with_name(name) for name in (f"vllm-gpu-{'0' * 12}", f"vllm-gpu-{'1' * 12}.partial-17"))
    running, foreign = current.with_name(f"vllm-cpu-{'2' * 12}"), current.with_name("my own folder")
    for home in (current, old, killed, running, foreign):
        (home / "bin").mkdir(parents=True)
        (home / environment.RECORD).write_text("{}")
        (home / "own").write_bytes(b"?" * 4096)
    packages = tmp_path / "uv"
    packages.write_bytes(b"?" * (1 << 20))
    os.link(packages, old / "package")
    (running / "bin" / "python").symlink_to(sys.executable)
    code = "print('up', flush=True); input()"
    with subprocess.Popen(
        [running / "bin" / "python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == b"up\n"
        found = {item["path"]: item["frees_bytes"] for item in gc(capsys)["items"]}
        assert set(found) == {str(old), str(killed)}
        assert 4096 <= found[str(old)] < 1 << 20
        assert gc(capsys, "--yes")["freed_bytes"] == sum(found.values())
        engine.communicate(b"\n")
    assert not old.exists()
    assert not killed.exists()
    assert current.exists()
    assert foreign.exists()
    assert kinds(capsys) == ["environment"]
