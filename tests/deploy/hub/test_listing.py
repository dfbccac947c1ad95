"""What a Hub may say of a repository, and what we refuse to believe."""

import json

import msgspec
import pytest

from deploy import hub
from deploy.errors import PlaceError
from deploy.hub import listing
from tests import hubserver
from tests.hubserver import Repo

COMMIT = "c" * 40
HASH = "0" * 64


def entry(path):
    return {"type": "file", "path": path, "size": 1, "oid": "0" * 40}


@pytest.fixture(scope="module")
def running():
    with hubserver.hub([]) as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    for past in (running.requests, running.faults, running.revisions):
        past.clear()
    running.move(Repo("org/odd", COMMIT, {"config.json": b"{}"}))
    running.page = 1000
    return running


@pytest.fixture
def listed(server):
    """A function: what `resolve` makes of a repository with these entries."""

    def resolve(*entries, **repo):
        server.move(Repo("org/odd", COMMIT, {"config.json": b"{}"}, listing=list(entries) or None, **repo))
        return hub.resolve("org/odd", "main")

    return resolve


def refused(call, *arguments, **more):
    """The error, checked for the form that every error has: one short printable line, a place, a hint."""
    with pytest.raises(PlaceError) as caught:
        call(*arguments, **more)
    error = caught.value
    assert str(error).isprintable()
    assert len(error.message) < 250
    assert error.where
    assert error.hint
    return error.message


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "a//b",
        "./a",
        "",
        "..",
        "x" * 256,
        "/".join(["x" * 200] * 21),
        "../\x1b[2J\n",
    ],
)
def test_a_path_that_leaves_its_folder_or_fits_no_disk_is_refused(listed, path):
    assert "unsafe path" in refused(listed, entry("config.json"), entry(path))


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b", "a!", "a"], ["a/b/c", "a/b", "a/c"]])
def test_one_path_cannot_be_two_things(listed, paths):
    assert "twice, or as a file and as a folder" in refused(listed, *map(entry, paths))


@pytest.mark.parametrize("paths", [["a.json", "a/b"], ["a", "ab", "a!", "b/a"]])
def test_paths_that_only_look_alike_are_fine(listed, paths):
    assert sorted(listed(*map(entry, paths)).paths) == sorted(paths)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"size": 1 << 60},
        {"size": 10**30},
        {"size": "1"},
        {"size": 1.5},
        {"size": None},
        {"oid": "0" * 39},
        {"oid": "0" * 40 + "\n"},
        {"oid": "../../../../../../../../../../../../etc/p"},
        {"lfs": {"oid": "0" * 63, "size": 1, "pointerSize": 1}},
        {"lfs": {"oid": HASH, "size": -1, "pointerSize": 1}},
        {"lfs": {"size": 1}},
        {"xetHash": "../" + HASH},
        {"path": None},
        {"path": ["a"]},
        {"type": "symlink"},
        {"type": "\x1b[2J\n" * 100},
    ],
)
def test_a_malformed_entry_is_refused(listed, wrong):
    assert "not a Hub" in refused(listed, entry("config.json"), entry("model.gguf") | wrong)


def test_folders_are_no_files(listed):
    found = listed({"type": "directory", "path": "sub", "oid": "0" * 40, "size": 0}, entry("sub/a"))
    assert found.paths == ("sub/a",)


def test_the_card_names_a_licence_and_the_listing_the_store(server):
    files = {"config.json": b"{}", "model.safetensors": b"w"}
    card = {"license": "other", "license_name": "qwen-research"}
    server.move(Repo("org/odd", COMMIT, files, license="other", card=card, xet={"model.safetensors": HASH}))
    found = hub.resolve("org/odd", "main")
    assert (found.license, found.license_name) == ("other", "qwen-research")
    assert [found.file(path).xet for path in files] == [None, HASH]
    with pytest.raises(KeyError):
        found.file("other.json")


@pytest.mark.parametrize("name", [["a", "b"], {"a": 1}, 7, None])
def test_a_card_written_by_hand_does_no_harm(listed, name):
    assert listed(card={"license_name": name}).license_name is None


def test_a_hundred_thousand_files_are_listed_and_one_more_refused(server, listed):
    server.page = 20_000
    entries = [entry(f"{n // 1000}/{n}") for n in range(listing.MAX_FILES)]
    found = listed(*entries)
    assert len(found.files) == 100_000
    assert found.file("99/99999").path == "99/99999"
    assert "more than 100000 files" in refused(listed, *entries, entry("more"))


@pytest.mark.parametrize("entries", [[], [{"type": "directory", "path": "sub"}]])
def test_pages_without_end_are_not_read_for_ever(server, listed, monkeypatch, entries):
    monkeypatch.setattr(listing, "MAX_FILES", 10)
    again = f'<{server.url}/api/models/org/odd/tree/{COMMIT}>; rel="next"'
    server.fault("*/tree/*", headers={"Link": again}, status=200, other=json.dumps(entries).encode())
    assert "pages without end" in refused(listed)
    assert len(server.requests) < 30


@pytest.mark.parametrize("path", ["*/revision/*", "*/tree/*"])
@pytest.mark.parametrize(
    "body", [b"<html>Please log in</html>", b"", b'{"sha": ', b"[" * 100_000, b'{"sha": "main"}', b"{}", b"\xff\xfe"]
)
def test_another_page_than_an_answer_is_refused(server, listed, path, body):
    server.fault(path, status=200, other=body)
    assert "not a Hub" in refused(listed)
    assert len(server.requests) <= 2


def test_a_branch_that_moves_between_two_requests_does_not_mix_commits(server):
    first = hub.resolve("org/odd", "main")
    server.move(Repo("org/odd", "d" * 40, {"new.json": b"[]"}))
    assert hub.small_file("org/odd", first.commit, first.files[0]) == b"{}"
    assert hub.resolve("org/odd", COMMIT) == msgspec.structs.replace(first, requested=COMMIT)
    assert hub.resolve("org/odd", "main").paths == ("new.json",)
