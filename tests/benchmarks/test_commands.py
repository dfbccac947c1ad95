"""The two commands as a user calls them, against real HTTP servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.mock import Ask, Reply, serving, steady, token
from deploy import paths
from deploy.cli import run
from tests.benchmarks.streams import cell, result, steady_records

QUICK = ["--concurrency", "1,2", "--requests", "4", "--output-tokens", "3"]
SERVED = {"X-Ownweights-Engine": "llamacpp 2026.10", "X-Ownweights-Lock": "0123456789ab"}


@contextlib.contextmanager
def endpoint(answer: Callable[[Ask], Reply]) -> Iterator[str]:
    """The base URL of a mock on a thread of its own."""
    ready, stop, found = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with serving(answer) as base_url:
            found.append((base_url, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    [(base_url, loop)] = found
    try:
        yield base_url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(autouse=True)
def _bare_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without models.toml, and no endpoint in the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def receipted(ask: Ask) -> Reply:
    plain = steady(ask)
    return Reply(headers=SERVED, packets=plain.packets)


def only_result() -> dict[str, Any]:
    [path] = paths.results_dir().glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_bench_writes_a_document_and_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(receipted) as url:
        code = run(["bench", "--url", url, *QUICK])
    document = only_result()
    # A box that is busy with other things may fail the harness's own checks, and must then say so.
    harness = {"client CPU", "loop lag"}
    failed = {check["name"] for cell in document["cells"] for check in cell["checks"] if check["verdict"] == "fail"}
    assert failed <= harness
    assert code == (1 if failed else 0)
    assert document["valid"]
    assert document["workload"]["mode"] == "capacity"
    assert [cell["concurrency"] for cell in document["cells"]] == [1, 2]
    assert all(cell["counts"]["in_window"] >= 4 for cell in document["cells"])
    assert (document["server"]["engine"], document["server"]["engine_version"]) == ("llamacpp", "2026.10")
    assert document["server"]["lock"] == "0123456789ab"
    assert document["server"]["hardware"]["platform"].startswith(sys.platform)
    printed = capsys.readouterr()
    assert printed.out.startswith("# mock on llamacpp 2026.10\n")
    assert "written: " in printed.err


def test_bench_as_json_into_a_file_of_the_users(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with endpoint(steady) as url:
        run(["bench", "--url", url, "--json", "--output", "mine.json", *QUICK])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "mine.json").read_text())
    assert not paths.results_dir().exists()


def test_a_server_that_fails_under_load_fails_the_run_after_the_document_is_written() -> None:
    asked = 0

    def breaking(ask: Ask) -> Reply:
        nonlocal asked
        asked += 1
        return steady(ask) if asked <= 6 else Reply(status=500, packets=((0.0, b"out of memory"),))

    with endpoint(breaking) as url:
        assert run(["bench", "--url", url, *QUICK]) == 1
    document = only_result()
    assert {cell["counts"]["first_failure"] for cell in document["cells"]} == {"http error: HTTP 500: out of memory"}
    assert run(["cost", "--usd-per-hour", "1"]) == 1


def test_a_server_that_fails_from_the_start_leaves_no_document(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(lambda _: Reply(status=500, packets=((0.0, b"no"),))) as url:
        assert run(["bench", "--url", url, *QUICK]) == 2
    assert "HTTP 500: no" in capsys.readouterr().err
    assert not paths.results_dir().exists()


def test_a_server_without_usage_is_measured_and_not_priced(capsys: pytest.CaptureFixture[str]) -> None:
    def silent(ask: Ask) -> Reply:
        return Reply(packets=((0.01, token()), (0.02, token()), (0.02, b"data: [DONE]\n\n")))

    with endpoint(silent) as url:
        run(["bench", "--url", url, *QUICK])
    assert "uncounted" in capsys.readouterr().out
    assert only_result()["workload"]["mode"] == "behaviour"
    assert run(["cost", "--usd-per-hour", "1"]) == 1


def test_nothing_deployed_is_one_error_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench"]) == 1
    assert "hint: make deploy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--concurrency", "0"],
        ["--concurrency", "1,,2"],
        ["--concurrency", "two"],
        ["--requests", "0"],
        ["--replicates", "11"],
        ["--output-tokens", "1"],
    ],
)
def test_bad_options_of_bench_are_refused(wrong: list[str]) -> None:
    assert run(["bench", "--url", "http://127.0.0.1:9", *wrong]) == 1


def test_ctrl_c_keeps_the_part_and_marks_it_invalid() -> None:
    with endpoint(steady) as url:
        command = [sys.executable, "-P", "-m", "deploy.cli", "bench", "--url", url, "--requests", "1000000"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("concurrency"):
                break
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait() == 130
        process.stderr.close()
    assert "marked invalid" in told
    assert "Traceback" not in told
    document = only_result()
    assert (document["valid"], document["invalid_because"]) == (False, "it was interrupted")
    assert run(["cost", "--usd-per-hour", "1"]) == 1


def measured() -> None:
    results.write(result(cell(steady_records(4, 12), concurrency=4)))


def test_cost_prices_the_newest_result(capsys: pytest.CaptureFixture[str]) -> None:
    measured()
    assert run(["cost", "--usd-per-hour", "0.05"]) == 0
    printed = capsys.readouterr().out
    for name in ("openrouter/qwen/qwen3-8b", "openai/gpt-6-luna", "u = 0.30", "$0.05 per hour"):
        assert name in printed


def test_cost_takes_its_defaults_from_models_toml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    measured()
    (tmp_path / "models.toml").write_text(
        '[[model]]\nname = "chat"\n[cost]\nusd-per-hour = 0.07\nutilisation = 0.5\n'
        '[[compare]]\nprovider = "zai"\nmodel = "GLM-5.3-Flash"\n'
    )
    assert run(["cost", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["node"]["rent_usd_per_hour"], document["utilisation"]["value"]) == ("0.07", "0.5")
    assert [row["api"]["model"] for row in document["comparisons"]] == ["GLM-5.3-Flash"]
    assert run(["cost", "--json", "--usd-per-hour", "2", "--compare", "openai/gpt-6-luna"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["node"]["rent_usd_per_hour"] == "2"
    assert [row["api"]["model"] for row in document["comparisons"]] == ["gpt-6-luna"]


def test_cost_counts_energy_when_all_of_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    measured()
    energy = ["--watts-busy", "100", "--watts-idle", "20", "--usd-per-kwh", "0.25"]
    assert run(["cost", "--json", "--usd-per-hour", "0.05", "--utilisation", "0.5", *energy]) == 0
    assert json.loads(capsys.readouterr().out)["usd_per_hour"]["value"] == "0.065"
    assert run(["cost", "--usd-per-hour", "0.05", *energy[:2]]) == 1
    assert "energy needs all three" in capsys.readouterr().err


def test_cost_without_a_price_of_the_machine_asks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    measured()
    assert run(["cost"]) == 1
    assert "--usd-per-hour" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["--usd-per-hour", "-1"],
        ["--usd-per-hour", "nan"],
        ["--usd-per-hour", "cheap"],
        ["--utilisation", "0"],
        ["--utilisation", "1.5"],
        ["--compare", "nobody/nothing"],
        ["absent.json"],
    ],
)
def test_bad_input_of_cost_is_refused(wrong: list[str]) -> None:
    measured()
    assert run(["cost", "--usd-per-hour", "1", *wrong]) == 1


def test_cost_of_nothing_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cost", "--usd-per-hour", "1"]) == 1
    assert "hint: make bench" in capsys.readouterr().err
