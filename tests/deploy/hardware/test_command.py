"""`ownweights hardware`: facts and readings apart, and a record that other people can read and plan with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deploy import cli
from deploy.hardware import detection

RECORDED = Path(__file__).parents[2] / "fixtures" / "hardware"


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(["hardware", *args])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def shown(capsys: pytest.CaptureFixture[str], name: str) -> tuple[str, str]:
    code, out, err = run(capsys, "--hardware", str(RECORDED / f"{name}.json"))
    assert (code, err) == (0, "")
    facts, now = out.split("\n\n")
    assert facts.startswith("FACT ")
    assert now.startswith("NOW ")
    return facts, now


def test_facts_and_readings_stand_apart(capsys: pytest.CaptureFixture[str]) -> None:
    facts, now = shown(capsys, "h200-30gb-used")
    assert "NVIDIA H200, 150.8 GB, capability 9.0, ECC on, 700 W, PCIe 5 x16" in facts
    assert "580.105.08, CUDA up to 13.0" in facts
    assert "°C" not in facts
    assert "120.0 GB free, 41 °C, 122 W, not throttled, 0 uncorrected memory errors" in now
    assert "python3 (pid 4242) holds 30.0 GB" in now


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("amd-only", "AMD Instinct MI300X, 206.1 GB, not used by any engine here"),
        ("mig-slice", "split by MIG, only its slices can be used"),
        ("mig-slice", "NVIDIA H100 80GB HBM3 MIG 3g.40gb, 42.4 GB, slice of gpu 0"),
        ("rtx4090-x2-no-p2p", "node, no peer access"),
        ("h100-x8", "nvlink, peer access"),
        ("nvml-failing", "NVML does not start"),
        ("laptop-8gb", "driver            none"),
        ("container-1.5cpu-4gb", "quota 1.5"),
        ("rtx4090", "memory bandwidth  unknown"),
    ],
)
def test_what_a_box_is_said_to_be(capsys: pytest.CaptureFixture[str], name: str, says: str) -> None:
    assert says in shown(capsys, name)[0]


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_every_recorded_box_is_printed_as_it_was_recorded(capsys: pytest.CaptureFixture[str], name: str) -> None:
    facts, now = shown(capsys, name)
    path = RECORDED / f"{name}.json"
    found = detection.load(path)
    for gpu in found.gpus:
        assert f"\ngpu {gpu.index} " in facts
    assert now.count("\ngpu ") == len(found.now.gpus)
    assert run(capsys, "--json", "--hardware", str(path))[1] == path.read_text()


def test_a_record_is_of_this_box_and_says_on_stderr_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "box.json"
    code, out, err = run(capsys, "--json", "--record", str(target))
    assert (code, err) == (0, f"recorded in `{target}`, without serial ids and processes\n")
    recorded = json.loads(target.read_text())
    assert recorded.pop("note").startswith("recorded with `ownweights hardware --record` on ")
    printed = json.loads(out)
    assert (recorded["cpu"], recorded["memory"]) == (printed["cpu"], printed["memory"])
    assert run(capsys, "--hardware", str(target))[0] == 0


def test_a_record_leaves_out_serials_and_processes_and_replaces_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = json.loads((RECORDED / "h200-30gb-used.json").read_text())
    box["gpus"][0]["uuid"] = "GPU-c08d91cb-e324-655c-71ba-7570956445bc"
    source, target = tmp_path / "source.json", tmp_path / "target.json"
    source.write_text(json.dumps(box))
    target.write_text("before")
    assert run(capsys, "--hardware", str(source), "--record", str(target))[0] == 0
    text = target.read_text()
    assert not any(word in text for word in ("GPU-c08d", "4242", "python3"))
    found = detection.load(target)
    assert found.now.gpus[0].memory_used_bytes == 28611 << 20, "that it is used is no secret"
    assert found.note == box["note"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, err = run(capsys, "--record", str(pipe))
    assert code == 1
    assert "not a file that can be replaced" in err
    assert pipe.is_fifo()
    assert run(capsys, "--record", str(tmp_path))[0] == 1


def test_a_folder_that_is_missing_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--record", str(tmp_path / "a folder" / "box.json"))
    assert code == 1
    assert err.endswith(f"hint: mkdir -p '{tmp_path / 'a folder'}'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_and_what_it_points_at_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").mkdir()
    link, there = tmp_path / "box.json", tmp_path / "kept" / "real.json"
    link.symlink_to("kept/real.json")
    for _ in ("a link to nothing yet", "a link to a file"):
        assert run(capsys, "--record", str(link))[0] == 0
        assert link.is_symlink()
        assert detection.load(there).cpu.architecture
    loop = tmp_path / "loop.json"
    loop.symlink_to("loop.json")
    assert run(capsys, "--record", str(loop))[0] == 1
    assert loop.is_symlink()


def test_what_steers_a_terminal_is_printed_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = json.loads((RECORDED / "h100.json").read_text())
    box["note"] = box["gpus"][0]["name"] = "\x1b[2J\nfingerprint  0"
    path = tmp_path / "box.json"
    path.write_text(json.dumps(box))
    code, out, _ = run(capsys, "--hardware", str(path))
    assert code == 0
    assert "\x1b" not in out
    assert out.count("\nfingerprint ") == 1
    assert "note              \\x1b[2J\\nfingerprint  0" in out
