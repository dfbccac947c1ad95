"""The store of stamps: quick, shared by threads and processes, and never in the way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy import paths
from deploy.weights import stamps
from deploy.weights.stamps import Stamp

STAMP = Stamp(size=1, mtime_ns=2, inode=3, sha256="ab" * 32, place="hub 127.0.0.1")
WRITER = """
import sys
from pathlib import Path
from deploy.weights import stamps
from deploy.weights.stamps import Stamp
print("ready", flush=True)
number = 0
while number != int(sys.argv[2]):
    stamps.put(Path(sys.argv[1], str(number)), Stamp(size=number, mtime_ns=2, inode=3, sha256="ab" * 32))
    number += 1
"""


def writer(folder: Path, count: int) -> subprocess.Popen[str]:
    """Another process that stamps ``count`` files; for ever, where that is negative."""
    call = [sys.executable, "-c", WRITER, str(folder), str(count)]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_was_put_is_got_and_forgotten(tmp_path: Path) -> None:
    assert stamps.get(tmp_path) is None
    assert not paths.stamps_file().exists()
    stamps.put(tmp_path, STAMP)
    assert stamps.get(tmp_path) == STAMP
    again = Stamp(size=9, mtime_ns=2, inode=3, sha256="cd" * 32)
    stamps.put(tmp_path, again)
    assert stamps.get(tmp_path) == again
    stamps.forget(tmp_path)
    assert stamps.get(tmp_path) is None


def test_a_file_is_known_by_its_place_whatever_links_lead_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    stamps.put(tmp_path / "link", STAMP)
    assert stamps.get(tmp_path / "file") == STAMP


def test_any_path_and_any_inode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff'\"; DROP TABLE stamps")
    large = Stamp(size=1 << 50, mtime_ns=-(1 << 60), inode=(1 << 64) - 1, sha256="ab" * 32)
    stamps.put(path, large)
    assert stamps.get(path) == large


def test_threads_and_processes_write_side_by_side(tmp_path: Path) -> None:
    others = [writer(tmp_path / name, 200) for name in ("a", "b")]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: stamps.put(tmp_path / "c" / str(number), STAMP), range(200)))
    for process in others:
        process.communicate()
        assert process.returncode == 0
    for name in ("a", "b", "c"):
        assert all(stamps.get(tmp_path / name / str(number)) for number in range(200))


def test_a_killed_writer_leaves_what_it_had_written(tmp_path: Path) -> None:
    stamps.put(tmp_path, STAMP)
    process = writer(tmp_path, -1)
    while stamps.get(tmp_path / "50") is None:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert all(stamps.get(tmp_path / str(number)) for number in range(51))
    stamps.put(tmp_path / "more", STAMP)
    assert stamps.get(tmp_path / "more") == stamps.get(tmp_path) == STAMP


def foreign() -> bytes:
    """A database of something else."""
    path = paths.state_dir() / "foreign"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE holidays (day TEXT)")
    other.commit()
    other.close()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["empty", "text", "half", "foreign"])
def test_a_damaged_or_foreign_file_is_no_stamps_and_is_made_anew(tmp_path: Path, damage: str) -> None:
    for number in range(300):
        stamps.put(tmp_path / str(number), STAMP)
    path = paths.stamps_file()
    whole = path.read_bytes()
    content = {"empty": b"", "text": b"{}" * 999, "half": whole[: len(whole) // 2], "foreign": foreign()}[damage]
    path.write_bytes(content)
    assert stamps.get(tmp_path / "299") is None
    stamps.put(tmp_path / "new", STAMP)
    assert stamps.get(tmp_path / "new") == STAMP
    assert stamps.get(tmp_path / "299") is None


def test_a_row_that_cannot_be_read_is_no_stamp(tmp_path: Path) -> None:
    stamps.put(tmp_path, STAMP)
    other = sqlite3.connect(paths.stamps_file())
    other.execute("UPDATE stamps SET stamp = 'x'")
    other.commit()
    other.close()
    assert stamps.get(tmp_path) is None


def test_a_store_that_another_holds_for_long_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "BUSY_S", 0.01)
    stamps.put(tmp_path, STAMP)
    other = sqlite3.connect(paths.stamps_file(), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    # Only a new connection takes the shorter wait.
    stamps._store.close()
    assert stamps.get(tmp_path) is None
    stamps.put(tmp_path / "other", STAMP)
    other.close()
    assert stamps.get(tmp_path) == STAMP
    assert stamps.get(tmp_path / "other") is None


def test_it_is_waited_for_once_and_then_asked_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stamps, "BUSY_S", 0.01)
    stamps.put(tmp_path, STAMP)
    other = sqlite3.connect(paths.stamps_file(), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert stamps.get(tmp_path) is None
    assert stamps.held()
    # Were it waited for again, this test would run into its time limit.
    monkeypatch.setattr(stamps, "BUSY_S", 100.0)
    assert [stamps.get(tmp_path) for _ in range(10)] == [None] * 10
    assert capsys.readouterr().err.count("another process holds") == 1
    other.close()
    assert stamps.get(tmp_path) == STAMP
    assert not stamps.held()


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "file"))
    stamps.put(tmp_path, STAMP)
    assert stamps.get(tmp_path) is None


def test_help_does_not_load_the_database() -> None:
    code = "import sys; from deploy import cli; cli.run(['--help']); sys.exit('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
