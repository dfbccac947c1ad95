"""What goes from a shared cache, what stays, and in which order: on caches that the puller really made."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from deploy import atomic, paths
from deploy.lockfile import Variant
from deploy.weights import cache, freeing, gc, puller, stamps, verify
from deploy.weights.freeing import Freeable
from tests import locked
from tests.hubrepo import Repo
from tests.hubserver import Hub, hub

GGUF = Repo("org/tiny-GGUF", files={"q4.gguf": b"4" * 5000, "q8.gguf": b"8" * 9000})
PLAIN = Repo("org/tiny", files={"config.json": b"{}", "sub/tokenizer.json": b"[]", "model.safetensors": b"w" * 20000})
WHY = "no lock names it"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub([GGUF, PLAIN]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def pulled(repo: Repo, *names: str) -> Variant:
    variant = locked.of(repo, *names)
    puller.pull((variant,))
    return variant


def found(*needed: Variant, incomplete: bool = False) -> list[Freeable]:
    return list(gc.find(gc.wanted(needed), WHY, incomplete=incomplete))


def collect(*needed: Variant, incomplete: bool = False) -> int:
    freed = 0
    for item in found(*needed, incomplete=incomplete):
        freed += freeing.free(item)
        gc.tidy(item)
    return freed


def on_disk() -> int:
    """Bytes of all files in the cache, as the file system counts them."""
    files = (Path(root, name) for root, _, names in os.walk(paths.hub_cache()) for name in names)
    return sum(path.lstat().st_blocks * 512 for path in files)


def entries(repo: Repo) -> set[str]:
    """Every file and link below a repository's folder."""
    folder = paths.hub_cache() / f"models--{repo.id.replace('/', '--')}"
    walk = os.walk(folder)
    return {str(Path(root, name).relative_to(folder)) for root, _, names in walk for name in names}


def by_another_tool(repo: Repo, *names: str, ref: str | None = "main") -> None:
    """What huggingface_hub leaves: blobs, links and, for a branch, a ref. Without a ref: pulled by commit."""
    variant = locked.of(repo, *names)
    for file in variant.files:
        blob, link = cache.blob(variant, file), cache.snapshot(variant) / file.path
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            blob.write_bytes(repo.files[file.path])  # type: ignore[arg-type]
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(os.path.relpath(blob, link.parent))
    if ref:
        path = cache.folder(variant) / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(repo.commit)


def test_what_nobody_needs_goes_without_a_trace_and_is_counted_right(server: Hub) -> None:
    variant = pulled(PLAIN)
    before = on_disk()
    (item,) = found()
    assert (item.kind, item.path) == ("weights", str(cache.folder(variant)))
    assert WHY in item.why
    blobs = [cache.blob(variant, file) for file in variant.files]
    assert collect() == item.frees_bytes == before - on_disk()
    assert item.frees_bytes >= 20000
    assert not cache.folder(variant).exists()
    assert paths.hub_cache().exists()
    assert [stamps.get(blob) for blob in blobs] == [None] * 3
    assert found() == []


def test_what_a_lock_names_stays(server: Hub) -> None:
    plain, q4, q8 = pulled(PLAIN), pulled(GGUF, "q4.gguf"), pulled(GGUF, "q8.gguf")
    assert collect(plain, q4) >= 9000
    assert verify.check(plain, full=True) == verify.check(q4, full=True) == ()
    assert not cache.blob(q8, q8.files[0]).exists()
    assert not os.path.lexists(cache.snapshot(q8) / "q8.gguf")
    assert f"refs/pinned-{GGUF.commit[:12]}" in entries(GGUF)
    assert scan_cache_dir(paths.hub_cache()).warnings == []


def test_what_another_tool_fetched_stays_to_the_byte(server: Hub) -> None:
    by_another_tool(PLAIN)
    before = entries(PLAIN)
    assert found() == []
    assert entries(PLAIN) == before


@pytest.mark.parametrize("ref", ["main", "refs/pr/1", None])
def test_what_another_tools_snapshot_links_to_stays(server: Hub, ref: str | None) -> None:
    pulled(GGUF)
    if ref is None:
        # Pulled by commit, a commit of its own: nothing but the links says that somebody wants the blob.
        other = cache.folder(locked.of(GGUF)) / "snapshots" / ("f" * 40) / "q4.gguf"
        other.parent.mkdir()
        other.symlink_to(f"../../blobs/{GGUF.blobs['q4.gguf'].sha256}")
        links = {f"snapshots/{commit}/q4.gguf" for commit in (GGUF.commit, "f" * 40)}
        left = links | {f"blobs/{GGUF.blobs['q4.gguf'].sha256}"}
    else:
        by_another_tool(GGUF, ref=ref)
        left = entries(GGUF) - {f"refs/pinned-{GGUF.commit[:12]}"}
    collect()
    assert entries(GGUF) == left
    assert scan_cache_dir(paths.hub_cache()).warnings == []


def test_blobs_of_another_tool_in_a_snapshot_of_ours_stay(server: Hub) -> None:
    pulled(GGUF, "q4.gguf")
    by_another_tool(GGUF, "q8.gguf", ref=None)
    collect()
    assert entries(GGUF) == {f"snapshots/{GGUF.commit}/q8.gguf", f"blobs/{GGUF.blobs['q8.gguf'].sha256}"}


def test_a_blob_that_another_tool_has_replaced_is_no_longer_ours(server: Hub) -> None:
    variant = pulled(GGUF, "q4.gguf")
    blob = cache.blob(variant, variant.files[0])
    beside = blob.with_name("beside")
    beside.write_bytes(blob.read_bytes())
    beside.replace(blob)
    assert verify.check(variant, full=True) == ()
    collect()
    assert blob.exists()


def test_the_shared_store_and_what_links_lead_out_to_stay(server: Hub, tmp_path: Path) -> None:
    variant = pulled(PLAIN)
    blob = cache.blob(variant, next(file for file in variant.files if file.path == "model.safetensors"))
    shared = paths.hub_cache() / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("0" * 64)).write_bytes(b"?")
    (paths.hub_cache() / "models--other--linked").symlink_to(outside)
    folder = paths.hub_cache() / "models--other--blobs"
    folder.mkdir()
    (folder / "blobs").symlink_to(outside)
    collect()
    assert shared.read_bytes() == b"w" * 20000
    assert os.path.lexists(blob)
    assert (outside / ("0" * 64)).exists()


def test_a_file_of_this_machine_is_unlinked_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"mine")
    variant = locked.of_path(path)
    puller.pull((variant,))
    assert collect(variant) == 0
    assert verify.check(variant) == ()
    assert collect() >= 0
    assert not cache.folder(variant).exists()
    assert path.read_bytes() == b"mine"


def test_an_unfinished_blob_goes_unless_a_lock_names_it_or_somebody_holds_it(server: Hub) -> None:
    variant = locked.of(GGUF, "q4.gguf")
    part = cache.part(variant, variant.files[0])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"4" * 4096)
    assert found(variant) == []
    with part.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert found() == []
    (item,) = found()
    assert item.kind == "unfinished"
    with part.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert freeing.free(item) == 0
        assert part.exists()
    assert freeing.free(item) == item.frees_bytes >= 4096
    assert not part.exists()


def test_other_tools_unfinished_files_go_only_if_asked_for_and_old(server: Hub) -> None:
    blobs = cache.folder(locked.of(GGUF)) / "blobs"
    blobs.mkdir(parents=True)
    old, new = blobs / f"{'a' * 64}.0123abcd.incomplete", blobs / f"{'b' * 64}.0123abcd.incomplete"
    for path in (old, new):
        path.write_bytes(b"?")
    hours = time.time() - 3 * 3600
    os.utime(old, (hours, hours))
    assert found() == []
    (item,) = found(incomplete=True)
    assert "for 3 h" in item.why
    collect(incomplete=True)
    assert [path.exists() for path in (old, new)] == [False, True]


def test_a_ref_that_leads_nowhere_names_nothing(server: Hub) -> None:
    variant = pulled(GGUF, "q4.gguf")
    (cache.folder(variant) / "refs" / "broken").symlink_to("nowhere")
    (item,) = found()
    assert collect() == item.frees_bytes
    assert entries(GGUF) == {"refs/broken"}


def test_what_goes_while_it_is_looked_at_is_passed_over(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = pulled(GGUF)
    blobs = [cache.blob(variant, file) for file in variant.files]
    get = stamps.get

    def late(path: Path) -> stamps.Stamp | None:
        stamp = get(path)
        if path == blobs[0]:
            path.unlink()
        return stamp

    monkeypatch.setattr(stamps, "get", late)
    (item,) = found()
    assert str(blobs[1]) in item.paths
    assert str(blobs[0]) not in item.paths
    assert freeing.room(blobs[0]) == 0


def test_what_a_killed_write_left_goes_once_it_is_old(server: Hub) -> None:
    variant = pulled(GGUF)
    left = [atomic.temporary(cache.folder(variant)), atomic.temporary(cache.folder(variant) / "blobs")]
    left[0].write_bytes(b"1" * 40)
    left[1].symlink_to("nowhere")
    assert found(variant) == []
    for path in left:
        hours = time.time() - 3 * 3600
        os.utime(path, (hours, hours), follow_symlinks=False)
    assert {(item.kind, item.path) for item in found(variant)} == {("unfinished", str(path)) for path in left}
    collect(variant)
    assert not any(map(os.path.lexists, left))
    assert verify.check(variant, full=True) == ()


def test_a_blob_whose_stamp_was_lost_may_be_another_tools_and_stays(server: Hub) -> None:
    variant = pulled(GGUF)
    paths.stamps_file().unlink()
    assert verify.check(variant, full=True) == ()
    collect()
    assert all(cache.blob(variant, file).exists() for file in variant.files)


def test_a_blob_with_another_name_elsewhere_frees_nothing(server: Hub, tmp_path: Path) -> None:
    variant = pulled(GGUF, "q4.gguf")
    blob = cache.blob(variant, variant.files[0])
    (alone,) = found()
    os.link(blob, tmp_path / "also")
    (item,) = found()
    assert item.frees_bytes == alone.frees_bytes - blob.stat().st_blocks * 512
    assert collect() == item.frees_bytes
    assert (tmp_path / "also").exists()


def test_cut_short_anywhere_it_leaves_missing_files_and_never_wrong_ones(server: Hub) -> None:
    variant = pulled(PLAIN)
    (item,) = found()
    for path in item.paths:
        assert all(finding.problem in ("missing", "not-linked") for finding in verify.check(variant))
        for link in (cache.snapshot(variant) / file.path for file in variant.files):
            assert not os.path.lexists(link) or link.exists(), "a link was left behind its blob"
        Path(path).unlink()
        if path == item.paths[len(item.paths) // 2]:
            break
    collect()
    assert entries(PLAIN) == set()
    assert puller.pull((variant,))
    assert verify.check(variant, full=True) == ()
