"""How long a server is borne: failures in a row and in all, a rate below the floor, and what it says itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

import pytest

from deploy.errors import PlaceError
from deploy.stop import Stop, Stopped
from deploy.weights import download
from deploy.weights.download import Again, Pace, Patience
from deploy.weights.places import Hub
from tests import hubserver, locked
from tests.hubserver import Repo

WEIGHTS = locked.noise(3 << 20)
REPO = Repo("org/tiny-GGUF", files={"tiny.gguf": WEIGHTS})
VARIANT = locked.of(REPO)
FILE = VARIANT.files[0]
PATH = "*/tiny.gguf"
CUT = Again("cut")


@pytest.fixture
def server() -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO]) as running:
        yield running


def hub(server: hubserver.Hub, *, tick_s: float = 0.0) -> Hub:
    """One that never sleeps, on a clock that moves by ``tick_s`` whenever it is read."""
    ticks = count()
    return Hub(server.url, sleep=lambda _: None, clock=lambda: next(ticks) * tick_s)


def fail(patience: Patience) -> float:
    return patience.failed(CUT, str(CUT))


def test_failures_in_a_row_are_counted_and_pauses_grow() -> None:
    patience = Patience(FILE.size)
    patience.met = True
    assert [fail(patience) for _ in range(download.TRIES - 1)] == [0.5, 1.0, 2.0, 4.0, 5.0]
    with pytest.raises(PlaceError, match=f"gave up after {download.TRIES} tries: cut"):
        fail(patience)


def test_a_healthy_size_forgives_the_row_and_less_does_not() -> None:
    patience = Patience(FILE.size)
    patience.met = True
    for _ in range(3 * download.TRIES):
        assert fail(patience) == 0.5
        patience.arrived(download.HEALTHY_BYTES)
    for _ in range(download.TRIES - 1):
        fail(patience)
        patience.arrived(download.HEALTHY_BYTES - 1)
    with pytest.raises(PlaceError, match="gave up"):
        fail(patience)


@pytest.mark.parametrize("size", [0, 100 * download.BYTES_PER_TRY])
def test_nothing_forgives_all_of_them(size: int) -> None:
    patience = Patience(size)
    patience.met = True
    for _ in range(download.TRIES_IN_ALL + size // download.BYTES_PER_TRY - 1):
        fail(patience)
        patience.arrived(download.HEALTHY_BYTES)
    with pytest.raises(PlaceError, match="too many failures, the last one: cut"):
        fail(patience)


def test_a_rate_below_the_floor_is_a_failure_once_a_window_is_over() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    enough = int(download.FLOOR_BYTES_PER_S * download.WINDOW_S)
    for _ in range(3):
        pace.arrived(enough)
        now[0] += download.WINDOW_S
        pace.arrived(0)
    now[0] += download.WINDOW_S - 1
    pace.arrived(5)
    now[0] += 1
    with pytest.raises(Again, match="only 5 bytes came in 30 s"):
        pace.arrived(0)


def test_a_drip_cannot_pass_for_health() -> None:
    assert download.HEALTHY_BYTES > download.FLOOR_BYTES_PER_S * download.WINDOW_S


def test_a_server_that_drips_is_given_up_and_named(server: hubserver.Hub) -> None:
    server.fault(PATH, slow=400)
    chunks = hub(server, tick_s=download.WINDOW_S).open(VARIANT, FILE, 0)
    with pytest.raises(PlaceError, match=r"gave up after 6 tries: only \d+ bytes came in"):
        b"".join(chunks)
    assert len(server.requests) == download.TRIES


def test_a_drip_is_continued_where_it_was_left(server: hubserver.Hub) -> None:
    server.fault(PATH, slow=400, times=1)
    assert b"".join(hub(server, tick_s=download.WINDOW_S / 2).open(VARIANT, FILE, 0)) == WEIGHTS
    assert server.requests[1].range is not None


def test_a_body_without_end_is_cut_off_by_who_reads_it(server: hubserver.Hub) -> None:
    server.fault(PATH, endless=True)
    chunks = hub(server).open(VARIANT, FILE, 0)
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > FILE.size:
            break
    chunks.close()
    assert seen <= FILE.size + download.CHUNK_BYTES


@pytest.mark.parametrize(
    ("lying", "said"),
    [(False, f"has {FILE.size - 10} bytes, {FILE.size} are locked"), (True, "the connection broke off")],
)
def test_a_file_that_is_too_short_is_refused(server: hubserver.Hub, lying: bool, said: str) -> None:
    server.fault(PATH, short=10, lying=lying)
    with pytest.raises(PlaceError, match=said):
        b"".join(hub(server).open(VARIANT, FILE, 0))


def test_stopped_while_a_server_says_nothing(server: hubserver.Hub) -> None:
    server.fault(PATH, cut=100_000, stall=True)
    stop = Stop()
    chunks = Hub(server.url, stop=stop).open(VARIANT, FILE, 0)
    seen = 0
    while seen < 100_000:
        seen += len(next(chunks))
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped):
        next(chunks)
    assert len(server.requests) == 1
