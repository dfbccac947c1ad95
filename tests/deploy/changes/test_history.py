"""The locks that a project had: kept whole, listed once, checked when they are read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import lockfile, paths
from deploy.changes import history
from deploy.errors import LockError
from deploy.lockfile import Lock, Model
from tests import locked
from tests.hubrepo import Repo


def made(content: bytes, *, inputs: str = "sha256:0") -> Lock:
    """A lock of one file."""
    variant = locked.of(Repo("org/tiny-GGUF", files={"tiny.gguf": content}))
    return Lock(generator="test", inputs=inputs, models=(Model(name="chat", requested="test", variants=(variant,)),))


A, B, C, D = (made(name.encode()) for name in "abcd")


def digests(folder: Path) -> list[str]:
    return [entry.digest for entry in history.entries(folder)]


def test_the_newest_comes_first_and_each_can_be_read(tmp_path: Path) -> None:
    for lock, reason in ((A, "lock"), (B, "lock --upgrade chat"), (A, "rollback")):
        history.keep(tmp_path, lock, reason)
    assert digests(tmp_path) == [A.digest, B.digest, A.digest]
    assert [entry.reason for entry in history.entries(tmp_path)] == ["rollback", "lock --upgrade chat", "lock"]
    assert history.read(B.digest) == lockfile.parse(lockfile.write(B))
    assert history.entries(tmp_path)[1].inputs == B.inputs
    assert history.entries(tmp_path / "elsewhere") == ()


def test_the_same_lock_again_is_no_news(tmp_path: Path) -> None:
    history.keep(tmp_path, A, "lock")
    history.keep(tmp_path, A, "deploy")
    assert [entry.reason for entry in history.entries(tmp_path)] == ["lock"]


def test_a_project_is_its_folder_however_it_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    history.keep(tmp_path / "link", A, "lock")
    assert digests(folder) == digests(folder / ".." / "project") == [A.digest]


def test_the_last_locks_of_every_project_are_kept(tmp_path: Path) -> None:
    for lock in (A, B, A, C):
        history.keep(tmp_path / "one", lock, "lock")
    history.keep(tmp_path / "other", D, "lock")
    assert {lock.digest for lock in history.kept(1)} == {C.digest, D.digest}
    assert {lock.digest for lock in history.kept(2)} == {C.digest, A.digest, D.digest}
    assert {lock.digest for lock in history.kept(3)} == {C.digest, A.digest, B.digest, D.digest}
    assert {known.folder for known in history.projects()} == {str(tmp_path / "one"), str(tmp_path / "other")}


def test_trimming_forgets_what_counts_no_more(tmp_path: Path) -> None:
    for lock in (A, B, C, B, D, B):
        history.keep(tmp_path, lock, "lock")
    history.trim(4)
    assert len(digests(tmp_path)) == 6
    history.trim(2)
    assert digests(tmp_path) == [B.digest, D.digest, B.digest]
    history.trim(1)
    assert digests(tmp_path) == [B.digest]


@pytest.mark.parametrize("content", [b"", b"?"])
def test_a_damaged_lock_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    history.keep(tmp_path, A, "lock")
    path = history.lock_file(A.digest)
    path.write_bytes(content)
    with pytest.raises(LockError) as raised:
        history.read(A.digest)
    assert raised.value.where == str(path)
    with pytest.raises(LockError):
        history.kept()
    path.unlink()
    with pytest.raises(LockError):
        history.read(A.digest)
    assert history.kept() == ()


def test_a_lock_of_an_earlier_form_is_an_error_that_names_it(tmp_path: Path) -> None:
    text = lockfile.write(A).replace('"1.1"', '"1.0"', 1).encode()
    digest = hashlib.sha256(text).hexdigest()
    history.lock_file(digest).parent.mkdir(parents=True)
    history.lock_file(digest).write_bytes(text)
    with pytest.raises(LockError, match=r"lock-version is '1\.0'") as caught:
        history.read(digest)
    assert caught.value.hint == f"rm '{history.lock_file(digest)}'"


def test_a_damaged_lock_is_mended_when_it_is_kept_again(tmp_path: Path) -> None:
    history.keep(tmp_path, A, "lock")
    history.lock_file(A.digest).write_bytes(b"?")
    history.keep(tmp_path, A, "lock")
    assert history.read(A.digest).digest == A.digest


def test_a_damaged_list_is_an_error_that_names_it(tmp_path: Path) -> None:
    history.keep(tmp_path, A, "lock")
    history.list_file(tmp_path).write_bytes(b'{"folder": 1}')
    for call in (lambda: history.entries(tmp_path), history.kept):
        with pytest.raises(LockError) as raised:
            call()
        assert raised.value.where == str(history.list_file(tmp_path))


def test_a_lock_that_a_damaged_list_cannot_take_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history.keep(tmp_path, A, "lock")
    history.list_file(tmp_path).write_bytes(b"{")
    history.keep(tmp_path, B, "upgrade")
    said = capsys.readouterr().err
    assert "`upgrade` is not in the history" in said
    assert str(history.list_file(tmp_path)) in said
    assert history.list_file(tmp_path).read_bytes() == b"{"


def test_a_state_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "file"))
    history.keep(tmp_path, A, "lock")
    assert "cannot be rolled back to" in capsys.readouterr().err
    assert history.entries(tmp_path) == ()


def test_a_lock_that_came_by_other_ways_is_noticed(tmp_path: Path) -> None:
    history.notice(tmp_path)
    assert digests(tmp_path) == []
    (tmp_path / lockfile.FILE).write_text(lockfile.write(A))
    history.notice(tmp_path)
    history.notice(tmp_path)
    assert [entry.reason for entry in history.entries(tmp_path)] == [history.FOUND]
    (tmp_path / lockfile.FILE).write_text("damaged")
    history.notice(tmp_path)
    assert digests(tmp_path) == [A.digest]


def test_what_each_lock_held_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history.keep(tmp_path, A, "lock")
    history.keep(tmp_path, B, "lock")
    newest, oldest = history.past(tmp_path)
    assert (newest.number, oldest.number) == (0, 1)
    assert newest.models is not None
    assert [(model.name, model.variant, model.commit) for model in newest.models] == [
        ("chat", "gguf/Q4_K_M", B.models[0].variants[0].origin.commit[:12])  # type: ignore[index]
    ]
    history.lock_file(A.digest).write_bytes(b"?")
    assert history.past(tmp_path)[1].models is None
    assert "damaged" in capsys.readouterr().err


def test_processes_that_keep_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\nfrom deploy.changes import history\n"
        "from tests.deploy.changes.test_history import made\n"
        "for number in range(10): history.keep(Path(sys.argv[1]), made(f'{sys.argv[2]} {number}'.encode()), 'lock')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("one", "two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = digests(tmp_path)
    assert len(found) == len(set(found)) == 20
    assert len(list(paths.locks_dir().iterdir())) == 20
