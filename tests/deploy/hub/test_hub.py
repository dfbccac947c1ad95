import hashlib
import os
import subprocess
import sys

import pytest

from deploy import hub
from deploy.errors import PlaceError
from deploy.hub import RemoteFile, listing
from tests import hubserver
from tests.hubserver import Repo

CONFIG, WEIGHTS = b'{"a": 1}', b"weights" * 1000
COMMIT = "a" * 40
TINY = Repo("org/tiny", COMMIT, {"config.json": CONFIG, "model.safetensors": WEIGHTS}, license="mit")
CONFIG_FILE = RemoteFile(path="config.json", size=len(CONFIG), git=hub.git_blob(CONFIG))


@pytest.fixture
def server(monkeypatch):
    with hubserver.hub([TINY], page=1) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def refused(call, *arguments):
    """The error, checked for the form that every error has: one line, a place, a hint."""
    with pytest.raises(PlaceError) as caught:
        call(*arguments)
    error = caught.value
    assert "\n" not in str(error)
    assert error.where
    assert error.hint
    return error


def test_a_branch_becomes_a_commit_with_its_files(server):
    found = hub.resolve("org/tiny", "main")
    assert (found.repo, found.commit, found.requested) == ("org/tiny", COMMIT, "main")
    assert (found.license, found.gated) == ("mit", False)
    assert found.repo_id == TINY.info()["_id"]


def test_a_listing_of_several_pages_is_read_to_its_end(server):
    found = hub.resolve("org/tiny", COMMIT)
    weights = RemoteFile(
        path="model.safetensors",
        size=len(WEIGHTS),
        git=TINY.entry("model.safetensors")["oid"],
        sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )
    assert found.files == (CONFIG_FILE, weights)


def test_the_endpoint_is_read_at_every_call(server, monkeypatch):
    assert hub.resolve("org/tiny", "main").commit == COMMIT
    with hubserver.hub([Repo("org/tiny", "b" * 40, {"config.json": CONFIG})]) as other:
        monkeypatch.setenv("HF_ENDPOINT", other.url + "/")
        assert hub.resolve("org/tiny", "main").commit == "b" * 40


def test_a_missing_repository_or_revision_is_named(server):
    assert "`org/none` does not exist" in refused(hub.resolve, "org/none", "main").message
    assert "no revision `v9`" in refused(hub.resolve, "org/tiny", "v9").message


def test_a_gated_file_says_what_to_do_and_opens_with_a_token(monkeypatch):
    with hubserver.hub([Repo("org/gated", COMMIT, {"config.json": CONFIG}, gated=True)]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert hub.resolve("org/gated", "main").gated
        error = refused(hub.small_file, "org/gated", COMMIT, CONFIG_FILE)
        assert "gated" in error.message
        assert f"{server.url}/org/gated" in error.hint
        monkeypatch.setenv("HF_TOKEN", "hf_open")
        assert hub.small_file("org/gated", COMMIT, CONFIG_FILE) == CONFIG


def test_a_busy_hub_is_asked_again(server):
    for status in (429, 503):
        server.fault("/api/*", times=1, status=status, headers={"Retry-After": "0"})
    assert hub.resolve("org/tiny", "main").commit == COMMIT
    assert [asked.status for asked in server.requests[:3]] == [429, 503, 200]


def test_a_busy_listing_is_asked_again(server):
    server.fault("*/tree/*", times=1, status=500, headers={"Retry-After": "0"})
    assert len(hub.resolve("org/tiny", "main").files) == 2


def test_patience_ends(server):
    server.fault("/api/*", status=502, headers={"Retry-After": "0"})
    assert "502" in refused(hub.resolve, "org/tiny", "main").message
    assert len(server.requests) == 4


def test_a_long_wait_is_reported_and_not_waited(server):
    server.fault("/api/*", status=429, headers={"Retry-After": "3600"})
    error = refused(hub.resolve, "org/tiny", "main")
    assert "3600 s" in error.message
    assert "HF_TOKEN" in error.hint
    assert len(server.requests) == 1


def test_a_closed_port_is_one_line():
    error = refused(hub.resolve, "org/tiny", "main")
    assert "cannot be reached" in error.message
    assert error.where == hub.endpoint()


def test_an_address_that_is_none_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    assert "cannot be reached" in refused(hub.resolve, "org/tiny", "main").message


def test_another_web_page_is_no_hub(server):
    server.fault("/api/*", status=200)
    assert "not a Hub" in refused(hub.resolve, "org/tiny", "main").message


def test_an_unsafe_path_in_a_listing_is_refused(monkeypatch):
    with hubserver.hub([Repo("org/evil", COMMIT, {"../x": b""})]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(PlaceError, match=r"unsafe path: `\.\./x`"):
            hub.resolve("org/evil", "main")


def test_another_commit_than_the_one_asked_for_is_refused(server):
    # A server that answers every revision with one commit, as a badly made mirror may.
    server.move(Repo("org/tiny", "b" * 40, TINY.files))
    server.revisions["org/tiny"]["main"].info = TINY.info
    with pytest.raises(PlaceError, match=r"asked for commit b+ of `org/tiny`, was given a+"):
        hub.resolve("org/tiny", "b" * 40)


def test_a_listing_without_end_is_cut_off(server, monkeypatch):
    monkeypatch.setattr(listing, "MAX_FILES", 50)
    again = f"{server.url}/api/models/org/tiny/tree/{COMMIT}"
    server.fault("*/tree/*", headers={"Link": f'<{again}>; rel="next"'})
    with pytest.raises(PlaceError, match="more than 50 files"):
        hub.resolve("org/tiny", "main")


def test_a_malformed_hash_in_a_listing_is_refused(server):
    server.move(Repo("org/tiny", COMMIT, TINY.files))
    server.revisions["org/tiny"]["main"].entry = lambda path: TINY.entry(path) | {"oid": "../../etc"}
    assert "not a Hub" in refused(hub.resolve, "org/tiny", "main").message


def test_a_small_file_is_what_the_listing_says(server):
    for file in hub.resolve("org/tiny", "main").files:
        assert hub.small_file("org/tiny", COMMIT, file) == TINY.files[file.path]


def test_an_empty_file_is_a_file(monkeypatch):
    with hubserver.hub([Repo("org/empty", COMMIT, {"added_tokens.json": b""})]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        (file,) = hub.resolve("org/empty", "main").files
        assert hub.small_file("org/empty", COMMIT, file) == b""


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_flipped_byte_is_refused_with_both_hashes(server, path):
    file = hub.resolve("org/tiny", "main").file(path)
    server.fault(f"*/{path}", flip=3)
    error = refused(hub.small_file, "org/tiny", COMMIT, file)
    assert path in error.message
    assert (file.sha256 or file.git) in error.message


def test_a_cut_body_is_fetched_again(server):
    server.fault("*/config.json", times=1, cut=3)
    assert hub.small_file("org/tiny", COMMIT, CONFIG_FILE) == CONFIG


def test_a_file_that_claims_to_be_large_is_not_asked_for(server):
    large = RemoteFile(path="config.json", size=1 << 30, git="0" * 40)
    with pytest.raises(PlaceError, match="1073741824"):
        hub.small_file("org/tiny", COMMIT, large)
    assert not server.requests


def test_a_body_longer_than_listed_is_not_read_to_its_end(server):
    short = RemoteFile(path="model.safetensors", size=10, git=hub.git_blob(WEIGHTS[:10]))
    assert "not what the listing says" in refused(hub.small_file, "org/tiny", COMMIT, short).message


def test_the_head_of_a_file_is_a_range(server):
    weights = hub.resolve("org/tiny", "main").file("model.safetensors")
    assert hub.part("org/tiny", COMMIT, weights, 0, 16) == WEIGHTS[:16]
    assert server.requests[-1].range == "bytes=0-15"
    assert hub.part("org/tiny", COMMIT, weights, 0, weights.size) == WEIGHTS


def test_the_token_goes_to_the_endpoint(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.resolve("org/tiny", "main")
    hub.small_file("org/tiny", COMMIT, CONFIG_FILE)
    assert {asked.token for asked in server.requests} == {"Bearer hf_secret"}


@pytest.mark.parametrize("way", ["redirect", "next page"])
def test_the_token_goes_nowhere_else(server, monkeypatch, way):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hubserver.hub([TINY], page=1) as other:
        if way == "redirect":
            target = f"{other.url}/org/tiny/resolve/main/config.json"
            server.fault("*/config.json", status=302, headers={"Location": target})
            assert hub.small_file("org/tiny", COMMIT, CONFIG_FILE) == CONFIG
        else:
            target = f"{other.url}/api/models/org/tiny/tree/{COMMIT}?cursor=1"
            server.fault("*/tree/*", headers={"Link": f'<{target}>; rel="next"'})
            assert len(hub.resolve("org/tiny", "main").files) == 2
        assert [asked.token for asked in other.requests] == [None]


def test_no_error_shows_the_password_of_a_mirror(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("//", "//user:secret@"))
    assert hub.resolve("org/tiny", "main").commit == COMMIT
    for revision in ("v9", "main"):
        error = refused(hub.resolve, "org/tiny", revision)
        assert "secret" not in f"{error} {error.hint}"
        assert error.where == server.url
        server.fault("*", status=500, headers={"Retry-After": "0"})


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://a.mirror/hf@v2", "https://a.mirror/hf@v2"),
        ("https://user:secret@a.mirror/hf@v2", "https://a.mirror/hf@v2"),
        ("user:secret@a.mirror", "a.mirror"),
        ("http://user:sec/ret@a.mirror", "a.mirror"),
    ],
)
def test_the_address_is_shown_without_a_password(monkeypatch, endpoint, shown):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert hub.address() == shown


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_no_error_shows_the_token(server, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.fault("*", status=status, headers={"Retry-After": "0"})
    error = refused(hub.resolve, "org/tiny", "main")
    assert "hf_secret" not in f"{error} {error.hint} {error.__cause__!r}"


def test_a_running_hub_is_reachable_and_asked_without_the_token(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.reachable()
    assert [asked.token for asked in server.requests] == [None]


def test_what_does_not_answer_is_not_reachable(server):
    hub.reachable()
    hub._reached.clear()
    before = len(server.requests)
    server.fault("*", stall=True)
    assert not hub.reachable(timeout_s=1.0)
    assert len(server.requests) == before + 1, "it was asked"


@pytest.mark.parametrize(("status", "expected"), [(403, False), (407, False), (503, False), (404, True), (429, True)])
def test_what_answers_may_be_a_proxy(server, status, expected):
    server.fault("*", status=status)
    assert hub.reachable() is expected


def test_nothing_listening_is_not_reachable():
    assert not hub.reachable()


def test_offline_mode_is_kept():
    code = """
from deploy import hub
from deploy.errors import PlaceError
assert not hub.reachable()
try:
    hub.resolve("org/tiny", "main")
except PlaceError as error:
    assert "HF_HUB_OFFLINE" in error.message
else:
    raise AssertionError
"""
    with hubserver.hub([TINY]) as server:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": server.url}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        assert not server.requests


def test_locking_imports_nothing_heavy_and_sends_no_telemetry():
    code = """
import sys
import deploy.resolving.locking
assert not {"huggingface_hub", "httpx2", "numpy", "gguf"} & set(sys.modules)
from deploy import hub
hub.resolve("org/tiny", "main")
"""
    with hubserver.hub([TINY]) as server:
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "HF_ENDPOINT": server.url}, check=True)
        assert [asked.path.rpartition("/")[0] for asked in server.requests] == [
            "/api/models/org/tiny/revision",
            "/api/models/org/tiny/tree",
        ]
