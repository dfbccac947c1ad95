"""Memory of our own engines is free again for the next plan; that of others is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from deploy.engine import Command
from deploy.hardware import Cpu, Gpu, GpuProcess, GpuReading, Hardware, Memory, Readings
from deploy.hardware.cgroup import Limits
from serving import holdings, identity, records
from serving.records import Record

GB = 10**9
READY = "import sys; data = bytearray(40_000_000); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def engine() -> Iterator[int]:
    """A process of 40 MB in a session of its own, written down as an engine of ours."""
    with subprocess.Popen(
        [sys.executable, "-c", READY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        found = identity.of(process.pid)
        assert found is not None
        records.write(
            Record(model="chat", process=found, planned=Command(argv=("x",), env={}), context_tokens=1, socket="/s")
        )
        yield process.pid
        process.stdin.close()


def box(*processes: GpuProcess, free: int | None = 50 * GB, used: int | None = 30 * GB) -> Hardware:
    reading = GpuReading(index=0, memory_free_bytes=free, memory_used_bytes=used, processes=processes)
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(architecture="x86_64"),
        memory=Memory(total_bytes=64 * GB, limit_bytes=32 * GB),
        gpus=(Gpu(index=0, memory_total_bytes=80 * GB),),
        now=Readings(memory_available_bytes=8 * GB, limit_used_bytes=GB, gpus=(reading,)),
    )


def test_without_engines_of_ours_nothing_changes() -> None:
    found = box(GpuProcess(pid=os.getpid(), memory_bytes=30 * GB))
    assert holdings.given_back(found) == found


def test_what_our_engine_holds_of_the_memory_comes_back(engine: int) -> None:
    back = holdings.given_back(box()).now
    held = (back.memory_available_bytes or 0) - 8 * GB
    assert 40_000_000 < held < GB
    assert back.limit_used_bytes == GB - held


def test_what_our_engine_holds_of_a_gpu_comes_back_and_what_others_hold_does_not(engine: int) -> None:
    other = GpuProcess(pid=os.getpid(), name="pytest", memory_bytes=10 * GB)
    (reading,) = holdings.given_back(box(GpuProcess(pid=engine, memory_bytes=20 * GB), other)).now.gpus
    assert (reading.memory_free_bytes, reading.memory_used_bytes) == (70 * GB, 10 * GB)
    assert reading.processes == (other,)


def test_what_is_unknown_stays_unknown(engine: int) -> None:
    found = box(GpuProcess(pid=engine, memory_bytes=None), free=None, used=None)
    found = msgspec.structs.replace(
        found, now=msgspec.structs.replace(found.now, memory_available_bytes=None, limit_used_bytes=None)
    )
    back = holdings.given_back(found).now
    assert (back.memory_available_bytes, back.limit_used_bytes) == (None, None)
    assert (back.gpus[0].memory_free_bytes, back.gpus[0].memory_used_bytes) == (None, None)


def test_the_facts_of_the_box_are_not_touched(engine: int) -> None:
    found = box()
    assert holdings.given_back(found).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("peak", "most", "kept"),
    [(5, 5, 5), (6, 5, None), (6, None, 6), (None, 5, None)],
)
def test_more_than_the_device_has_is_no_peak(peak: int | None, most: int | None, kept: int | None) -> None:
    assert holdings.possible(peak, most) == kept


def test_a_limit_of_the_group_below_what_was_held_makes_it_no_peak(
    engine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (holdings.peak_bytes(engine, "cpu") or 0) > 40_000_000
    monkeypatch.setattr("serving.holdings.cgroup.limits", lambda _root: Limits(memory_bytes=30_000_000))
    assert holdings.peak_bytes(engine, "cpu") is None


def test_free_memory_counts_what_ours_hold(engine: int) -> None:
    free = holdings.free_bytes("cpu", ())
    assert free
    assert free > 40_000_000
    assert holdings.free_bytes("gpu", ()) is None
