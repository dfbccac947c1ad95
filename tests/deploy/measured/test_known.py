from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.engine import Figures, Settings, Split
from deploy.hardware import Gpu, GpuReading, Hardware, Readings
from deploy.measured import Entry, Known, free_bytes
from tests.deploy.measured.starts import SETTINGS, box, engine, start, variant

HERE = (variant(), engine(), box())
STRANGERS = (
    {"tree": "b" * 64},
    {"hardware": box(cores=64).fingerprint},
    {"engine": "vllm"},
    {"engine_version": "1.1"},
    {"device": "gpu"},
)


def known(*entries: Entry) -> Known:
    return Known(entries=entries)


def asking(**changes: object) -> Settings:
    return msgspec.structs.replace(SETTINGS, **changes)


figures = st.builds(
    Figures,
    kv_tokens=st.none() | st.integers(1, 10**6),
    peak_bytes=st.none() | st.integers(1, 10**12),
    load_s=st.none() | st.floats(0.1, 1000),
    tokens_per_s=st.none() | st.floats(0.1, 1000),
)
entries = st.builds(
    lambda stranger, predicted, measured: start(predicted=predicted, measured=measured, **stranger),
    st.sampled_from(({}, {}, *STRANGERS)),
    figures,
    figures,
)


def numbered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(msgspec.structs.replace(entry, at=at) for at, entry in enumerate(entries))


@given(st.lists(entries, max_size=12).map(numbered))
def test_the_newest_of_these_bytes_this_engine_and_this_box_is_told(kept: tuple[Entry, ...]) -> None:
    subject = start().subject
    own = [entry for entry in kept if entry.subject == subject]
    peaks = [
        entry
        for entry in own
        if entry.measured.peak_bytes and entry.predicted.peak_bytes
        if entry.measured.peak_bytes <= 2 * entry.predicted.peak_bytes
    ]
    speeds = [entry for entry in own if entry.measured.tokens_per_s is not None]
    rooms = [entry for entry in own if entry.measured.kv_tokens is not None]
    loads = [entry.measured.load_s for entry in own if entry.measured.load_s is not None]
    found = known(*kept)

    difference = found.peak_difference(*HERE, SETTINGS)
    assert (difference.at if difference else None) == (peaks[-1].at if peaks else None)
    speed = found.tokens_per_s(*HERE)
    assert (speed.at if speed else None) == (speeds[-1].at if speeds else None)
    assert found.same_settings(*HERE, SETTINGS) == (rooms[-1] if rooms else None)
    assert found.load_s(*HERE) == max(loads[-3:], default=None)


@given(st.lists(entries, max_size=12), st.sampled_from(STRANGERS))
def test_what_was_measured_elsewhere_changes_nothing(kept: list[Entry], stranger: dict[str, str]) -> None:
    other = start(99, peak_bytes=7, kv_tokens=7, load_s=7.0, tokens_per_s=7.0, correction="no", named=7, **stranger)
    before, after = known(*kept), known(*kept, other)
    assert before.of(*HERE) == after.of(*HERE)
    assert before.correction(*HERE, SETTINGS) == after.correction(*HERE, SETTINGS)


def test_the_difference_has_its_sign_and_its_date() -> None:
    less = start(5, predicted=Figures(peak_bytes=1000), peak_bytes=900)
    assert known(less).peak_difference(*HERE, SETTINGS) == (-100, 5)


def test_the_difference_is_that_of_the_same_split_in_whatever_words() -> None:
    """A GPU of two holds half of the weights: what one held says nothing of it."""
    alone = start(5, predicted=Figures(peak_bytes=1000), peak_bytes=1700, split=Split(because="it fits on one"))
    both = start(6, predicted=Figures(peak_bytes=600), peak_bytes=700, split=Split(tensor=2))
    found = known(alone, both)
    assert found.peak_difference(*HERE, asking(split=Split())) == (700, 5)
    assert found.peak_difference(*HERE, asking(split=Split(tensor=2, because="in other words"))) == (100, 6)
    assert found.peak_difference(*HERE, asking(split=Split(pipeline=2))) is None


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"context_tokens": 4096}, True),
        ({"slots": 3}, True),
        ({"context_tokens": 4096, "slots": 1}, True),
        ({"context_tokens": 2047}, False),
        ({"slots": 1}, False),
    ],
)
def test_what_a_larger_start_lacked_leaves_a_smaller_plan_as_a_way_out(
    changes: dict[str, object], counts: bool
) -> None:
    entry = start(5, predicted=Figures(peak_bytes=1000), peak_bytes=1700)
    assert known(entry).peak_difference(*HERE, asking(**changes)) == ((700, 5) if counts else None)


def test_a_peak_of_more_than_twice_the_prediction_is_nothing_to_plan_with() -> None:
    fair = start(5, predicted=Figures(peak_bytes=1000), peak_bytes=2000)
    absurd = start(6, predicted=Figures(peak_bytes=1000), peak_bytes=2001)
    assert known(absurd).peak_difference(*HERE, SETTINGS) is None
    assert known(fair, absurd).peak_difference(*HERE, SETTINGS) == (1000, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {"context_tokens": 1024},
        {"slots": 3},
        {"kv_cache_bytes": None},
        {"gpu_memory_share": 0.9},
        {"batched_tokens": 512},
        {"split": Split(tensor=2)},
    ],
)
def test_room_for_tokens_is_that_of_the_same_settings(changes: dict[str, object]) -> None:
    assert known(start(kv_tokens=4096)).same_settings(*HERE, asking(**changes)) is None


def test_words_threads_and_places_do_not_change_the_room_for_tokens() -> None:
    entry = start(kv_tokens=4096)
    asked = asking(threads=8, devices=(1,), split=Split(because="it is fast"))
    assert known(entry).same_settings(*HERE, asked) == entry


FAILED = start(1, context_tokens=8192, correction="the estimated maximum model length is 3840", named=3840)
ASKED = asking(context_tokens=8192)


@pytest.mark.parametrize(
    ("asked", "corrected"),
    [
        ({}, True),
        ({"context_tokens": 16384}, True),
        ({"context_tokens": 3841}, True),
        ({"context_tokens": 3840}, False),
        ({"slots": 4}, False),
        ({"split": Split(tensor=2)}, False),
        ({"split": Split(because="in other words")}, True),
        ({"gpu_memory_share": 0.5}, False),
    ],
)
def test_a_correction_is_for_settings_that_ask_for_more_than_was_named(
    asked: dict[str, object], corrected: bool
) -> None:
    assert known(FAILED).correction(*HERE, asking(**{"context_tokens": 8192} | asked)) == (
        FAILED if corrected else None
    )


def test_a_correction_that_did_not_start_is_replaced_by_the_next() -> None:
    again = start(2, context_tokens=3840, correction="the estimated maximum model length is 2560", named=2560)
    assert known(FAILED, again).correction(*HERE, ASKED) == again


@pytest.mark.parametrize(
    ("later", "stands"),
    [
        ({"context_tokens": 3840}, True),
        ({"context_tokens": 3841}, False),
        ({"context_tokens": 8192}, False),
        ({"context_tokens": 8192, "slots": 1}, True),
        ({"context_tokens": 8192, "gpu_memory_share": 0.9}, True),
        ({"context_tokens": 8192, "engine_version": "1.1"}, True),
    ],
)
def test_a_start_with_more_than_was_named_disproves_it(later: dict[str, object], stands: bool) -> None:
    found = known(FAILED, start(2, **later)).correction(*HERE, ASKED)
    assert found == (FAILED if stands else None)


def test_an_earlier_start_disproves_nothing() -> None:
    assert known(start(0, context_tokens=8192), FAILED).correction(*HERE, ASKED) == FAILED


@pytest.mark.parametrize(("named", "corrects"), [(0, False), (2047, False), (2048, True), (8191, True), (8192, False)])
def test_a_context_of_no_use_or_of_no_help_is_no_correction(named: int, corrects: bool) -> None:
    failed = start(1, context_tokens=8192, correction="too long", named=named)
    assert known(failed).correction(*HERE, asking(context_tokens=16384)) == (failed if corrects else None)


def free(size: int | None) -> Hardware:
    return msgspec.structs.replace(box(), now=Readings(memory_available_bytes=size))


@pytest.mark.parametrize(
    ("then", "now", "stands"),
    [
        (1000, 1000, True),
        (1000, 1100, True),
        (1000, 1101, False),
        (1000, 10, True),
        (None, 9999, True),
        (1, None, True),
    ],
)
def test_a_correction_ends_when_clearly_more_memory_is_free(then: int | None, now: int | None, stands: bool) -> None:
    failed = msgspec.structs.replace(FAILED, free_bytes=then)
    found = known(failed).correction(variant(), engine(), free(now), ASKED)
    assert found == (failed if stands else None)


def test_on_gpus_the_fullest_of_those_that_are_given_counts() -> None:
    readings = tuple(GpuReading(index=at, memory_free_bytes=size) for at, size in enumerate((500, 1000, 3000)))
    gpus = tuple(Gpu(index=at) for at in range(3))
    hardware = msgspec.structs.replace(box(), gpus=gpus, now=Readings(memory_available_bytes=7, gpus=readings))
    assert free_bytes(hardware, "gpu", (1, 2)) == 1000
    assert free_bytes(hardware, "gpu", ()) is None
    assert free_bytes(hardware, "cpu", (1, 2)) == 7
