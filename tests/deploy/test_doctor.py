"""The doctor as a whole: a real project folder, a real lock, a plan made for a composed box, every check in order."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from deploy import doctor, lockfile, paths, project
from deploy.checks import Context
from deploy.engine import Device
from deploy.errors import OwnweightsError
from deploy.hardware import Hardware
from deploy.lockfile import Lock, Variant, inputs_digest
from deploy.plan import Plan
from deploy.weights import cache, verify
from tests.deploy import boxes
from tests.deploy.boxes import StubEngine
from tests.deploy.checks import contexts

SMALL = boxes.box()


class Stub(StubEngine):
    """With a requirement set on disk, as environments need one."""

    def __init__(self, folder: Path, name: str, device: Device, kind: str) -> None:
        super().__init__(name, device, kind)
        self.requirements = folder / f"{name}-{device}.txt"
        self.requirements.write_text("")


class Bench:
    """A project in a folder, on a free port, with a CPU engine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.toml = folder / "models.toml"
        self.toml.write_text(f'[[model]]\nname = "chat"\n[server]\nport = {self.port}\n')
        self.engines = (Stub(folder, "llamacpp", "cpu", "gguf"),)

    def write_lock(self, variant: Variant) -> Lock:
        made = msgspec.structs.replace(
            boxes.lock(variant),
            inputs=inputs_digest(project.find(self.folder).config),
            engines=tuple(project.engine_pin(engine) for engine in self.engines),
        )
        (self.folder / lockfile.FILE).write_text(lockfile.write(made))
        return made

    def context(self, hardware: Hardware = SMALL) -> Context:
        return doctor.context(self.folder, self.engines, hardware)

    def results(self) -> dict[str, doctor.Result]:
        return {result.name: result for result in doctor.run(self.context())}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "project")


def pull(variant: Variant) -> None:
    blob = cache.blob(variant, variant.files[0])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(contexts.WEIGHTS)
    cache.link(variant)
    assert not verify.check(variant)


def test_a_fresh_project_has_work_to_do_but_nothing_that_fails(bench: Bench) -> None:
    found = bench.results()
    assert list(found) == list(doctor.CHECKS)
    assert [name for name, result in found.items() if result.status == "fail"] == []
    assert found["lock"].status == found["hub"].status == "warn"
    assert found["plan"].status == found["engines"].status == found["weights"].status == "skip"
    assert found["models.toml"].seen == "1 model(s): chat"


def test_a_deployed_project_is_in_order(bench: Bench) -> None:
    variant = msgspec.structs.replace(contexts.variant(), facts=boxes.variant().facts)
    bench.write_lock(variant)
    pull(variant)
    found = bench.results()
    names = ("models.toml", "lock", "plan", "weights", "port", "memory limit")
    assert {name: found[name].status for name in names} == dict.fromkeys(names, "ok")
    assert found["plan"].seen == "chat: llamacpp on cpu"


def test_every_problem_has_a_hint_and_the_json_form_is_a_list_of_results(bench: Bench) -> None:
    results = doctor.run(bench.context())
    assert all(result.hint for result in results if result.status in ("warn", "fail"))
    first = msgspec.json.decode(msgspec.json.encode(results))[0]
    assert list(first) == ["name", "status", "seen", "hint"]


def test_a_check_that_meets_a_closed_door_does_not_end_the_others(bench: Bench) -> None:
    paths.key_file().parent.parent.mkdir(parents=True)
    paths.key_file().parent.write_text("a file where a folder should be")
    found = bench.results()
    assert found["key"].status == "fail"
    assert "Not a directory" in found["key"].seen
    assert found["hub"].status == "warn", "later checks were reached"


def test_no_project_here(tmp_path: Path) -> None:
    found = {result.name: result for result in doctor.run(doctor.context(tmp_path, (), SMALL))}
    assert found["models.toml"].status == "fail"
    assert "models.toml" in (found["models.toml"].hint or "")
    assert found["lock"].status == "skip"
    assert "127.0.0.1:8000 is" in found["port"].seen


def test_a_mistake_in_models_toml_and_a_damaged_lock_are_named(bench: Bench) -> None:
    bench.write_lock(contexts.variant())
    lock = bench.folder / lockfile.FILE
    lock.write_text(lock.read_text().replace("size = 11", "size = 12", 1))
    assert "the lock is damaged" in bench.results()["lock"].seen
    bench.toml.write_text('[[model]]\nname = "chat"\nslot = 3\n')
    mistake = bench.results()["models.toml"]
    assert (mistake.status, mistake.hint) == ("fail", "did you mean `slots`?")


def test_a_lock_of_other_wishes_is_stale(bench: Bench) -> None:
    bench.write_lock(contexts.variant())
    bench.toml.write_text('[[model]]\nname = "chat"\nsource = "another"\n')
    assert "models.toml asks for other models" in bench.results()["lock"].seen


def test_a_model_that_no_engine_can_run(bench: Bench) -> None:
    bench.write_lock(contexts.variant(size=10**15))
    found = bench.results()
    assert found["plan"].status == "fail"
    assert "no engine here can run model `chat`" in found["plan"].seen
    assert found["engines"].status == found["weights"].status == "skip"


def test_a_host_of_another_machine(bench: Bench) -> None:
    bench.toml.write_text('[[model]]\nname = "chat"\n[server]\nhost = "192.0.2.1"\n')
    found = bench.results()["port"]
    assert found.status == "fail"
    assert "[server] host" in (found.hint or "")


# ── a service that runs ────────────────────────────────────────────────────────────────────────────────────────


def service(pid: int, port: int) -> None:
    record = {"process": {"pid": pid, "started": 1, "boot": "x"}, "host": "127.0.0.1", "port": port, "since": 0}
    paths.service_file().parent.mkdir(parents=True)
    paths.service_file().write_bytes(msgspec.json.encode(record))


def test_the_service_is_who_listens_and_what_it_serves_is_the_plan(bench: Bench) -> None:
    bench.write_lock(contexts.variant())
    program = f"import socket; s = socket.create_server(('127.0.0.1', {bench.port})); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        service(child.pid, bench.port)
        found = bench.context()
        child.communicate(b"\n")
    assert found.service_pid == child.pid
    assert isinstance(found.plan, OwnweightsError), "what it serves was written down nowhere"
    assert "nothing has been deployed" in str(found.plan)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_record_of_a_service_that_is_gone_is_no_service(bench: Bench, content: str | None) -> None:
    bench.write_lock(contexts.variant())
    service(1, bench.port)
    if content is not None:
        paths.service_file().write_text(content)
    found = bench.context()
    assert found.service_pid is None
    assert isinstance(found.plan, Plan)
