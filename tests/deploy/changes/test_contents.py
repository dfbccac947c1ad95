"""What a locked variant's files held: from the cache, from the disk, else from the Hub, and never unproved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.changes import contents
from deploy.changes.contents import Contents
from deploy.errors import PlaceError
from deploy.lockfile import Facts, File, Variant
from deploy.weights import cache
from tests import hubserver, locked, tiny
from tests.hubserver import Blob, Hub, Repo

COMMIT = "a" * 40
CONFIG = b'{"a": 1}'
TOKENIZER = json.dumps({"chat_template": "{{ messages }}"}).encode()
REPO = Repo("org/tiny", COMMIT, {"config.json": CONFIG, "tokenizer_config.json": TOKENIZER, "model.safetensors": b"w"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hubserver.hub([REPO]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def variant() -> Variant:
    return templated(locked.of(REPO), b"{{ messages }}")


def templated(variant: Variant, source: bytes) -> Variant:
    return msgspec.structs.replace(variant, facts=Facts(chat_template=Blob(source).sha256))


def file(variant: Variant, path: str) -> File:
    return next(file for file in variant.files if file.path == path)


def cached(variant: Variant, path: str, content: bytes) -> None:
    blob = cache.blob(variant, file(variant, path))
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)


def test_the_cache_is_asked_before_the_hub(variant: Variant, server: Hub) -> None:
    cached(variant, "config.json", CONFIG)
    assert Contents(variant).read(file(variant, "config.json")) == CONFIG
    assert not server.requests


def test_wrong_bytes_in_the_cache_are_passed_over(variant: Variant, server: Hub) -> None:
    cached(variant, "config.json", b'{"a": 2}')
    assert Contents(variant).read(file(variant, "config.json")) == CONFIG
    assert [asked.path for asked in server.requests][-1] == f"/org/tiny/resolve/{COMMIT}/config.json"


def test_the_hub_is_asked_for_its_listing_once(variant: Variant, server: Hub) -> None:
    one = Contents(variant)
    assert [one.read(file) for file in variant.files] == [CONFIG, b"w", TOKENIZER]
    assert len([asked for asked in server.requests if "/tree/" in asked.path]) == 1


def test_a_hub_that_does_not_answer_is_asked_once(variant: Variant, server: Hub) -> None:
    server.fault("*", status=404)
    one = Contents(variant)
    for path in ("config.json", "tokenizer_config.json"):
        with pytest.raises(PlaceError):
            one.read(file(variant, path))
    with pytest.raises(PlaceError):
        one.template()
    assert len(server.requests) == 1


def test_a_slow_hub_is_given_up(variant: Variant, server: Hub) -> None:
    times = iter([0.0, 1.0, contents.READING_S + 1])
    one = Contents(variant, clock=lambda: next(times))
    assert one.read(file(variant, "config.json")) == CONFIG
    with pytest.raises(PlaceError, match="not asked for"):
        one.read(file(variant, "tokenizer_config.json"))


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b'{"a": 2}', "model.safetensors": b"w"},
        {"config.json": CONFIG + b" ", "model.safetensors": b"w"},
        {"model.safetensors": b"w"},
    ],
)
def test_a_rewritten_history_is_named(variant: Variant, server: Hub, files: dict[str, bytes]) -> None:
    server.move(Repo("org/tiny", COMMIT, files))
    with pytest.raises(PlaceError, match=r"at commit a+ no longer has the `config.json` .* history was rewritten"):
        Contents(variant).read(file(variant, "config.json"))


def test_a_git_name_that_two_contents_share_is_not_believed(variant: Variant, server: Hub) -> None:
    forged = msgspec.structs.replace(file(variant, "config.json"), sha256="0" * 64)
    with pytest.raises(PlaceError, match="history was rewritten"):
        Contents(variant).read(forged)


def test_the_template_of_a_folder(variant: Variant, server: Hub) -> None:
    assert Contents(variant).template() == "{{ messages }}"
    assert Contents(msgspec.structs.replace(variant, facts=Facts())).template() is None


def test_a_template_that_is_not_the_locked_one(variant: Variant, server: Hub) -> None:
    with pytest.raises(PlaceError, match="no longer where it was"):
        Contents(templated(variant, b"another")).template()


def test_the_template_of_a_gguf_from_the_cache_or_the_hub(tmp_path: Path, server: Hub) -> None:
    content = tiny.gguf(tmp_path / "m.gguf").read_bytes()
    repo = Repo("org/gguf", COMMIT, {"LICENSE": b"free", "m.gguf": content})
    server.move(repo)
    variant = templated(locked.of(repo), tiny.TEMPLATE.encode())
    assert Contents(variant).template() == tiny.TEMPLATE
    cached(variant, "m.gguf", b"GGUF, but damaged")
    assert Contents(variant).template() == tiny.TEMPLATE
    cached(variant, "m.gguf", content)
    server.requests.clear()
    assert Contents(variant).template() == tiny.TEMPLATE
    assert not server.requests


def test_a_file_of_this_disk(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG)
    variant = locked.of_path(tmp_path)
    assert Contents(variant).read(variant.files[0]) == CONFIG
    (tmp_path / "config.json").write_bytes(b'{"a": 2}')
    with pytest.raises(PlaceError, match="no longer on this disk"):
        Contents(variant).read(variant.files[0])


def test_what_lies_there_and_is_no_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG)
    variant = locked.of_path(tmp_path)
    (tmp_path / "config.json").unlink()
    # Opening one would wait for a writer for ever.
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(PlaceError, match="no longer on this disk"):
        Contents(variant).read(variant.files[0])
