"""What is on disk against the lock: each way of being wrong has its name."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress, TaskID

from deploy import paths
from deploy.errors import WeightsError
from deploy.lockfile import Variant
from deploy.weights import cache, puller, stamps, verify
from tests import locked
from tests.hubserver import Repo, hub

REPO = Repo("org/tiny", files={"config.json": b"{}", "sub/tokenizer.json": b"[]", "model.safetensors": b"weights"})


@pytest.fixture
def variant(monkeypatch: pytest.MonkeyPatch) -> Variant:
    """All of it pulled."""
    with hub([REPO]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        puller.pull((locked.of(REPO),))
    return locked.of(REPO)


def problems(variant: Variant, *, full: bool = False) -> list[tuple[str, str]]:
    return [(finding.path, finding.problem) for finding in verify.check(variant, full=full)]


def blob(variant: Variant, path: str) -> Path:
    return cache.blob(variant, next(file for file in variant.files if file.path == path))


def flip(path: Path, *, keep_times: bool = False) -> None:
    """Change one byte in place."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 0xFF
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_pulled_passes(variant: Variant) -> None:
    assert verify.check(variant) == verify.check(variant, full=True) == ()
    verify.refuse(variant)


def test_a_changed_file_is_named_with_both_hashes(variant: Variant) -> None:
    flip(blob(variant, "model.safetensors"))
    (finding,) = verify.check(variant)
    assert (finding.path, finding.problem) == ("model.safetensors", "changed")
    assert finding.expected is not None
    assert finding.found is not None
    assert REPO.blobs["model.safetensors"].sha256 in finding.expected
    assert finding.found.startswith("sha256 ")


def test_a_change_that_hides_its_time_is_found_by_a_full_check_only(variant: Variant) -> None:
    flip(blob(variant, "model.safetensors"), keep_times=True)
    assert problems(variant) == []
    assert problems(variant, full=True) == [("model.safetensors", "changed")]
    assert problems(variant) == [("model.safetensors", "changed")], "what was found wrong is vouched for again"


def test_a_file_of_another_length_is_named_with_its_size(variant: Variant) -> None:
    with blob(variant, "config.json").open("ab") as file:
        file.write(b" ")
    (finding,) = verify.check(variant)
    assert (finding.path, finding.found) == ("config.json", "3 bytes")


def test_a_missing_blob_is_missing(variant: Variant) -> None:
    blob(variant, "sub/tokenizer.json").unlink()
    assert problems(variant) == [("sub/tokenizer.json", "missing")]


def test_everything_is_missing_before_a_pull() -> None:
    variant = locked.of(REPO)
    assert {problem for _, problem in problems(variant)} == {"missing"}
    assert len(problems(variant)) == 3
    assert not verify.present(variant)


def test_a_link_that_is_gone_is_named(variant: Variant) -> None:
    (cache.snapshot(variant) / "config.json").unlink()
    assert problems(variant) == [("config.json", "not-linked")]


def test_a_file_put_in_the_place_of_a_link_is_named_even_with_the_same_bytes(variant: Variant) -> None:
    entry = cache.snapshot(variant) / "config.json"
    entry.unlink()
    entry.write_bytes(b"{}")
    (finding,) = verify.check(variant)
    assert (finding.path, finding.problem, finding.found) == ("config.json", "not-linked", "a file of its own")


def test_a_link_to_outside_the_cache_is_named(variant: Variant, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"{}")
    entry = cache.snapshot(variant) / "config.json"
    entry.unlink()
    entry.symlink_to(outside)
    (finding,) = verify.check(variant)
    assert (finding.problem, finding.found) == ("not-linked", f"a link to `{outside}`")


def test_a_blob_that_is_a_link_to_outside_the_cache_is_named(variant: Variant, tmp_path: Path) -> None:
    path = blob(variant, "config.json")
    outside = path.rename(tmp_path / "outside")
    path.symlink_to(outside)
    (finding,) = verify.check(variant)
    assert (finding.problem, finding.found) == ("not-linked", f"a blob that is a link to `{outside}`")


def test_a_blob_in_the_store_shared_between_repositories_passes(variant: Variant) -> None:
    path = blob(variant, "model.safetensors")
    shared = paths.hub_cache() / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    path.rename(shared)
    path.symlink_to(os.path.relpath(shared, path.parent))
    assert problems(variant, full=True) == []


def test_a_folder_that_is_a_link_is_named(variant: Variant, tmp_path: Path) -> None:
    folder = cache.snapshot(variant) / "sub"
    folder.rename(tmp_path / "sub")
    folder.symlink_to(tmp_path / "sub")
    assert problems(variant) == [("sub/tokenizer.json", "not-linked"), ("sub", "extra")]


@pytest.mark.parametrize("name", ["evil.py", "sub/more.safetensors"])
def test_an_extra_file_is_named(variant: Variant, name: str) -> None:
    (cache.snapshot(variant) / name).write_bytes(b"?")
    assert problems(variant) == [(name, "extra")]
    with pytest.raises(WeightsError) as raised:
        verify.refuse(variant)
    assert raised.value.hint == f"rm -r '{cache.snapshot(variant) / name}'"


def test_an_extra_file_beside_a_gguf_is_named_and_another_tools_link_is_not() -> None:
    repo = Repo("org/tiny-GGUF", files={"q4.gguf": b"four", "q8.gguf": b"eight"})
    q4, all_of_it = locked.of(repo, "q4.gguf"), locked.of(repo)
    for file in all_of_it.files:
        cache.blob(q4, file).parent.mkdir(parents=True, exist_ok=True)
        cache.blob(q4, file).write_bytes(repo.files[file.path])  # type: ignore[arg-type]
    cache.link(q4)
    assert verify.present(q4)
    assert not verify.present(locked.of(Repo(repo.id, files={"q2.gguf": b"two"})))
    cache.link(all_of_it)
    assert problems(q4) == []
    (cache.snapshot(q4) / "extra.gguf").write_bytes(b"?")
    assert problems(q4) == [("extra.gguf", "extra")]


def test_every_finding_is_in_the_refusal(variant: Variant) -> None:
    flip(blob(variant, "model.safetensors"))
    blob(variant, "config.json").unlink()
    with pytest.raises(WeightsError) as raised:
        verify.refuse(variant)
    assert "`model.safetensors` changed" in raised.value.message
    assert "`config.json` missing" in raised.value.message
    assert raised.value.hint == "ownweights pull"


@pytest.mark.parametrize("damage", [b"", b"{", b'{"x": 1}', b"\xff\xfe"])
def test_damaged_stamps_are_no_stamps(variant: Variant, damage: bytes) -> None:
    paths.stamps_file().write_bytes(damage)
    flip(blob(variant, "config.json"), keep_times=True)
    assert problems(variant) == [("config.json", "changed")]


def test_a_check_leaves_stamps_for_the_next_one(variant: Variant) -> None:
    paths.stamps_file().unlink()
    verify.check(variant)
    flip(blob(variant, "config.json"), keep_times=True)
    assert problems(variant) == []


def test_stamps_that_cannot_be_written_cost_time_only(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "file"))
    assert problems(variant, full=True) == []


def test_the_place_is_remembered_over_a_full_check(variant: Variant) -> None:
    fetched_from = verify.provenance(variant)
    assert fetched_from is not None
    assert fetched_from.startswith("hub 127.0.0.1:")
    verify.check(variant, full=True)
    assert verify.provenance(variant) == fetched_from
    paths.stamps_file().unlink()
    assert verify.provenance(variant) is None


def test_a_content_that_replaced_ours_has_no_place(variant: Variant) -> None:
    for file in variant.files:
        path = cache.blob(variant, file)
        beside = path.with_name("beside")
        beside.write_bytes(path.read_bytes())
        beside.replace(path)
    assert problems(variant, full=True) == []
    assert verify.provenance(variant) is None


def test_what_cannot_be_read_is_neither_right_nor_wrong(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, opened = blob(variant, "config.json"), Path.open

    def failing(path: Path, *mode: str, **options: Any) -> Any:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *mode, **options)

    monkeypatch.setattr(Path, "open", failing)
    (finding,) = verify.check(variant, full=True)
    assert (finding.path, finding.problem) == ("config.json", "unreadable")
    assert finding.found == "what cannot be read: Input/output error"
    assert verify.exit_code((finding,)) == 1
    stamps.forget(bad)
    for only in ((), ("changed", "unreadable")):
        with pytest.raises(WeightsError, match=r"cannot be verified:\n  `config.json` unreadable") as raised:
            verify.refuse(variant, only=only)  # type: ignore[arg-type]
        assert raised.value.hint is not None
        assert raised.value.hint.startswith(f"ls -lL '{cache.snapshot(variant) / 'config.json'}'")
    flip(blob(variant, "model.safetensors"))
    assert verify.exit_code(verify.check(variant)) == 3


def test_a_folder_in_the_place_of_a_blob_is_no_blob(variant: Variant) -> None:
    blob(variant, "config.json").unlink()
    blob(variant, "config.json").mkdir()
    assert problems(variant) == problems(variant, full=True) == [("config.json", "changed")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("depth", ["quick", "stamped", "full"])
def test_what_we_may_not_read_is_unreadable_whatever_its_stamp_says(variant: Variant, depth: verify.Depth) -> None:
    blob(variant, "config.json").chmod(0)
    (findings,) = verify.inspect((variant,), depth)
    assert [(finding.path, finding.problem) for finding in findings] == [("config.json", "unreadable")]
    blobs = blob(variant, "config.json").parent
    blobs.chmod(0)
    try:
        (findings,) = verify.inspect((variant,), depth)
    finally:
        blobs.chmod(0o755)
    assert {finding.problem for finding in findings} == {"unreadable"}
    assert len(findings) == len(variant.files)


def test_nobody_claims_that_nothing_was_hashed_while_the_stamps_are_held(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "BUSY_S", 0.01)
    other = sqlite3.connect(paths.stamps_file(), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    (findings,) = verify.inspect((variant,), "quick")
    other.close()
    assert {(finding.problem, finding.found) for finding in findings} == {
        ("unproved", "bytes that may have been hashed: another process holds the stamps")
    }
    assert verify.inspect((variant,), "quick") == ((),)


def test_several_variants_are_inspected_in_their_order_and_a_shared_blob_counts_for_each(variant: Variant) -> None:
    part = locked.of(REPO, "config.json")
    blob(variant, "config.json").unlink()
    for depth in ("quick", "stamped", "full"):
        first, second, third = verify.inspect((part, variant, part), depth)  # type: ignore[arg-type]
        assert [finding.path for finding in second] == ["config.json"]
        assert first == third
        assert [finding.problem for finding in first][:1] == ["missing"]


def test_all_of_a_full_check_is_counted(variant: Variant) -> None:
    with Progress(disable=True) as progress:
        verify.inspect((variant, variant), "full", progress)
        (task,) = progress.tasks
    assert task.completed == task.total == variant.size


def test_an_interrupt_ends_a_full_check_at_its_next_chunk(variant: Variant) -> None:
    class Interrupting(Progress):
        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            raise KeyboardInterrupt

    with Interrupting(disable=True) as progress, pytest.raises(KeyboardInterrupt):
        verify.inspect((variant,), "full", progress)


def test_a_file_of_this_machine_is_checked_through_its_link(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"mine")
    variant = locked.of_path(path)
    puller.pull((variant,))
    assert problems(variant, full=True) == []
    path.write_bytes(b"more")
    assert problems(variant) == [("mine.gguf", "changed")]
    path.unlink()
    (finding,) = verify.check(variant)
    assert (finding.problem, finding.found) == ("missing", f"a link to `{path}`, which is gone")
