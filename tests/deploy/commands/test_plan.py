"""`plan` as a user meets it: what it says, its exit codes, and that it leaves no trace."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import catalog, cli, output, paths
from deploy.commands.planned import COLUMNS
from deploy.engine import Figures
from deploy.hardware import detection
from deploy.measured import store
from deploy.weights import pace
from tests import hubserver, tiny
from tests.conftest import NOWHERE
from tests.deploy.measured.starts import start
from tests.hubrepo import Repo

BOXES = Path(__file__).parents[2] / "fixtures" / "hardware"
VM = BOXES / "vm-2core-24gb.json"
NEVER = ("huggingface_hub", "httpx", "pynvml", "numpy", "packaging", "rich", "ssl", "deploy.catalog")
"""What a plan of what is locked has no use for."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny.gguf(tmp_path_factory.mktemp("weights") / "tiny.gguf").read_bytes()


@pytest.fixture
def hub(weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    with hubserver.hub([Repo("org/tiny-GGUF", files={"tiny-F16.gguf": weights})]) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def project(folder: Path, hub: hubserver.Hub) -> Path:
    wish(folder)
    return folder


def wish(folder: Path, more: str = "", *, name: str = "chat") -> None:
    """One more model of models.toml."""
    with (folder / "models.toml").open("a") as file:
        file.write(f'[[model]]\nname = "{name}"\nsource = "hf:org/tiny-GGUF"\n{more}\n')


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run(list(args))
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def document(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, Any]:
    code, out, _ = run(capsys, "plan", "--json", *args)
    return code, json.loads(out)


def traces(root: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a folder: mode, time of change, content."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(root.rglob("*"))
    }


def box(target: Path, *, free_bytes: int | None = None, disk_free_bytes: int | None = None) -> str:
    """The 2-core VM with less free."""
    recorded = json.loads(VM.read_text())
    if free_bytes is not None:
        recorded["now"]["memory_available_bytes"] = free_bytes
    if disk_free_bytes is not None:
        recorded["now"]["disk_free_bytes"] = disk_free_bytes
    target.write_text(json.dumps(recorded))
    return str(target)


@pytest.mark.parametrize("state", ["locked and pulled", "locked", "stale", "not locked"])
def test_it_leaves_no_trace(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: str) -> None:
    if state != "not locked":
        run(capsys, "lock")
    if state == "locked and pulled":
        run(capsys, "pull")
    if state == "stale":
        wish(project, name="second")
    before = traces(tmp_path)
    for args in ([], ["--json"], ["--model", "chat"], ["--model", "qwen3-8b"], ["--history"], ["--context", "2048"]):
        assert run(capsys, "plan", *args)[0] in (0, 3), args
    assert run(capsys, "plan", "--model", "hf:org/tiny-GGUF")[0] == 0
    assert run(capsys, "plan", "--model", "nobody-knows-it")[0] == 2
    assert run(capsys, "plan", "--hardware", str(VM))[0] == 0
    assert traces(tmp_path) == before


def test_what_is_locked_needs_no_network(
    project: Path, hub: hubserver.Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "lock")
    asked = len(hub.requests)
    assert asked > 0
    code, out, err = run(capsys, "plan")
    # Free memory, which is told below, is another one at every run.
    decision = out.splitlines()[:2]
    assert (code, err, len(hub.requests)) == (0, "", asked)
    for name, value in (("HF_ENDPOINT", NOWHERE), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
        code, out, err = run(capsys, "plan")
        assert (code, err, out.splitlines()[:2]) == (0, "", decision)


def test_what_is_locked_is_planned_without_what_is_slow_to_load(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "lock")
    code = (
        "import sys; from deploy import cli; code = cli.run(['plan', '--json']); print(*sys.modules, file=sys.stderr)"
    )
    child = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(code)"], check=False, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    loaded = set(child.stderr.split())
    assert "deploy.outlook" in loaded
    assert loaded.isdisjoint(NEVER)


def test_the_decision_comes_first_and_lines_fit_a_terminal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "lock")
    code, out, _ = run(capsys, "plan", "--hardware", str(VM))
    lines = out.splitlines()
    labels = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert code == 0
    assert lines[0] == "chat: fits"
    assert labels[:5] == ["runs", "promise", "speed", "memory", "start"]
    assert labels.index("because") < labels.index("needs") < labels.index("not") < labels.index("command")
    assert {line.split()[0] for line in lines if len(line) > COLUMNS} <= {"command", "env"}


def test_json_has_the_exact_command_its_memory_and_its_reasons(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "lock")
    code, found = document(capsys)
    (model,) = found["models"]
    settings = model["settings"]
    assert (code, found["verdict"], found["locked"]) == (0, "fits", True)
    argv = model["command"]["argv"]
    assert argv[argv.index("--context") + 1] == str(settings["context_tokens"])
    assert argv[argv.index("--slots") + 1] == str(settings["slots"])
    assert all(term["formula"] and term["provenance"] and term["source"] for term in model["memory"])
    assert model["because"]
    assert all(entry["reason"] and entry["change"] for entry in model["rejected"])


def test_context_and_slots_of_the_command_line_are_what_if(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "lock")
    code, found = document(capsys, "--context", "4096", "--slots", "3")
    settings = found["models"][0]["settings"]
    assert (code, settings["context_tokens"], settings["slots"]) == (0, 4096, 3)
    assert found["locked"]


def test_exit_codes_tell_fits_limits_and_no(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "lock")
    code, found = document(capsys, "--hardware", str(VM))
    assert code == 0
    needed = sum(term["bytes"] for term in found["models"][0]["memory"])
    little = box(tmp_path / "little.json", free_bytes=needed)
    code, found = document(capsys, "--hardware", little)
    assert (code, found["verdict"]) == (3, "limits")
    assert found["models"][0]["limits"]
    assert run(capsys, "plan", "--hardware", little)[1].startswith("chat: fits with limits\n  limit ")
    nothing = box(tmp_path / "nothing.json", free_bytes=1_000_000)
    code, found = document(capsys, "--hardware", nothing)
    assert (code, found["verdict"], found["models"]) == (4, "no", [])
    assert any(entry["fix"] for entry in found["unplanned"][0]["rejected"])
    code, out, err = run(capsys, "plan", "--hardware", nothing)
    assert (code, err) == (4, "")
    assert out.startswith("chat: does not fit\n  because ")
    assert "\n  hint " in out


def test_auto_that_finds_nothing_is_an_answer(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "models.toml").write_text('[[model]]\nname = "chat"\n')
    nothing = box(tmp_path / "nothing.json", free_bytes=1_000_000)
    code, found = document(capsys, "--hardware", nothing)
    assert (code, found["verdict"], found["unplanned"][0]["model"]) == (4, "no", "chat")
    out = run(capsys, "plan", "--hardware", nothing)[1]
    assert out.startswith("chat: does not fit\n  because   no catalogue row fits this box")
    assert "  not       kimi-k3: " in out


def test_a_disk_that_is_too_small_does_not_fit(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "lock")
    small = box(tmp_path / "small.json", disk_free_bytes=1000)
    code, found = document(capsys, "--hardware", small)
    assert (code, found["verdict"], found["fetch"]["fits"]) == (4, "no", False)
    out = run(capsys, "plan", "--hardware", small)[1]
    assert "1 kB free" in out
    assert "HF_HOME=" in out


def test_what_is_to_be_fetched_and_how_long_it_takes(
    project: Path, weights: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "lock")
    fetch = document(capsys)[1]["fetch"]
    assert (fetch["bytes"], fetch["disk_bytes"], fetch["seconds"]) == (len(weights), len(weights), None)
    assert [name.split()[0] for name in fetch["environments"]] == ["llamacpp"]
    assert fetch["disk_free_bytes"] > 0
    pace.note(pace.ENOUGH_BYTES, pace.ENOUGH_BYTES / 1_000_000)
    assert document(capsys)[1]["fetch"]["seconds"] == pytest.approx(len(weights) / 1_000_000)
    assert f"fetch     {output.size(len(weights))} of weights, about " in run(capsys, "plan")[1]
    run(capsys, "pull")
    assert document(capsys)[1]["fetch"]["bytes"] == 0
    assert "fetch     no weights: they are here" in run(capsys, "plan")[1]
    # A box that was recorded elsewhere has nothing of this one, nor its line.
    fetch = document(capsys, "--hardware", str(VM))[1]["fetch"]
    assert (fetch["bytes"], fetch["seconds"], fetch["environments"]) == (len(weights), None, [])


def test_one_of_several_is_shown_alone_and_all_share_the_box(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish(project, 'aliases = ["gpt-4o"]', name="second")
    run(capsys, "lock")
    both = {model["model"]: model for model in document(capsys, "--hardware", str(VM))[1]["models"]}
    alone = document(capsys, "--model", "gpt-4o", "--hardware", str(VM))[1]
    assert alone["beside"] == ["chat"]
    (shown,) = alone["models"]
    assert shown == both["second"]
    what_if = document(capsys, "--model", "hf:org/tiny-GGUF", "--hardware", str(VM))[1]["models"][0]
    assert shown["room_bytes"] < what_if["room_bytes"]
    assert "beside    chat: all models of models.toml share the box" in run(capsys, "plan", "--model", "second")[1]


def test_a_catalogue_row_is_planned_without_network_and_project(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "plan", "--model", "qwen2.5-coder-0.5b", "--hardware", str(VM))
    assert (code, err) == (0, "")
    assert "because   by the catalogue's figures" in out
    assert "unlocked  sizes are what the source says; `ownweights lock` proves them" in out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", sorted(row.id for row in catalog.ours()))
def test_every_row_is_planned_or_says_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, err = run(capsys, "plan", "--model", name, "--hardware", str(BOXES / "h100-x8.json"))
    if code == 2:
        assert err.startswith(f"error: the catalogue knows too little of `{name}`")
        assert "hint: ownweights plan --model hf:" in err
    else:
        assert code in (0, 3, 4)
        assert out.startswith(f"{name}: ")


WRONG = {
    "unknown, but near": (["--model", "qwen3-8"], "no model `qwen3-8`", "`qwen3-8b`"),
    "a name of models.toml is near too": (["--model", "chta"], "no model `chta`", "`chat`"),
    "nothing is near": (["--model", "zzzzzz"], "no model `zzzzzz`", "ownweights models"),
    "no name": (["--model", ""], "no model ``", "ownweights models"),
    "half a source": (["--model", "hf:org"], "`hf:org` is not a Hub source", "hf:org/repo"),
    "no such file": (["--model", "file:nowhere.gguf"], "does not exist", "models.toml"),
    "more context than the model has": (["--context", "40000"], f"more than the model's {tiny.WINDOW}", "context"),
    "no context": (["--context", "0"], "0 is not in the range", "plan --help"),
    "negative slots": (["--slots", "-1"], "-1 is not in the range", "plan --help"),
    "no number": (["--slots", "many"], "'many' is not a valid integer", "plan --help"),
    "a number beyond all": (["--context", str(10**30)], "is not in the range", "plan --help"),
    "no such box": (["--hardware", "nowhere.json"], "cannot be read: No such file", "--record"),
    "a folder for a box": (["--hardware", "."], "cannot be read: Is a directory", "--record"),
    "unknown option": (["--modle", "chat"], "No such option '--modle'", "plan --help"),
    "an argument": (["chat"], "unexpected extra argument", "plan --help"),
    "the past of one model": (["--history", "--model", "chat"], "--history goes with --json only", "plan --history"),
    "to forget a what-if": (["--forget", "--context", "9"], "--forget goes with --model only", "plan --forget"),
    "to forget another box": (["--forget", "--hardware", str(VM)], "--forget goes with --model only", "plan --forget"),
    "to forget what is shown": (["--forget", "--history"], "--forget goes with --model only", "plan --forget"),
}


@pytest.mark.parametrize(("args", "message", "hint"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_error_and_one_hint(
    project: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str, hint: str
) -> None:
    run(capsys, "lock")
    code, out, err = run(capsys, "plan", *args)
    lines = err.splitlines()
    assert (code, out) == (2, "")
    assert [line.partition(": ")[0] for line in lines] == ["error", "hint"]
    assert message in lines[0]
    assert hint in lines[1]


@pytest.mark.parametrize("text", ["", "{}", '{"platform": 3}', "\x00\xff", "[]"])
def test_a_recorded_box_that_is_damaged_is_wrong_input(
    project: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (project / "box.json").write_text(text)
    code, out, err = run(capsys, "plan", "--json", "--hardware", "box.json")
    assert (code, out) == (2, "")
    assert err.startswith("error: not a recorded hardware: ")
    assert (project / "box.json").read_text() == text


@pytest.mark.parametrize(
    ("wished", "message"),
    [
        ('engine = "vllm"\nprecision = "F16"', "vllm does not read gguf/F16"),
        ('engine = "ollama"', 'there is no engine "ollama"'),
        ('engine = "llamacpp"\n[engines]\ncpu = "vllm"', "nothing is left of engines and variants"),
        (f"context = {tiny.WINDOW + 1}", f"is more than the model's {tiny.WINDOW}"),
        ("slots = -1", "must be at least 1"),
    ],
)
def test_wishes_that_contradict_each_other_are_wrong_input(
    folder: Path, hub: hubserver.Hub, capsys: pytest.CaptureFixture[str], wished: str, message: str
) -> None:
    wish(folder, wished)
    code, out, err = run(capsys, "plan")
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("text", ["garbage", "version = 999\n", ""])
def test_a_damaged_lock_is_wrong_input_and_stays_as_it_is(
    project: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (project / "models.lock").write_text(text)
    code, out, err = run(capsys, "plan")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert (project / "models.lock").read_text() == text


def test_a_folder_without_models_toml_is_wrong_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plan")
    assert (code, out) == (2, "")
    assert err.startswith("error: no models.toml here")


def test_history_without_a_start_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "plan", "--history")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err.startswith("nothing was measured yet")
    assert document(capsys, "--history") == (0, [])


def test_history_shows_the_error_of_every_prediction(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.add(start(60, predicted=Figures(kv_tokens=900, peak_bytes=3 * 10**9), kv_tokens=1000, peak_bytes=2 * 10**9))
    store.add(start(120, load_s=0.0, tokens_per_s=41.6))
    store.add(start(180, correction="the KV cache is too small", named=1024))
    code, out, _ = run(capsys, "plan", "--history")
    header, failed, paced, sized = out.splitlines()
    assert code == 0
    assert header.split()[:3] == ["DATE", "MODEL", "VARIANT"]
    assert failed.endswith("to 1024 tokens: the KV cache is too small")
    assert "0.0 s" in paced
    assert " 42 " in paced
    assert "1000 (-10.0 %)" in sized
    assert "2.0 GB (+50.0 %)" in sized
    rows = document(capsys, "--history")[1]
    assert [row["at"] for row in rows] == [180, 120, 60]
    assert rows[0]["corrected_tokens"] == 1024


@pytest.mark.parametrize(("args", "left"), [(["--model", "chat"], ["code", "far"]), ([], ["far"])])
def test_what_was_measured_on_this_box_can_be_forgotten(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], left: list[str]
) -> None:
    here = detection.detect(paths.hub_cache()).fingerprint
    for model, hardware in (("chat", here), ("code", here), ("chat", here), ("far", "elsewhere")):
        store.add(start(model=model, hardware=hardware))
    code, out, _ = run(capsys, "plan", "--forget", *args)
    assert code == 0
    assert out.splitlines()[0] == "forgotten: 2 starts of chat (gguf/Q4_K_M) on llamacpp 1.0"
    assert [entry.model for entry in store.read().entries] == left
    code, out, err = run(capsys, "plan", "--forget", *args)
    assert (code, out) == (0, "")
    assert err.startswith("nothing to forget")


def test_history_that_is_damaged_is_shown_as_far_as_it_goes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.add(start(60))
    with store.file().open("a") as file:
        file.write("not json\n")
    before = store.file().read_bytes()
    code, out, err = run(capsys, "plan", "--history")
    assert (code, len(out.splitlines())) == (0, 2)
    assert "cannot be read" in err
    assert store.file().read_bytes() == before
    assert [path.name for path in paths.state_dir().iterdir() if "damaged" in path.name] == []
