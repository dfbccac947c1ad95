"""The cache layout, as other tools read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from deploy import atomic, paths
from deploy.errors import LockError, UserError
from deploy.lockfile import Origin, Variant
from deploy.weights import cache, verify
from tests import locked
from tests.hubserver import Repo, hub

REPO = Repo(
    "org/tiny",
    "ab" * 20,
    {"config.json": b"{}", "nested/tokenizer.json": b"[]", "model.safetensors": b"weights"},
)
QUANTS = Repo("org/tiny-GGUF", "cd" * 20, {"tiny-Q4.gguf": b"four", "tiny-Q8.gguf": b"eight eight", "README.md": b"#"})


def store(variant: Variant, repo: Repo) -> None:
    """The blobs, as a pull leaves them."""
    for file in variant.files:
        path = cache.blob(variant, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(repo.blobs[file.path].content)  # type: ignore[arg-type]


def test_huggingface_hub_reads_it_offline() -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    cache.link(variant)
    found = Path(snapshot_download(REPO.id, revision=REPO.commit, cache_dir=paths.hub_cache(), local_files_only=True))
    assert found == cache.snapshot(variant)
    assert {path: (found / path).read_bytes() for path in REPO.files} == REPO.files
    scanned = scan_cache_dir(paths.hub_cache())
    assert scanned.warnings == []
    (repo,) = scanned.repos
    (revision,) = repo.revisions
    assert (repo.repo_id, repo.nb_files, revision.commit_hash) == ("org/tiny", 3, REPO.commit)


def test_a_ref_protects_it_from_prune() -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    cache.link(variant)
    (repo,) = scan_cache_dir(paths.hub_cache()).repos
    detached = [revision for revision in repo.revisions if not revision.refs]
    assert detached == []  # what `hf cache prune` deletes
    assert set(repo.refs) == {"pinned-abababababab"}


def test_a_later_download_by_another_tool_still_finds_the_rest_of_the_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant = locked.of(QUANTS, "tiny-Q4.gguf")
    store(variant, QUANTS)
    cache.link(variant)
    with hub([QUANTS]) as server:
        found = Path(
            snapshot_download(
                QUANTS.id, revision=QUANTS.commit, cache_dir=paths.hub_cache(), endpoint=server.url, max_workers=1
            )
        )
    assert sorted(path.name for path in found.iterdir()) == sorted(QUANTS.files)


def test_links_are_relative_and_the_cache_can_be_moved(tmp_path: Path) -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    cache.link(variant)
    moved = tmp_path / "elsewhere"
    relative = cache.snapshot(variant).relative_to(paths.hub_cache())
    paths.hub_cache().rename(moved)
    assert (moved / relative / "nested" / "tokenizer.json").read_bytes() == b"[]"


def test_linking_twice_writes_nothing() -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    cache.link(variant)
    before = {path: path.lstat().st_mtime_ns for path in paths.hub_cache().rglob("*")}
    cache.link(variant)
    assert {path: path.lstat().st_mtime_ns for path in paths.hub_cache().rglob("*")} == before


def test_linking_mends_what_does_not_lead_to_the_blob(tmp_path: Path) -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    other = tmp_path / "other"
    (other / "nested").mkdir(parents=True)
    base = cache.snapshot(variant)
    base.mkdir(parents=True)
    (base / "nested").symlink_to(other / "nested")
    (base / "config.json").symlink_to(other)
    (base / "model.safetensors").write_bytes(b"replaced")
    cache.link(variant)
    assert {path: (base / path).read_bytes() for path in REPO.files} == REPO.files
    assert list((other / "nested").iterdir()) == []


def test_stray_links_are_taken_out_and_their_blobs_stay(capsys: pytest.CaptureFixture[str]) -> None:
    variant = locked.of(REPO, "config.json", "model.safetensors")
    everything = locked.of(REPO)
    store(everything, REPO)
    cache.link(everything)
    cache.link(variant)
    assert not (cache.snapshot(variant) / "nested" / "tokenizer.json").is_symlink()
    assert all(cache.blob(everything, file).exists() for file in everything.files)
    assert "tokenizer.json" in capsys.readouterr().err


def test_what_no_engine_reads_stays_linked_for_the_tool_that_fetched_it() -> None:
    documents = {"README.md": b"#", "LICENSE": b"free", ".gitattributes": b"", "images/a.png": b"?"}
    repo = Repo("org/documented", files=REPO.files | documents | {"evil.py": b"", "other.BIN": b"", "merges.txt": b""})
    variant, everything = locked.of(repo, *REPO.files), locked.of(repo)
    store(everything, repo)
    cache.link(everything)
    base = cache.snapshot(variant)
    assert {path.name for path in cache.strays(variant)} == {"evil.py", "other.BIN", "merges.txt"}
    cache.link(variant)
    assert list(cache.strays(variant)) == []
    assert {str(path.relative_to(base)) for path in base.rglob("*") if path.is_symlink()} == {*REPO.files, *documents}


def test_variants_of_one_commit_keep_each_others_files() -> None:
    first, second = locked.of(REPO, "config.json"), locked.of(REPO, "config.json", "model.safetensors")
    store(second, REPO)
    for variant in (first, second, first):
        cache.link(variant, (first, second))
    assert verify.inspect((first, second), "full") == ((), ())
    assert [finding.path for finding in verify.check(first)] == ["model.safetensors"], "an engine would read it"


def test_a_cache_that_cannot_be_written_is_warned_of_once_all_is_linked(capsys: pytest.CaptureFixture[str]) -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    # As good as a read-only folder, for root too.
    (cache.folder(variant) / "refs").write_bytes(b"")
    cache.link(variant)
    assert verify.check(variant, full=True) == ()
    assert capsys.readouterr().err.count("warning") == 1


def test_a_killed_write_of_a_ref_is_no_ref_for_huggingface_hub() -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    killed = "import os; os.fsync = lambda _: os._exit(9); from deploy.weights import cache; import msgspec, sys"
    code = f"{killed}; from deploy.lockfile import Variant"
    code += "; cache.link(msgspec.json.decode(sys.stdin.buffer.read(), type=Variant))"
    done = subprocess.run([sys.executable, "-c", code], input=msgspec.json.encode(variant), check=False)
    assert done.returncode == 9
    (left,) = (path for path in cache.folder(variant).rglob("*") if atomic.TEMPORARY.fullmatch(path.name))
    assert left.parent == cache.folder(variant)
    (paths.hub_cache() / "CACHEDIR.TAG").touch()
    scanned = scan_cache_dir(paths.hub_cache())
    assert (len(scanned.repos), scanned.warnings) == (1, [])


def test_a_name_as_long_as_the_file_system_allows_is_linked() -> None:
    repo = Repo("org/long", files={f"{'n' * 250}.json": b"{}"})
    variant = locked.of(repo)
    store(variant, repo)
    cache.link(variant)
    assert verify.check(variant) == ()


def test_a_folder_in_the_way_of_a_link_is_named_and_nothing_is_left_beside() -> None:
    variant = locked.of(REPO, "config.json")
    store(variant, REPO)
    entry = cache.snapshot(variant) / "config.json"
    entry.mkdir(parents=True)
    with pytest.raises(UserError, match="in the way") as raised:
        cache.link(variant)
    assert raised.value.hint == f"rm -r '{entry}'"
    assert list(entry.parent.iterdir()) == [entry]


def test_two_single_files_of_one_commit_share_a_snapshot() -> None:
    small, large = locked.of(QUANTS, "tiny-Q4.gguf"), locked.of(QUANTS, "tiny-Q8.gguf")
    for variant in (small, large, small):
        store(variant, QUANTS)
        cache.link(variant)
    assert cache.snapshot(small) == cache.snapshot(large)
    assert list(cache.strays(small)) == list(cache.strays(large)) == []
    assert cache.weights(small).read_bytes() == b"four"
    assert cache.weights(large).read_bytes() == b"eight eight"


def test_an_engine_is_handed_the_folder_or_the_first_shard() -> None:
    sharded = Repo("org/big", files={f"big-0000{i}-of-00002.gguf": b"%d" % i for i in (2, 1)})
    variant = locked.of(sharded)
    shuffled = msgspec.structs.replace(variant, files=variant.files[::-1])
    assert cache.weights(shuffled).name == "big-00001-of-00002.gguf"
    assert cache.weights(locked.of(REPO)) == cache.snapshot(locked.of(REPO))


def test_a_file_of_this_machine_has_a_folder_named_after_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"mine")
    variant = locked.of_path(path)
    tree = variant.tree.removeprefix("sha256:")
    assert cache.folder(variant) == paths.hub_cache() / f"models--file--{tree[:12]}"
    assert cache.commit(variant) == tree[:40]
    assert cache.source(variant, variant.files[0]) == path


@pytest.mark.parametrize(
    "origin", [Origin(kind="huggingface", repo="org/tiny"), Origin(kind="huggingface", commit="a" * 40)]
)
def test_a_lock_without_a_pin_is_refused(origin: Origin) -> None:
    variant = msgspec.structs.replace(locked.of(REPO), origin=origin)
    with pytest.raises(LockError, match="names no"):
        cache.snapshot(variant)


def test_no_listing_is_left_that_claims_to_be_whole() -> None:
    variant = locked.of(REPO)
    store(variant, REPO)
    cache.link(variant)
    names = {path.relative_to(cache.folder(variant)).parts[0] for path in cache.folder(variant).rglob("*")}
    assert names == {"blobs", "refs", "snapshots"}
