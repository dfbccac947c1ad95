"""Upgraded, rolled back, collected: a model that moved on at its Hub, on a box that serves it. Real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.hubrepo import Repo
from tests.hubserver import Hub, hub
from tests.serving.box import Box, box


@pytest.fixture
def commits(tmp_path: Path) -> tuple[Repo, Repo]:
    """The same tiny model twice, with another name inside."""
    content = tiny.gguf(tmp_path / "made.gguf").read_bytes()
    other = content.replace(b"tiny random Qwen3", b"tiny random Qwen4")
    files = ({"tiny-F16.gguf": content}, {"tiny-F16.gguf": other})
    first, second = (
        Repo("org/tiny-GGUF", commit=digit * 40, files=each) for digit, each in zip("12", files, strict=True)
    )
    return first, second


@pytest.fixture
def server(commits: tuple[Repo, Repo], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub([commits[0]]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def here(tmp_path: Path, server: Hub, commits: tuple[Repo, Repo]) -> Iterator[Box]:
    """Deployed at the first commit, then upgraded to the second."""
    with box(tmp_path) as made:
        path = made.project / "models.toml"
        path.write_text(path.read_text().replace(f"file:{made.weights}", "hf:org/tiny-GGUF"))
        made.ok("deploy")
        server.move(commits[1])
        made.ok("lock", "--upgrade", "chat")
        made.ok("deploy")
        yield made


def revision(here: Box) -> str:
    (row,) = json.loads(here.ok("ps", "--json"))
    found: str = row["revision"]
    return found


def past(here: Box) -> list[tuple[int, str]]:
    """Number and commit of each earlier lock."""
    return [(row["number"], row["models"][0]["commit"]) for row in json.loads(here.ok("history", "--json"))]


def lock(here: Box) -> bytes:
    return (here.project / "models.lock").read_bytes()


def test_back_to_the_lock_before_and_it_stays(here: Box, server: Hub) -> None:
    assert past(here) == [(0, "2" * 12), (1, "1" * 12)]
    assert revision(here) == "2" * 12
    upgraded, asked = lock(here), len(server.requests)

    here.ok("rollback")
    assert revision(here) == "1" * 12
    assert here.answer().status_code == 200
    assert past(here) == [(0, "1" * 12), (1, "2" * 12), (2, "1" * 12)]
    assert len(server.requests) == asked, "what was in the cache was asked for again"

    before = (lock(here), here.service(), here.engine_pid())
    here.ok("deploy")
    assert (lock(here), here.service(), here.engine_pid()) == before

    here.ok("rollback", "1", "--no-deploy")
    assert lock(here) == upgraded
    assert revision(here) == "1" * 12
    here.ok("deploy")
    assert revision(here) == "2" * 12


def test_a_rollback_whose_weights_are_out_of_reach_leaves_what_runs(
    here: Box, server: Hub, commits: tuple[Repo, Repo]
) -> None:
    blob = here.folder / "huggingface/hub/models--org--tiny-GGUF/blobs" / commits[0].blobs["tiny-F16.gguf"].sha256
    blob.unlink()
    server.fault("*/resolve/*", status=404)
    before = (lock(here), here.service(), here.engine_pid())
    done = here.run("rollback")
    assert done.returncode == 1
    assert "models.lock is as it was before" in done.stderr
    assert (lock(here), here.service(), here.engine_pid()) == before
    assert here.answer().status_code == 200
    server.faults.clear()
    here.ok("rollback")
    assert revision(here) == "1" * 12


def test_an_upgrade_that_does_not_start_names_the_way_back(
    here: Box, server: Hub, commits: tuple[Repo, Repo], tmp_path: Path
) -> None:
    content = (tmp_path / "made.gguf").read_bytes()
    server.move(Repo("org/tiny-GGUF", commit="3" * 40, files={"tiny-F16.gguf": content[:-4096]}))
    here.ok("lock", "--upgrade", "chat")
    done = here.run("deploy")
    assert done.returncode == 2
    assert "`ownweights rollback 1` goes back" in done.stderr
    here.ok("rollback", "1")
    assert revision(here) == "2" * 12
    assert here.answer().status_code == 200


def test_what_the_last_locks_need_outlives_gc(here: Box, commits: tuple[Repo, Repo]) -> None:
    assert json.loads(here.ok("gc", "--json"))["items"] == []
    here.ok("gc", "--yes")
    here.ok("rollback")
    assert "freed" in here.run("gc", "--yes", "--keep", "1").stderr
    assert past(here) == [(0, "1" * 12)]
    names = {path.name for path in (here.folder / "huggingface/hub/models--org--tiny-GGUF/blobs").iterdir()}
    assert names == {commits[0].blobs["tiny-F16.gguf"].sha256}
    assert here.answer().status_code == 200
    assert here.ok("verify", "--full") == ""
    done = here.run("rollback")
    assert done.returncode == 1
    assert "no lock 1 in the history" in done.stderr
