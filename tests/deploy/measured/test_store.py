from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.engine import Figures
from deploy.errors import UserError
from deploy.measured import Entry, Known, bounds, store
from tests.deploy.measured.starts import start

WRITER = """\
import sys
from deploy.measured import store
from tests.deploy.measured.starts import start
for number in range(int(sys.argv[2])):
    store.add(start(number, engine=f"{sys.argv[1]}-{number}"))
    print(number, flush=True)
"""


def writer(name: str, count: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", WRITER, name, str(count)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def test_nothing_is_known_at_first_and_reading_makes_no_file() -> None:
    assert store.read() == Known()
    assert not store.file().parent.exists()


def test_what_is_added_is_read_in_that_order() -> None:
    first, second = start(1, kv_tokens=5), start(2, correction="no", named=3)
    store.add(first)
    store.add(second)
    assert store.read() == Known(entries=(first, second))
    assert store.file().stat().st_mode & 0o077 == 0


def test_the_newest_that_is_wanted_is_changed_and_no_other() -> None:
    for at, model in enumerate(("chat", "chat", "code")):
        store.add(start(at, model=model))
    grow = lambda figures: msgspec.structs.replace(figures, peak_bytes=9)  # noqa: E731
    assert store.amend(lambda entry: entry.model == "chat", grow)
    assert [entry.measured.peak_bytes for entry in store.read().entries] == [None, 9, None]
    written = store.file().stat().st_mtime_ns
    assert not store.amend(lambda entry: entry.model == "gone", grow)
    assert store.file().stat().st_mtime_ns == written


def test_many_restarts_push_out_neither_the_measured_speed_nor_the_correction_nor_another_model() -> None:
    speed, failed, other = start(1, tokens_per_s=40.0), start(2, correction="no", named=3), start(3, tree="b" * 64)
    for entry in (speed, failed, other):
        store.add(entry)
    for at in range(4, 4 + 2 * store.KEPT):
        store.add(start(at))
    kept = store.read().entries
    assert kept[:3] == (speed, failed, other)
    assert [entry.at for entry in kept[3:]] == list(range(4 + store.KEPT, 4 + 2 * store.KEPT))


def test_of_all_models_together_the_newest_are_kept() -> None:
    store.file().parent.mkdir(parents=True)
    lines = [start(at, tree=str(at)) for at in range(store.MOST)]
    store.file().write_bytes(msgspec.json.Encoder().encode_lines(lines))
    store.add(start(store.MOST))
    kept = store.read().entries
    assert (len(kept), kept[0].at, kept[-1].at) == (store.MOST, 1, store.MOST)


def test_two_writers_at_once_lose_nothing() -> None:
    writers = [writer(name, 20) for name in ("one", "two")]
    assert [process.communicate(timeout=60)[0].count("\n") for process in writers] == [20, 20]
    kept = {entry.engine for entry in store.read().entries}
    assert kept == {f"{name}-{number}" for name in ("one", "two") for number in range(20)}


def test_a_writer_killed_in_the_middle_loses_nothing_that_it_had_told() -> None:
    with writer("dying", 10_000) as dying:
        assert dying.stdout
        told = [int(dying.stdout.readline()) for _ in range(10)]
        os.kill(dying.pid, signal.SIGKILL)
    kept = [entry.at for entry in store.read().entries]
    assert kept[: len(told)] == told
    assert kept == list(range(len(kept)))
    store.add(start(99, engine="next"))
    assert store.read().entries[-1].engine == "next"


def encoded(**fields: Any) -> bytes:
    return msgspec.json.encode(start(2, **fields))


DAMAGES = {
    "torn": lambda data: data[:-40],
    "no text": lambda data: data + b"\xff\xfe\x00\n",
    "another shape": lambda data: data + b'{"at": "yesterday"}\n',
    "no date": lambda data: data + msgspec.json.encode(start(10**15)) + b"\n",
    "no object": lambda data: data + b"[[[[[[\n",
    "no number of a box": lambda data: data + encoded(peak_bytes=-1) + b"\n",
    "no context": lambda data: data + encoded(context_tokens=0) + b"\n",
    "words for a terminal": lambda data: data + encoded(model="\x1b[2J") + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_lines_that_cannot_be_read_are_left_out_with_a_warning(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.add(start(1))
    if damage == "torn":
        store.add(start(2))
    damaged = DAMAGES[damage](store.file().read_bytes())
    store.file().write_bytes(damaged)

    assert [entry.at for entry in store.read().entries] == [1]
    assert "warning: 1 earlier measurement(s) cannot be read" in capsys.readouterr().err
    assert store.file().read_bytes() == damaged

    store.add(start(3))
    assert [entry.at for entry in store.read().entries] == [1, 3]
    aside = store.file().with_name("measured.jsonl.damaged")
    assert aside.read_bytes() == damaged
    assert str(aside) in capsys.readouterr().err


def test_a_file_of_nothing_but_noise_is_no_error() -> None:
    store.file().parent.mkdir(parents=True)
    store.file().write_bytes(bytes(range(256)) * 100)
    assert store.read() == Known()
    store.add(start(1))
    assert len(store.read().entries) == 1


def test_a_later_version_may_tell_more() -> None:
    store.file().parent.mkdir(parents=True)
    line = msgspec.to_builtins(start(1)) | {"mood": "good"}
    store.file().write_bytes(msgspec.json.encode(line) + b"\n")
    assert store.read().entries == (start(1),)


def test_a_folder_in_its_place_is_a_warning_to_who_reads_and_an_error_to_who_writes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.file().mkdir(parents=True)
    assert store.read() == Known()
    assert "warning: earlier measurements cannot be read" in capsys.readouterr().err
    with pytest.raises(UserError, match="a folder is in the way"):
        store.add(start(1))


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    store.file().parent.mkdir(parents=True)
    store.file().symlink_to(elsewhere)
    with pytest.raises(UserError, match="a link is in the way"):
        store.add(start(1))
    assert elsewhere.read_text() == "mine"


def test_an_entry_survives_the_way_through_the_file() -> None:
    entry = start(1, predicted=Figures(kv_tokens=1, peak_bytes=2), load_s=0.1, kv_bytes=3)
    assert msgspec.json.decode(msgspec.json.encode(entry), type=Entry) == entry


@pytest.fixture(params=["pipe", "device", "folder", "large"])
def obstacle(request: pytest.FixtureRequest) -> str:
    """What is in the file's place, and what a reader says of it."""
    store.file().parent.mkdir(parents=True)
    if request.param == "pipe":
        os.mkfifo(store.file())
    elif request.param == "device":
        store.file().symlink_to("/dev/zero")
    elif request.param == "folder":
        store.file().mkdir()
    else:
        with store.file().open("wb") as file:
            file.truncate(store.MOST_BYTES + 1)
    return str(request.param)


def test_whatever_is_in_its_place_is_a_warning_and_no_hang(obstacle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.read() == Known()
    assert capsys.readouterr().err.startswith("warning: earlier measurements cannot be read: ")
    if obstacle == "large":
        store.add(start(1))
        assert store.read().entries == (start(1),)
        assert store.file().with_name("measured.jsonl.damaged").stat().st_size == store.MOST_BYTES + 1
    else:
        with pytest.raises(UserError, match="in the way"):
            store.add(start(1))


def test_of_more_lines_than_are_kept_the_newest_are_read() -> None:
    store.file().parent.mkdir(parents=True)
    store.file().write_bytes(msgspec.json.Encoder().encode_lines([start(at) for at in range(5 * store.KEPT)]))
    assert [entry.at for entry in store.read().entries] == list(range(4 * store.KEPT, 5 * store.KEPT))


def test_what_is_told_of_an_engine_is_kept_as_far_as_it_can_be() -> None:
    store.add(start(1, correction="\x1b[31mtoo\nlong" + "x" * 1000, peak_bytes=1 << 63, load_s=1e308, kv_tokens=5))
    store.amend(lambda entry: entry.at == 1, lambda seen: msgspec.structs.replace(seen, tokens_per_s=-5.0))
    (entry,) = store.read().entries
    assert entry.correction == ("[31mtoolong" + "x" * 1000)[: bounds.CHARACTERS]
    assert entry.measured == Figures(kv_tokens=5)


def test_what_is_forgotten_is_gone_and_nothing_else() -> None:
    for at, model in enumerate(("chat", "code", "chat")):
        store.add(start(at, model=model))
    store.forget(lambda entry: entry.model == "chat")
    assert [entry.at for entry in store.read().entries] == [1]


def test_forgetting_nothing_makes_no_file() -> None:
    store.forget(lambda _entry: True)
    assert not store.file().exists()
