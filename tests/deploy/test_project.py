"""A project's lock: whole or in part, derived again, looked up again, and kept in the history."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import catalog, lockfile, project
from deploy.changes import history
from deploy.errors import LockError
from deploy.project import Project
from serving.engines import ENGINES
from tests import hubserver, rows, tiny
from tests.conftest import NOWHERE
from tests.deploy.boxes import box
from tests.hubserver import Repo

MODEL = '[[model]]\nname = "{}"\nsource = "file:tiny-F16.gguf"\n{}\n'
GGUF = "tiny-F16.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    tiny.gguf(folder / GGUF)
    return folder


def of(folder: Path, *models: str, more: str = "") -> Project:
    (folder / "models.toml").write_text("".join(MODEL.format(name, more) for name in models))
    return project.find(folder)


def names(lock: lockfile.Lock) -> list[str]:
    return [model.name for model in lock.models]


def test_a_lock_in_part_is_stale_until_it_is_whole(folder: Path) -> None:
    here = of(folder, "a", "b")
    part = here.lock(box(), (), only=frozenset({"b"}))
    here.save(part)
    assert names(part) == ["b"]
    assert project.stale(part, here.config, ())
    with pytest.raises(LockError, match="the lock is stale"):
        here.lock(box(), (), locked=True)
    whole = here.lock(box(), ())
    assert names(whole) == ["a", "b"]
    assert not project.stale(whole, here.config, ())
    here.save(whole)
    assert here.lock(box(), (), only=frozenset({"a"})) == whole


def test_what_is_not_named_stays_even_where_it_is_stale(folder: Path) -> None:
    here = of(folder, "a", "b")
    here.save(here.lock(box(), ()))
    before = lockfile.read(here.lock_path)
    here = of(folder, "a", "b", more='precision = "F16"')
    found = here.lock(box(), (), only=frozenset({"b"}))
    assert found.model("a") == before.model("a")
    assert found.model("b").inputs != before.model("b").inputs
    assert project.stale(found, here.config, ())


def test_what_is_no_longer_wished_for_leaves_and_aliases_follow(folder: Path) -> None:
    here = of(folder, "a", "b", "c")
    here.save(here.lock(box(), ()))
    (folder / "models.toml").write_text(MODEL.format("a", 'aliases = ["z", "y"]') + MODEL.format("b", ""))
    here = project.find(folder)
    found = here.lock(box(), (), only=frozenset({"b"}))
    assert names(found) == ["a", "b"]
    assert found.model("a").aliases == ("y", "z")
    assert not project.stale(found, here.config, ())
    assert found == here.lock(box(), ())


def test_a_model_that_is_not_wished_for_is_refused(folder: Path) -> None:
    here = of(folder, "a")
    for call in (here.lock, here.derived):
        here.save(here.lock(box(), ()))
        with pytest.raises(LockError, match="no model `x` in") as caught:
            call(box(), (), only=frozenset({"x"}))
        assert caught.value.hint == "wished for: a"


def test_derived_again_it_is_the_same(folder: Path) -> None:
    here = of(folder, "a", "b")
    found = here.lock(box(), ())
    here.save(found)
    assert here.derived(box(), ()) == found
    assert here.derived(box(), (), only=frozenset({"b"})) == found
    with pytest.raises(LockError, match="nothing is locked yet"):
        Project(folder=folder / "other", config=here.config).derived(box(), ())


def test_upstream_is_looked_up_without_writing(folder: Path) -> None:
    here = of(folder, "a")
    found = here.lock(box(), ())
    here.save(found)
    assert here.upstream(found.models[0]) == found.models[0]
    content = (folder / GGUF).read_bytes()
    (folder / GGUF).write_bytes(content.replace(b"Functions:", b"Callables:"))
    now = here.upstream(found.models[0])
    assert now.variants[0].files[0].sha256 != found.models[0].variants[0].files[0].sha256
    assert lockfile.read(here.lock_path) == found


def test_upstream_of_what_chose_itself_does_not_choose_again(folder: Path) -> None:
    (folder / "models.toml").write_text('[[model]]\nname = "a"\n')
    here = project.find(folder)
    found = here.lock(box(), ENGINES)
    here.save(found)
    assert found.models[0].catalogue
    assert here.upstream(found.models[0]) == found.models[0]


def test_the_history_keeps_what_was_written_and_what_was_there(folder: Path) -> None:
    here = of(folder, "a")
    first = here.lock(box(), ())
    # As from version control: nobody told the history.
    here.lock_path.write_text(lockfile.write(first))
    here = of(folder, "a", "b")
    second = here.lock(box(), ())
    assert here.save(second, reason="because")
    assert [(entry.digest, entry.reason) for entry in history.entries(folder)] == [
        (second.digest, "because"),
        (first.digest, history.FOUND),
    ]
    assert history.read(first.digest) == first
    assert not here.save(second, reason="again")
    assert len(history.entries(folder)) == 2


def test_a_variant_that_no_hub_was_asked_about_is_not_gone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in catalog.rows() if row.commit is None and any(gguf.pinned for gguf in row.gguf))
    checkpoint = tiny.huggingface(tmp_path / "checkpoint")
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    repo = Repo(row.hf_repo, "a" * 40, files | {"config.json": rows.config(row, files["config.json"])})
    (folder / "models.toml").write_text(f'[[model]]\nname = "a"\nsource = "{row.id}"\n')
    here = project.find(folder)
    with hubserver.hub([repo]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        found = here.lock(box(), ())
        here.save(found)
        assert {variant.format for variant in found.models[0].variants} == {"safetensors", "gguf"}
        assert here.upstream(found.models[0]) == found.models[0]
        assert here.derived(box(), ()) == found
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    with pytest.raises(LockError, match=r"safetensors/bf16: the Hub.* cannot be reached"):
        here.upstream(found.models[0])
