from pathlib import Path

import msgspec
import pytest

from deploy import catalog, notice
from deploy.lockfile import Licence, Lock, Model, Variant
from deploy.weights import cache, puller
from tests import hubserver, locked
from tests.hubserver import Repo

KIMI = catalog.find("kimi-k2.5").licence
FILES = {"a.gguf": b"weights", "LICENSE": b"Show it.\n", "NOTICE": b"Made by org.\n"}


@pytest.fixture
def repo() -> Repo:
    return Repo("moonshotai/Kimi-K2.5", "c" * 40, FILES)


@pytest.fixture
def variant(repo: Repo) -> Variant:
    return msgspec.structs.replace(locked.of(repo), licence=Licence(id=KIMI.spdx, file="LICENSE"))


@pytest.fixture
def pulled(repo: Repo, variant: Variant, monkeypatch: pytest.MonkeyPatch) -> Variant:
    with hubserver.hub([repo]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        puller.pull((variant,))
    return variant


def exported(folder: Path, *variants: Variant, name: str = "chat") -> dict[str, bytes]:
    """What lies in the folder afterwards, by name."""
    models = tuple(
        Model(name=name if number == 0 else f"{name}{number}", requested="x", variants=(one,))
        for number, one in enumerate(variants)
    )
    written = notice.export(Lock(generator="test", inputs="x", models=models), folder)
    assert set(written) == set(folder.iterdir())
    return {path.name: path.read_bytes() for path in written}


def file(variant, path):
    return next(found for found in variant.files if found.path == path)


def test_texts_and_what_must_be_shown(pulled, tmp_path):
    found = exported(tmp_path / "out", pulled)
    assert set(found) == {"NOTICE.md", "chat-LICENSE", "chat-NOTICE"}
    assert found["chat-LICENSE"] == FILES["LICENSE"]
    text = found["NOTICE.md"].decode()
    for said in ("`moonshotai/Kimi-K2.5` at commit", "c" * 40, KIMI.spdx, KIMI.note, KIMI.source, "[chat-LICENSE]"):
        assert said in text
    assert "To be shown: “Kimi K2.5”" in text


def test_what_is_not_at_hand_comes_with_the_command(variant, tmp_path):
    found = exported(tmp_path / "out", variant)
    assert set(found) == {"NOTICE.md"}
    assert "`LICENSE` is not at hand: `ownweights pull chat --variant gguf/Q4_K_M`" in found["NOTICE.md"].decode()


def test_other_bytes_than_the_locked_ones_are_no_text(pulled, tmp_path):
    blob = cache.blob(pulled, file(pulled, "LICENSE"))
    blob.chmod(0o644)
    blob.write_bytes(b"Do what you like.\n"[: blob.stat().st_size])
    found = exported(tmp_path / "out", pulled)
    assert set(found) == {"NOTICE.md", "chat-NOTICE"}
    assert "`LICENSE` is not at hand" in found["NOTICE.md"].decode()


def test_nothing_leaves_the_folder(pulled, tmp_path):
    found = exported(tmp_path / "out", pulled, name="a/../../b:c")
    assert set(found) == {"NOTICE.md", "a-..-..-b-c-LICENSE", "a-..-..-b-c-NOTICE"}
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "home", "huggingface"}


def test_a_link_that_lies_there_is_replaced_not_followed(pulled, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chat-LICENSE").symlink_to(tmp_path / "mine")
    assert exported(tmp_path / "out", pulled)["chat-LICENSE"] == FILES["LICENSE"]
    assert (tmp_path / "mine").read_text() == "mine"


def test_other_texts_never_share_a_name(repo, pulled, tmp_path):
    """`a/b` and `a-b` are two models with one file name."""
    other = Repo("org/two", "d" * 40, FILES | {"LICENSE": b"Another.\n"})
    second = locked.of(other)
    for one in second.files:
        path = cache.blob(second, one)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((FILES | {"LICENSE": b"Another.\n"})[one.path])
    models = (
        Model(name="a-b", requested="x", variants=(pulled,)),
        Model(name="a/b", requested="x", variants=(second,)),
    )
    notice.export(Lock(generator="test", inputs="x", models=models), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"NOTICE.md", "a-b-LICENSE", f"a-b-LICENSE-{file(second, 'LICENSE').sha256[:12]}", "a-b-NOTICE"}


def test_where_no_text_was_locked_the_standard_one_is_named(variant, tmp_path):
    files = tuple(one for one in variant.files if one.path == "a.gguf")
    one = msgspec.structs.replace(variant, files=files, licence=Licence(id="Apache-2.0"))
    assert "spdx.org/licenses/Apache-2.0.html" in exported(tmp_path / "out", one)["NOTICE.md"].decode()
    bare = msgspec.structs.replace(one, licence=None)
    assert "ask its publisher" in exported(tmp_path / "bare", bare)["NOTICE.md"].decode()
