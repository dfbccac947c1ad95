"""Detection on this box and on small trees of /proc and /sys; loading of recorded boxes."""

from __future__ import annotations

import os
import subprocess
from datetime import date
from pathlib import Path

import psutil
import pytest

from deploy.decoding import Undecodable
from deploy.errors import ConfigError
from deploy.hardware import Hardware, detection, record, stream
from tests.deploy.hardware import stub
from tests.deploy.hardware.stub import FREE, StubNvml, tree


def detect(root: Path) -> Hardware:
    return detection.detect(root, root=root)


def test_this_box(tmp_path: Path) -> None:
    found = detection.detect(tmp_path)
    assert found.platform == f"linux-{os.uname().machine}"
    assert found.cpu.affinity_cores == len(os.sched_getaffinity(0))
    assert found.cpu.logical_cores == os.cpu_count()
    assert found.memory.total_bytes == psutil.virtual_memory().total
    assert found.now.memory_available_bytes
    assert 0 < found.now.memory_available_bytes < found.memory.total_bytes
    assert found.memory.swap_total_bytes == psutil.swap_memory().total
    assert found.memory.bandwidth_bytes_per_s is None, "is measured, not read"
    assert found.now.disk_free_bytes
    assert found.disk.filesystem
    assert found.cpu.isa
    assert found.note is None


def test_the_fingerprint_of_this_box_does_not_move(tmp_path: Path) -> None:
    first = detection.detect(tmp_path)
    ballast = bytearray(64 << 20)
    second = detection.detect(tmp_path)
    assert first.fingerprint == second.fingerprint, len(ballast)


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    found = detect(tmp_path)
    assert (found.memory.limit_bytes, found.now.limit_used_bytes, found.memory.huge_pages) == (None, None, None)
    assert (found.memory.swap_total_bytes, found.now.swap_used_bytes) == (None, None)
    assert (found.gpus, found.links, found.gpu_error, found.driver, found.cuda_major) == ((), (), None, None, None)


def test_control_group_limits_arrive(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "sys/fs/cgroup/cpu.max": "50000 100000",
            "sys/fs/cgroup/memory.max": "1000000",
            "sys/fs/cgroup/memory.current": "400000",
        },
    )
    found = detect(tmp_path)
    assert (found.cpu.quota_cores, found.cores) == (0.5, 1)
    assert (found.memory_total_bytes, found.memory_free_bytes) == (1_000_000, 600_000)


@pytest.mark.parametrize(
    ("text", "total", "used"),
    [
        ("MemTotal:  100 kB\nSwapTotal:    2048 kB\nSwapFree:      512 kB", 2048 << 10, 1536 << 10),
        ("SwapTotal:       0 kB\nSwapFree:        0 kB", 0, 0),
        ("SwapTotal:      10 kB", 10240, None),
        ("MemTotal:  100 kB", None, None),
    ],
)
def test_swap(tmp_path: Path, text: str, total: int | None, used: int | None) -> None:
    found = detect(tree(tmp_path, {"proc/meminfo": text}))
    assert (found.memory.swap_total_bytes, found.now.swap_used_bytes) == (total, used)


@pytest.mark.parametrize("chosen", ["always", "madvise", "never"])
def test_of_the_words_for_huge_pages_the_one_in_brackets_holds(tmp_path: Path, chosen: str) -> None:
    words = "always madvise never".replace(chosen, f"[{chosen}]")
    assert detect(tree(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": words})).memory.huge_pages == chosen


def test_gpus_links_and_readings_arrive(tmp_path: Path) -> None:
    tree(tmp_path, {"dev/nvidiactl": ""})
    found = detection.detect(tmp_path, root=tmp_path, nvml=StubNvml(nvmlDeviceGetCount=2))
    assert [gpu.index for gpu in found.gpus] == [0, 1]
    assert [(link.first, link.second, link.path, link.peer) for link in found.links] == [(0, 1, "nvlink", True)]
    assert [found.reading(gpu).memory_free_bytes for gpu in found.gpus] == [FREE, FREE]
    assert (found.driver, found.cuda_major, found.cuda_minor) == ("580.105.08", 13, 2)


def test_a_gpu_that_cannot_be_read_arrives_as_an_error(tmp_path: Path) -> None:
    found = detect(stub.pci(tmp_path, "0000:01:00.0", "0x10de", "0x030200"))
    assert found.gpus or found.gpu_error


def test_a_recorded_box_comes_back_as_it_was_without_what_is_personal(tmp_path: Path) -> None:
    tree(tmp_path, {"dev/nvidiactl": ""})
    here = detection.detect(tmp_path, root=tmp_path, nvml=StubNvml())
    path = tmp_path / "box.json"
    path.write_bytes(record.encode(record.anonymous(here, date(2026, 11, 24))))
    back = detection.load(path)
    assert back.gpus[0].uuid is None
    assert back.note == "recorded with `ownweights hardware --record` on 2026-11-24"
    assert (back.cpu, back.memory, back.now, back.fingerprint) == (here.cpu, here.memory, here.now, here.fingerprint)


def box(fact: str = "", cpu: str = "", memory: str = "") -> str:
    cpu = f', "cpu": {{"architecture": "x"{cpu and ", " + cpu}}}'
    return f'{{"platform": "x"{cpu}, "memory": {{{memory}}}{fact and ", " + fact}}}'


GPU = '"gpus": [{"index": 0, "memory_total_bytes": 10}]'
WRONG = {
    "empty": ("", "truncated"),
    "cut": ("{", "truncated"),
    "trailing comma": ('{"platform": "x",}', "not valid JSON"),
    "not a number": (box(memory='"total_bytes": NaN'), "not valid JSON"),
    "without end": ("[" * 100_000, "recursion"),
    "another kind of file": ("[]", "expected `object`, got `array`"),
    "a field less": ('{"cpu": {"architecture": "x86_64"}, "memory": {}}', "missing required field `platform`"),
    "a text for a number": (box('"gpus": [{"index": "0"}]'), "expected `int`, got `str` at `gpus[0].index`"),
    "an unknown word": (box('"gpus": [{"index": 0, "vendor": "matrox"}]'), "'matrox' at `gpus[0].vendor`"),
    "negative": (box('"now": {"disk_free_bytes": -1}'), "`now.disk_free_bytes` must not be negative"),
    "negative, deep": (
        box(GPU + ', "now": {"gpus": [{"index": 0, "processes": [{"pid": 1, "memory_bytes": -5}]}]}'),
        "`now.gpus[0].processes[0].memory_bytes` must not be negative",
    ),
    "no core": (box(cpu='"affinity_cores": 0'), "`cpu.affinity_cores` must be more than 0"),
    "no quota": (box(cpu='"quota_cores": 0.0'), "`cpu.quota_cores` must be more than 0"),
    "one index twice": (box('"gpus": [{"index": 0}, {"index": 0}]'), "`gpus[1].index` is 0 a second time"),
    "one reading twice": (
        box(GPU + ', "now": {"gpus": [{"index": 0}, {"index": 0}]}'),
        "`now.gpus[1].index` is 0 a second time",
    ),
    "a reading of no gpu": (
        box(GPU + ', "now": {"gpus": [{"index": 3}]}'),
        "`now.gpus[0].index` is 3, and there is no GPU",
    ),
    "a slice of no gpu": (box('"gpus": [{"index": 0, "slice_of": 4}]'), "`gpus[0].slice_of` is 4, and there is no"),
    "a link to no gpu": (box(GPU + ', "links": [{"first": 0, "second": 1}]'), "`links[0].second` is 1, and there"),
    "a link to itself": (box(GPU + ', "links": [{"first": 0, "second": 0}]'), "`links[0].second` must be another"),
    "more free than there is": (
        box(GPU + ', "now": {"gpus": [{"index": 0, "memory_free_bytes": 11}]}'),
        "`now.gpus[0].memory_free_bytes` must not be more than `gpus[0].memory_total_bytes`: 11 > 10",
    ),
    "more used than there is": (
        box(GPU + ', "now": {"gpus": [{"index": 0, "memory_used_bytes": 11}]}'),
        "`now.gpus[0].memory_used_bytes` must not be more",
    ),
    "more memory free than there is": (
        box('"now": {"memory_available_bytes": 2}', memory='"total_bytes": 1'),
        "`now.memory_available_bytes` must not be more than `memory.total_bytes`: 2 > 1",
    ),
    "more disk free than there is": (
        box('"disk": {"total_bytes": 1}, "now": {"disk_free_bytes": 2}'),
        "`now.disk_free_bytes` must not be more than `disk.total_bytes`: 2 > 1",
    ),
    "a capability of another form": (
        box('"gpus": [{"index": 0, "compute_capability": "sm_90"}]'),
        "`gpus[0].compute_capability` is 'sm_90', not like '9.0'",
    ),
    "digits of another script": (
        box(r'"gpus": [{"index": 0, "compute_capability": "\u0669.\u0660"}]'),
        "not like '9.0'",
    ),
    "no bandwidth": (box(memory='"bandwidth_bytes_per_s": 0'), "`memory.bandwidth_bytes_per_s` is 0, not from"),
    "next to no bandwidth": (box(memory='"bandwidth_bytes_per_s": 1e-300'), "is 1e-300, not from 1e+07"),
    "boundless bandwidth": (box(memory='"bandwidth_bytes_per_s": 1e308'), "is 1e+308, not from"),
    "cores without end": (box(cpu='"physical_cores": 65537'), "`cpu.physical_cores` is 65537, more than 65536"),
    "a quota without end": (box(cpu='"quota_cores": 1e308'), "`cpu.quota_cores` is 1e+308, more than 65536"),
    "more physical than logical cores": (
        box(cpu='"physical_cores": 3, "logical_cores": 2'),
        "`cpu.physical_cores` must not be more than `cpu.logical_cores`: 3 > 2",
    ),
    "more allowed cores than there are": (
        box(cpu='"affinity_cores": 3, "logical_cores": 2'),
        "`cpu.affinity_cores` must not be more than `cpu.logical_cores`: 3 > 2",
    ),
    "another machine": (
        '{"platform": "linux-x86_64", "cpu": {"architecture": "aarch64"}, "memory": {}}',
        "`platform` is 'linux-x86_64', and `cpu.architecture` is 'aarch64'",
    ),
    "too many gpus": (
        box('"gpus": [' + ", ".join(f'{{"index": {index}}}' for index in range(257)) + "]"),
        "`gpus` has 257 entries, more than 256",
    ),
    "a slice of itself": (
        box('"gpus": [{"index": 0, "mig": true, "slice_of": 0}]'),
        "`gpus[0].slice_of` is 0, and that is no whole GPU with `mig`",
    ),
    "a slice of what is not split": (
        box('"gpus": [{"index": 0}, {"index": 1, "slice_of": 0}]'),
        "`gpus[1].slice_of` is 0, and that is no whole GPU with `mig`",
    ),
    "a slice that is split": (
        box('"gpus": [{"index": 0, "mig": true}, {"index": 1, "mig": true, "slice_of": 0}]'),
        "`gpus[1].mig` must not be true for a slice",
    ),
    "two links of a pair": (
        box('"gpus": [{"index": 0}, {"index": 1}], "links": [{"first": 0, "second": 1}, {"first": 1, "second": 0}]'),
        "`links[1]` is of GPUs 1 and 0 a second time",
    ),
    "more free and used than there is": (
        box(GPU + ', "now": {"gpus": [{"index": 0, "memory_free_bytes": 6, "memory_used_bytes": 6}]}'),
        "are together more than the GPU has: 12 > 10",
    ),
    "a key twice": (box('"platform": "y"'), "the key 'platform' stands twice in one table"),
    "a key twice, deep": (box(memory='"total_bytes": 1, "total_bytes": 2'), "the key 'total_bytes' stands twice"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_record_is_named_with_field_and_rule(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "box.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        detection.load(path)
    assert says in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.hint is not None
    assert "ownweights hardware --record" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (box('"gpu": []'), "gpu", "did you mean `gpus`?"),
        (box(cpu='"physical_core": 4'), "physical_core", "did you mean `physical_cores`?"),
        (box('"gpus": [{"index": 0, "nmae": "x"}]'), "nmae", "did you mean `name`?"),
        (box('"now": {"gpus": [{"index": 0, "processes": [{"pid": 1, "memory": 1}]}]}'), "memory", "`memory_bytes`?"),
        (box(memory='"available_bytes": 4'), "available_bytes", "did you mean"),
        (box('"zzz": 1'), "zzz", "known here: platform, cpu, memory"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(tmp_path: Path, text: str, key: str, hint: str) -> None:
    path = tmp_path / "box.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"unknown key '{key}'") as caught:
        detection.load(path)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_bytes(b'{"platform": "\xff"}')
    with pytest.raises(ConfigError, match="not valid JSON"):
        detection.load(path)


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        detection.load(tmp_path / "box.json")
    with pytest.raises(ConfigError, match="directory"):
        detection.load(tmp_path)


def test_a_mark_of_utf_8_is_passed_over_and_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_text(box(), encoding="utf-8-sig")
    assert detection.load(path).platform == "x"
    for encoding, name in (("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-32", "UTF-32")):
        path.write_text(box(), encoding=encoding)
        with pytest.raises(ConfigError, match=f"text in {name}") as caught:
            detection.load(path)
        assert (caught.value.hint or "").startswith(f"iconv -f {name} -t UTF-8 ")


def test_what_has_no_end_is_not_read_to_it(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.json"
    with sparse.open("wb") as file:
        file.truncate(20 * 10**9)
    for path in (sparse, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="larger than 16 MiB"):
            detection.load(path)


def test_a_pipe_of_another_command_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, box().encode())
    os.close(writer)
    try:
        assert detection.load(Path(f"/dev/fd/{reader}")).platform == "x"
    finally:
        os.close(reader)


def test_a_fifo_is_read_when_its_writer_comes(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # A shell waits in its redirection until somebody reads.
    with subprocess.Popen(["sh", "-c", f"printf '%s' '{box()}' > '{fifo}'"]):
        assert detection.load(fifo).platform == "x"


def test_a_fifo_that_nobody_writes_to_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(Undecodable, match="nothing was written to it"):
        stream.read(fifo, patience_s=0.01)
    assert capsys.readouterr().err == f"waiting for what is written to `{fifo}`\n"
