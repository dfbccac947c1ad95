"""Whatever a Hub does, asking it ends: in time, in bytes, in tries, and with the token where it belongs."""

import itertools
import re
import socket
import threading

import pytest

from deploy import hub
from deploy.errors import PlaceError
from deploy.hub import RemoteFile, client
from tests import hubserver
from tests.hubrepo import Noise
from tests.hubserver import Repo

COMMIT = "c" * 40
CONFIG, BIG = b'{"a": 1}', Noise(1 << 30)
TEXTS = {f"{n}.json": b"[%d]" % n for n in range(20)}
REPO = Repo("org/tiny", COMMIT, {"config.json": CONFIG, "model.safetensors": BIG, **TEXTS}, lfs=set())
CONFIG_FILE = RemoteFile(path="config.json", size=len(CONFIG), git=hub.git_blob(CONFIG))
BIG_FILE = RemoteFile(path="model.safetensors", size=BIG.size, git="0" * 40)
SENT_BYTES = 32 << 20
"""What a server may have handed to a connection whose reader has gone: its chunks, its buffers and the kernel's."""


@pytest.fixture(scope="module")
def running():
    with hubserver.hub([REPO], page=1) as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setattr(client, "BACKOFF_S", (0.0, 0.0, 0.0))
    running.requests.clear()
    running.faults.clear()
    return running


def refused(call, *arguments, **more):
    with pytest.raises(PlaceError) as caught:
        call(*arguments, **more)
    error = caught.value
    assert str(error).isprintable()
    assert error.where
    return error.message


def hurried():
    """A clock on which ten seconds pass between two looks at it."""
    return itertools.count(step=10.0).__next__


def test_a_listing_of_many_slow_pages_ends(server):
    assert "longer than 120 s" in refused(hub.resolve, "org/tiny", "main", clock=hurried())
    assert 1 < len(server.requests) < 12


@pytest.mark.parametrize("path", ["*/revision/*", "*/tree/*"])
def test_an_answer_that_drips_ends(server, path):
    server.fault(path, slow=100)
    assert "longer than 120 s" in refused(hub.resolve, "org/tiny", "main", clock=hurried())
    assert server.requests[-1].sent_bytes < 200


def test_the_head_of_an_answer_that_drips_ends(monkeypatch):
    # No limit of a client sees it: every read brings a byte, and the answer has not begun.
    monkeypatch.setattr(client, "GRACE_S", 0.0)
    monkeypatch.setattr(hub, "LISTING_S", 0.3)
    over = threading.Event()

    def drip(listener):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not over.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener])
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            assert "longer than" in refused(hub.resolve, "org/tiny", "main")
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("path", ["*/revision/*", "*/tree/*"])
def test_a_giant_answer_is_not_read_to_its_end(server, monkeypatch, path):
    monkeypatch.setattr(hub, "LISTING_BYTES", 1 << 20)
    server.fault(path, status=200, other=BIG)
    assert "more than 1048576 bytes" in refused(hub.resolve, "org/tiny", "main")
    assert server.requests[-1].sent_bytes < SENT_BYTES


def test_a_giant_error_is_not_read_to_its_end(server):
    server.fault("*/revision/*", status=400, other=BIG)
    assert "answered 400" in refused(hub.resolve, "org/tiny", "main")
    assert server.requests[-1].sent_bytes < SENT_BYTES


def test_a_small_file_that_never_ends_is_cut_off(server):
    server.fault("*/config.json", endless=True)
    assert "not what the listing says" in refused(hub.small_file, "org/tiny", COMMIT, CONFIG_FILE)
    assert server.requests[-1].sent_bytes < SENT_BYTES


def test_a_compressed_answer_is_refused_unread(server):
    server.fault("*/revision/*", headers={"Content-Encoding": "gzip"})
    assert "compressed" in refused(hub.resolve, "org/tiny", "main")


def test_redirects_in_a_circle_end(server):
    server.fault("*/config.json", status=302, headers={"Location": "/org/tiny/resolve/main/config.json"})
    assert "redirects" in refused(hub.small_file, "org/tiny", COMMIT, CONFIG_FILE)
    assert len(server.requests) == client.MAX_REDIRECTS + 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://[", "ftp://127.0.0.1/x"])
def test_a_redirect_to_nowhere_is_one_line(server, target):
    server.fault("*/config.json", status=302, headers={"Location": target})
    refused(hub.small_file, "org/tiny", COMMIT, CONFIG_FILE)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, None, "answered 401"),
        (401, "GatedRepo", "is gated"),
        (403, "GatedRepo", "is gated"),
        (403, None, "answered 403"),
        (404, "RepoNotFound", "does not exist here, or is private"),
        (404, "RevisionNotFound", "has no revision `main`"),
        (404, "EntryNotFound", "lacks a file"),
        (404, None, "answered 404"),
        (410, None, "answered 410"),
        (418, None, "answered 418"),
    ],
)
def test_a_refusal_is_said_in_its_own_words_and_asked_for_once(server, status, code, message):
    server.fault("*", status=status, headers={"X-Error-Code": code} if code else {})
    assert message in refused(hub.resolve, "org/tiny", "main")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize(("wait", "tries"), [("0", 4), (None, 4), ("86400", 1), ("soon", 4), ("9" * 400, 1)])
def test_a_busy_hub_is_asked_a_few_times(server, status, wait, tries):
    server.fault("*", status=status, headers={"Retry-After": wait} if wait else {})
    assert str(status) in refused(hub.resolve, "org/tiny", "main")
    assert len(server.requests) == tries


def test_a_wait_that_is_asked_for_is_waited(server, monkeypatch):
    waits = []
    monkeypatch.setattr(client.time, "sleep", waits.append)
    server.fault("*/revision/*", times=1, status=429, headers={"Retry-After": "2"})
    assert hub.resolve("org/tiny", "main").commit == COMMIT
    assert waits == [2.0]


def test_no_wait_is_longer_than_the_time_that_is_left(server):
    server.fault("*/tree/*", status=503, headers={"Retry-After": "25"})
    clock = itertools.chain([0.0, 0.0], itertools.repeat(110.0)).__next__
    assert "asks to wait 25 s" in refused(hub.resolve, "org/tiny", "main", clock=clock)


def test_a_page_that_fails_is_asked_for_again_and_not_the_whole_listing(server):
    tree = f"/api/models/org/tiny/tree/{COMMIT}"
    server.fault(tree, times=1)
    server.fault(tree, times=1, status=500)
    assert len(hub.resolve("org/tiny", "main").files) == len(REPO.files)
    assert [asked.path for asked in server.requests].count(tree) == len(REPO.files) + 1


def test_a_part_is_just_that(server):
    start, stop = (1 << 20) - 3, (1 << 20) + 5
    expected = b"".join(BIG.read(start, stop))
    assert hub.part("org/tiny", COMMIT, BIG_FILE, start, stop) == expected
    assert [(asked.range, asked.sent_bytes) for asked in server.requests] == [(f"bytes={start}-{stop - 1}", 8)]


def test_a_part_of_a_file_that_is_sent_whole_is_cut_out_of_it(server):
    server.fault("*/model.safetensors", whole=True)
    assert hub.part("org/tiny", COMMIT, BIG_FILE, 8, 108) == b"".join(BIG.read(8, 108))
    assert server.requests[-1].sent_bytes < SENT_BYTES


def test_a_part_far_into_a_file_that_is_sent_whole_is_refused(server):
    server.fault("*/model.safetensors", whole=True)
    assert "whole files" in refused(hub.part, "org/tiny", COMMIT, BIG_FILE, 1 << 29, (1 << 29) + 8)
    assert server.requests[-1].sent_bytes < SENT_BYTES


@pytest.mark.parametrize("said", ["bytes 0-7/1073741824", "bytes 9-16/*", "bytes", "", "items 8-15/20"])
def test_another_part_than_the_one_asked_for_is_refused(server, said):
    server.fault("*/model.safetensors", headers={"Content-Range": said})
    assert "another range" in refused(hub.part, "org/tiny", COMMIT, BIG_FILE, 8, 16)


@pytest.mark.parametrize("fault", [{"other": b"short"}, {"short": (1 << 30) - 9}])
def test_a_part_that_is_not_all_there_is_refused(server, fault):
    server.fault("*/model.safetensors", **fault)
    assert re.search("ends at byte|answered 416", refused(hub.part, "org/tiny", COMMIT, BIG_FILE, 2, 16))


def test_small_files_come_at_once_and_by_their_paths(server):
    files = [file for file in hub.resolve("org/tiny", "main").files if file.path in TEXTS]
    server.requests.clear()
    assert hub.small_files("org/tiny", COMMIT, files) == TEXTS
    assert len(server.requests) == len(TEXTS)
    assert hub.small_files("org/tiny", COMMIT, []) == {}


def test_small_files_are_fetched_at_the_same_time(server, monkeypatch):
    monkeypatch.setattr(client, "GRACE_S", 1.0)
    monkeypatch.setattr(hub, "SMALL_FILES_S", 0.5)
    files = [RemoteFile(path=path, size=len(text), git=hub.git_blob(text)) for path, text in TEXTS.items()]
    server.fault("*.json", stall=True)
    assert "longer than" in refused(hub.small_files, "org/tiny", COMMIT, files)
    assert len(server.requests) == client.THREADS


def test_the_first_bad_small_file_ends_them_all(server):
    files = [file for file in hub.resolve("org/tiny", "main").files if file.path in TEXTS]
    server.fault("*/0.json", status=404, headers={"X-Error-Code": "EntryNotFound"})
    server.fault("*.json", stall=True)
    assert "lacks a file" in refused(hub.small_files, "org/tiny", COMMIT, files)


def test_small_files_that_are_many_are_not_asked_for(server):
    files = [RemoteFile(path=f"{n}.json", size=hub.SMALL_FILE_BYTES, git="0" * 40) for n in range(5)]
    with pytest.raises(PlaceError, match="more than 268435456"):
        hub.small_files("org/tiny", COMMIT, files)
    assert not server.requests


def test_a_token_that_is_none_is_not_quoted(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_sec\x01ret")
    with pytest.raises(PlaceError) as caught:
        hub.resolve("org/tiny", "main")
    assert "ret" not in f"{caught.value} {caught.value.hint}"


def test_an_answer_of_a_moment_ago_is_remembered(server, monkeypatch):
    assert hub.reachable()
    assert hub.reachable()
    assert len(server.requests) == 1
    monkeypatch.setattr(hub, "REMEMBERED_S", -1.0)
    server.fault("*", status=503)
    assert not hub.reachable()
