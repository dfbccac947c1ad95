"""What earlier starts on this box change in a plan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from deploy.engine import Figures, Settings, Split
from deploy.hardware import Hardware
from deploy.measured import NOTHING, Known
from deploy.plan import Speed
from deploy.planning import experience
from tests.deploy.boxes import GB, LLAMACPP, VLLM_CPU, VLLM_GPU, Card, StubEngine, box, gpu, seen, variant

CHAT = variant()
BOX = box()
SETTINGS = Settings(context_tokens=8192, slots=8, threads=4, kv_cache_bytes=GB)
DAY = 1_790_000_000
"""2026-09-21."""


def known(**fields: Any) -> Known:
    return seen(CHAT, LLAMACPP, BOX, at=DAY, **fields)


def test_a_peak_above_the_prediction_is_a_line_of_its_own() -> None:
    higher = known(predicted=Figures(peak_bytes=GB), peak_bytes=GB + 5)
    (line,) = experience.terms(CHAT, LLAMACPP, SETTINGS, BOX, higher)
    assert (line.name, line.bytes, line.provenance) == ("measured difference", 5, "measured")
    assert "2026-09-21" in line.formula
    assert "ownweights plan --forget" in line.source


@pytest.mark.parametrize("peak", [GB, GB - 1, 0])
def test_a_peak_below_it_is_not_counted_on(peak: int) -> None:
    lower = known(predicted=Figures(peak_bytes=GB), peak_bytes=peak)
    assert experience.terms(CHAT, LLAMACPP, SETTINGS, BOX, lower) == ()


def test_a_peak_of_another_split_is_not_counted() -> None:
    higher = known(predicted=Figures(peak_bytes=GB), peak_bytes=GB + 5, split=Split(tensor=2))
    halves = msgspec.structs.replace(SETTINGS, split=Split(tensor=2, because="two"))
    assert experience.terms(CHAT, LLAMACPP, SETTINGS, BOX, higher) == ()
    assert [line.bytes for line in experience.terms(CHAT, LLAMACPP, halves, BOX, higher)] == [5]


def test_nothing_measured_changes_nothing() -> None:
    assert experience.terms(CHAT, LLAMACPP, SETTINGS, BOX, NOTHING) == ()
    assert experience.lessons(CHAT, LLAMACPP, SETTINGS, BOX, NOTHING) == ()
    assert experience.start_timeout_s(CHAT, LLAMACPP, BOX, NOTHING) == 60.0


def test_a_measured_speed_replaces_the_predicted_one() -> None:
    predicted = experience.tokens_per_s(CHAT, LLAMACPP, SETTINGS, BOX, NOTHING)
    assert predicted is not None
    assert predicted.provenance == "predicted"
    measured = experience.tokens_per_s(CHAT, LLAMACPP, SETTINGS, BOX, known(tokens_per_s=7.5))
    assert measured is not None
    assert (measured.tokens_per_s, measured.provenance) == (7.5, "measured")
    assert measured.source == "a benchmark of 2026-09-21"


def test_a_predicted_speed_is_that_of_the_gpus_it_is_given() -> None:
    """A T4 beside an H100: a tenth of its bandwidth."""
    chosen = variant(kind="safetensors", size=16 * GB)
    old = Card(msgspec.structs.replace(gpu(0, total_bytes=16 * GB).gpu, name="Tesla T4"), gpu(0).reading)

    def pace(hardware: Hardware, *devices: int) -> Speed:
        settings = msgspec.structs.replace(SETTINGS, devices=devices)
        found = experience.tokens_per_s(chosen, VLLM_GPU, settings, hardware, NOTHING)
        assert found is not None
        return found

    mixed = box(gpus=(old, gpu(1)))
    assert pace(mixed, 1) == pace(box(gpus=(gpu(1),)), 1)
    assert pace(mixed, 0) == pace(box(gpus=(old,)), 0)
    assert pace(mixed, 1).tokens_per_s > 5 * pace(mixed, 0).tokens_per_s
    assert "H100" in pace(mixed, 1).source


def test_only_what_is_measured_of_the_same_counts() -> None:
    """Other bytes, another engine, another version and another box are something else."""
    entries = known(tokens_per_s=7.5, load_s=1000.0)
    newer = StubEngine("llamacpp", "cpu", "gguf")
    newer.version = "2.0"
    others = [
        (variant(kind="safetensors"), LLAMACPP, BOX),
        (CHAT, VLLM_CPU, BOX),
        (CHAT, newer, BOX),
        (CHAT, LLAMACPP, box(cores=8)),
    ]
    for chosen, engine, hardware in others:
        pace = experience.tokens_per_s(chosen, engine, SETTINGS, hardware, entries)
        assert pace is None or pace.provenance == "predicted"
        assert experience.start_timeout_s(chosen, engine, hardware, entries) == 60.0


@pytest.mark.parametrize(("load_s", "timeout_s"), [(10.0, 60.0), (15.0, 60.0), (100.0, 400.0)])
def test_starts_that_took_long_are_given_longer(load_s: float, timeout_s: float) -> None:
    assert experience.start_timeout_s(CHAT, LLAMACPP, BOX, known(load_s=load_s)) == timeout_s


def test_the_engines_own_room_for_tokens_is_told_where_settings_are_the_same() -> None:
    fields = msgspec.structs.asdict(SETTINGS)
    (line,) = experience.lessons(CHAT, LLAMACPP, SETTINGS, BOX, known(kv_tokens=70_000, **fields))
    assert line == "with the same settings the engine had room for 70000 tokens on 2026-09-21"
    other = known(kv_tokens=70_000, **fields | {"slots": 4})
    assert experience.lessons(CHAT, LLAMACPP, SETTINGS, BOX, other) == ()
