"""The whole chain on a tiny checkpoint: up, again, down; interrupted, killed, refused. Real processes throughout."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import paths
from serving import identity
from tests.hubrepo import Repo
from tests.hubserver import hub
from tests.serving.box import Box, box, kill, said


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Box]:
    with box(tmp_path) as made:
        yield made


def test_up_again_and_down(here: Box) -> None:
    shown = here.ok("deploy")
    assert f"base URL  http://127.0.0.1:{here.port}/v1" in shown
    assert here.answer().status_code == 200
    before = (here.service(), here.engine_pid(), (here.project / "models.lock").stat().st_mtime_ns)

    again = json.loads(here.ok("deploy", "--json"))
    assert (here.service(), here.engine_pid(), (here.project / "models.lock").stat().st_mtime_ns) == before
    assert again["models"][0]["model"] == "chat"

    (row,) = json.loads(here.ok("ps", "--json"))
    assert (row["model"], row["state"], row["pid"]) == ("chat", "ready", here.engine_pid())
    assert row["memory_bytes"] > 0
    assert here.ok("ps", "-q") == "chat\n"
    assert f"export OPENAI_BASE_URL=http://127.0.0.1:{here.port}/v1\n" in here.ok("env")
    assert here.ok("chat", "hello", "--max-tokens", "3").endswith("\n")
    assert "listening on" in here.ok("logs", "chat")

    here.ok("down")
    here.leaves_nothing()
    assert here.run("ps").returncode == 1
    here.ok("down")


def test_the_line_it_prints_can_be_pasted(here: Box) -> None:
    line = here.ok("deploy").strip().splitlines()[-1]
    assert line.startswith("curl ")
    pasted = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert json.loads(pasted.stdout)["object"] == "chat.completion"


def test_a_changed_models_toml_is_followed(here: Box) -> None:
    here.ok("deploy")
    first = here.engine_pid()
    path = here.project / "models.toml"
    path.write_text(path.read_text().replace("slots = 2", "slots = 3"))
    here.ok("deploy")
    (row,) = json.loads(here.ok("ps", "--json"))
    assert row["slots"] == 3
    assert row["pid"] != first
    assert identity.of(first) is None


@pytest.mark.parametrize("moment", ["locked:", "plan:", "installing", "chat: starting"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_short_anywhere_and_deployed_again(here: Box, moment: str, number: signal.Signals) -> None:
    process = here.start("deploy")
    said(process, moment)
    code = kill(process, number)
    if number is not signal.SIGKILL:
        assert code == 130
        here.leaves_nothing()
    assert not list((here.folder / "home").glob("data/environments/*partial*/ownweights.json"))
    here.ok("deploy")
    assert here.answer().status_code == 200
    assert not list((here.folder / "home").glob("data/environments/*partial*"))
    here.ok("down")
    here.leaves_nothing()


def test_a_killed_gateway_leaves_its_engine_and_the_next_one_adopts_it(here: Box) -> None:
    here.ok("deploy")
    engine = here.engine_pid()
    os.kill(here.service()["process"]["pid"], signal.SIGKILL)
    here.ok("deploy")
    assert here.engine_pid() == engine
    assert here.answer().status_code == 200
    os.kill(here.service()["process"]["pid"], signal.SIGKILL)
    here.ok("down")
    assert identity.of(engine) is None


def test_a_port_in_use_names_its_holder_and_leaves_nothing(here: Box) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", here.port))
        holder.listen()
        done = here.run("deploy")
    assert done.returncode == 1
    assert f"error: port {here.port} is in use by pid {os.getpid()}" in done.stderr
    assert "hint:" in done.stderr
    here.leaves_nothing()


def test_a_changed_byte_is_refused_by_name_and_nothing_is_served(here: Box) -> None:
    here.ok("pull")
    with here.weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    done = here.run("deploy")
    assert done.returncode == 3
    assert "`tiny.gguf` changed" in done.stderr
    assert "hint: " in done.stderr
    here.leaves_nothing()
    assert here.run("verify").returncode == 3


def test_terms_of_their_own_block_a_deploy_until_they_are_named(here: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"tiny.gguf": here.weights, "LICENSE": b"Show our name."}
    repo = Repo("org/tiny", files=files, license="other", card={"license_name": "house"})
    wishes = here.project / "models.toml"
    text = wishes.read_text().replace(f"file:{here.weights}", "hf:org/tiny")
    wishes.write_text(text)
    with hub([repo]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        done = here.run("deploy")
        assert done.returncode == 1
        assert "LicenseRef-house" in done.stderr.partition("hint: ")[0]
        assert 'allow-licence = "LicenseRef-house"' in done.stderr.partition("hint: ")[2]
        assert not list(paths.hub_cache().glob("models--*"))
        here.leaves_nothing()
        wishes.write_text(text.replace("context", 'allow-licence = "LicenseRef-house"\ncontext'))
        here.ok("deploy")
    assert here.answer().status_code == 200


def test_the_second_of_two_deploys_is_told_who_is_first(here: Box) -> None:
    first = here.start("deploy")
    said(first, "chat: starting")
    # Held there, or it might be done before the second one has begun.
    first.send_signal(signal.SIGSTOP)
    second = here.run("deploy")
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert second.returncode == 75
    assert f"a deploy is running: pid {first.pid} since" in second.stderr
    assert first.returncode == 0


def test_serve_in_the_foreground_ends_with_sigterm(here: Box) -> None:
    process = here.start("serve")
    deadline = time.monotonic() + 60
    while here.run("ps", "-q").returncode != 0 or here.answer().status_code != 200:
        assert time.monotonic() < deadline
    assert kill(process, signal.SIGTERM) == 0
    here.leaves_nothing()


def test_locked_refuses_a_stale_lock_and_says_why(here: Box) -> None:
    here.ok("lock")
    path = here.project / "models.toml"
    path.write_text(path.read_text().replace('name = "chat"', 'name = "other"'))
    done = here.run("deploy", "--locked")
    assert done.returncode == 1
    assert "the lock is stale: models.toml asks for other models" in done.stderr
    assert "hint: ownweights lock" in done.stderr
