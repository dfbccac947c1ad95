"""The unmodified huggingface_hub client against the test Hub, and over what our puller left, and the other way round.

It reads its environment when it is imported: so it runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import paths
from deploy.weights import cache, puller
from tests import hubserver, locked, tiny
from tests.hubserver import Hub, Repo

ID, COMMIT = "org/tiny", "ab" * 20
PARAMETERS = {"BF16": sum(values.size for values in tiny.weights().values())}
XET = {"model.safetensors": "e" * 64}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A whole checkpoint, with a file in a folder."""
    folder = tiny.huggingface(tmp_path_factory.mktemp("checkpoint"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Repo(ID, COMMIT, files | {"nested/notes.json": b"[1]"}, xet=XET, card={"license_name": "own"})


@pytest.fixture
def server(repo: Repo) -> Iterator[Hub]:
    with hubserver.hub([repo], page=3) as running:
        yield running


def stock(server: Hub, code: str, **environment: str) -> Any:
    """What the expression's value is in a process that has all of huggingface_hub imported."""
    script = f"import json\nfrom huggingface_hub import *\nprint(json.dumps({code}, default=str))"
    return json.loads(_run(server, [sys.executable, "-c", script], environment).stdout)


def hf(server: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The client's own command."""
    return _run(server, [str(Path(sys.executable).with_name("hf")), *arguments], {})


def _run(server: Hub, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        command, env={**os.environ, **own, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pull(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch, *files: str) -> tuple[puller.Pulled, ...]:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return puller.pull((locked.of(repo, *files),))


def contents(folder: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_it_finds_all_that_a_hub_says(server: Hub, repo: Repo) -> None:
    info, siblings, tree, asked, refs, user = stock(
        server,
        """[
            (lambda info: [info.sha, info._id, info.card_data.license_name])(api.model_info("org/tiny")),
            {s.rfilename: [s.size, s.lfs and s.lfs.sha256]
                for s in api.model_info("org/tiny", files_metadata=True).siblings},
            {f.path: [f.size, f.lfs and f.lfs.sha256, f.xet_hash]
                for f in api.list_repo_tree("org/tiny", recursive=True) if hasattr(f, "size")},
            [f.path for f in api.get_paths_info("org/tiny", ["config.json", "none"])],
            [[b.name, b.target_commit] for b in api.list_repo_refs("org/tiny").branches],
            whoami(token="hf_any")["name"],
        ] if (api := HfApi()) else None""",
    )
    sizes = {path: [blob.size, blob.sha256 if repo.is_lfs(path) else None] for path, blob in repo.blobs.items()}
    assert info == [COMMIT, repo.info()["_id"], "own"]
    assert siblings == sizes
    assert tree == {path: [*known, XET.get(path)] for path, known in sizes.items()}
    assert asked == ["config.json"]
    assert refs == [["main", COMMIT]]
    assert user == "someone"


def test_it_downloads_a_branch_a_commit_and_a_file(server: Hub, repo: Repo) -> None:
    planned, branch, commit, file, counted = stock(
        server,
        """[
            [[f.filename, f.file_size, f.will_download] for f in snapshot_download("org/tiny", dry_run=True)],
            snapshot_download("org/tiny"),
            snapshot_download("org/tiny", revision="ab" * 20),
            hf_hub_download("org/tiny", "nested/notes.json"),
            get_safetensors_metadata("org/tiny").parameter_count,
        ]""",
    )
    assert sorted(planned) == sorted([path, blob.size, True] for path, blob in repo.blobs.items())
    assert contents(branch) == repo.files
    assert commit == branch
    assert Path(file).read_bytes() == b"[1]"
    assert counted == PARAMETERS


def test_it_follows_a_branch_that_moves_and_still_finds_the_old_commit(server: Hub, repo: Repo) -> None:
    server.move(Repo(ID, "cd" * 20, {"config.json": b"new"}))
    new, old = stock(server, '[snapshot_download("org/tiny"), snapshot_download("org/tiny", revision="ab" * 20)]')
    assert contents(new) == {"config.json": b"new"}
    assert contents(old) == repo.files


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ('model_info("org/none")', "RepositoryNotFoundError"),
        ('model_info("org/tiny", revision="v9")', "RevisionNotFoundError"),
        ('hf_hub_download("org/tiny", "none.json")', "RemoteEntryNotFoundError"),
        ('hf_hub_download("org/gated", "config.json")', "GatedRepoError"),
    ],
)
def test_it_names_what_is_wrong(server: Hub, call: str, error: str) -> None:
    server.move(Repo("org/gated", files={"config.json": b"{}"}, gated=True))
    script = f"from huggingface_hub import *\ntry:\n    {call}\nexcept Exception as e:\n    print(type(e).__name__)"
    assert _run(server, [sys.executable, "-c", script], {}).stdout.strip() == error


def test_a_pulled_snapshot_is_its_own(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(server, repo, monkeypatch)
    server.requests.clear()
    local, offline, file, tensors, warnings = stock(
        server,
        """[
            snapshot_download("org/tiny", revision="ab" * 20, local_files_only=True),
            snapshot_download("org/tiny", revision="ab" * 20),
            hf_hub_download("org/tiny", "nested/notes.json", revision="ab" * 20),
            get_local_safetensors_metadata(snapshot_download("org/tiny", revision="ab" * 20)).parameter_count,
            scan_cache_dir().warnings,
        ]""",
        HF_HUB_OFFLINE="1",
    )
    assert {local, offline} == {str(cache.snapshot(locked.of(repo)))}
    assert contents(local) == repo.files
    assert Path(file).read_bytes() == b"[1]"
    assert tensors == PARAMETERS
    assert warnings == []
    assert server.requests == []


def test_a_pulled_snapshot_passes_its_verification(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(server, repo, monkeypatch)
    verify = ("cache", "verify", ID, "--revision", COMMIT, "--fail-on-missing-files", "--fail-on-extra-files", "--json")
    said = json.loads(hf(server, *verify).stdout)
    assert (said["checked"], said["path"]) == (len(repo.files), str(cache.snapshot(locked.of(repo))))
    # The check that says so does look: another Hub, with other bytes in one file, is not content.
    server.move(Repo(ID, COMMIT, repo.files | {"config.json": b"{}"}))
    with pytest.raises(AssertionError, match="Verification failed for"):
        hf(server, *verify)


def test_a_pulled_snapshot_survives_its_pruning(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(server, repo, monkeypatch)
    hf(server, "cache", "prune", "-y")
    assert contents(cache.snapshot(locked.of(repo))) == repo.files


def test_it_completes_what_was_pulled_in_part(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(server, repo, monkeypatch, "model.safetensors")
    server.requests.clear()
    found = stock(server, 'snapshot_download("org/tiny", revision="ab" * 20)')
    assert contents(found) == repo.files
    fetched = {asked.path.rpartition("/")[2] for asked in server.requests if asked.method == "GET"}
    assert "config.json" in fetched
    assert "model.safetensors" not in fetched


def test_what_it_downloaded_is_accepted_without_a_request(
    server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stock(server, 'snapshot_download("org/tiny", revision="ab" * 20)')
    server.requests.clear()
    pulled = pull(server, repo, monkeypatch)
    assert {(file.place, file.fetched_bytes) for file in pulled} == {("cache", 0)}
    assert server.requests == []
    assert contents(found) == repo.files


def test_what_it_downloaded_wrongly_is_not(server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    # The stock client compares sizes only, and stores these bytes under the name of the right ones.
    server.fault("*/model.safetensors", flip=100)
    found = stock(server, 'snapshot_download("org/tiny", revision="ab" * 20)')
    assert contents(found) != repo.files
    server.faults.clear()
    pulled = pull(server, repo, monkeypatch)
    assert [Path(file.path).name for file in pulled if file.fetched_bytes] == ["model.safetensors"]
    assert contents(found) == repo.files


def test_it_keeps_the_commit_that_is_pinned_when_a_branch_goes(
    server: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(server, repo, monkeypatch)
    server.move(Repo(ID, "cd" * 20, {"config.json": b"new"}))
    stock(server, 'snapshot_download("org/tiny")')
    hf(server, "cache", "prune", "-y")
    assert contents(cache.snapshot(locked.of(repo))) == repo.files
    assert {path.name for path in (paths.hub_cache() / "models--org--tiny" / "refs").iterdir()} == {
        "main",
        f"pinned-{COMMIT[:12]}",
    }
