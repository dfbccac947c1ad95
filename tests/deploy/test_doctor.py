"""The doctor: every check made to answer each of its ways, on real files, sockets and recorded boxes."""

from __future__ import annotations

import hashlib
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from deploy import detection, doctor, environment, lockfile, paths, plan, prepare, project
from deploy.checks import Context, Verdict, box, gpu
from deploy.config import EngineWish
from deploy.engine import Device
from deploy.environment import RECORD, Environment
from deploy.errors import OwnweightsError
from deploy.hardware import Hardware
from deploy.lockfile import File, Lock, Variant, inputs_digest
from deploy.neighbours import Neighbour
from deploy.soundness import tree_digest
from deploy.weights import cache, verify
from tests.deploy import boxes
from tests.deploy.boxes import GB, StubEngine
from tests.hubserver import hub

RECORDED = Path(__file__).parents[1] / "fixtures" / "hardware"
WEIGHTS = b"the weights"


class Stub(StubEngine):
    """With a requirement set on disk, as environments need one."""

    def __init__(self, folder: Path, name: str, device: Device, kind: str, requirements: str = "") -> None:
        super().__init__(name, device, kind)
        self.requirements = folder / f"{name}-{device}.txt"
        self.requirements.write_text(requirements)


class Bench:
    """A project in a folder, with a lock for a file of eleven bytes and one engine per device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toml = folder / "models.toml"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.toml.write_text(f'[[model]]\nname = "chat"\n[server]\nport = {self.port}\n')
        cuda = "nvidia-cuda-runtime==13.0.96 ; sys_platform == 'linux' \\\n"
        self.gpu_engine = Stub(folder, "vllm", "gpu", "safetensors", f"torch==2.14.0\n{cuda}")
        self.engine = Stub(folder, "llamacpp", "cpu", "gguf")
        self.engines = (self.gpu_engine, self.engine)
        files = (File(path="weights.gguf", size=len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).hexdigest()),)
        self.variant: Variant = msgspec.structs.replace(
            boxes.variant(), files=files, size=len(WEIGHTS), tree=tree_digest(files)
        )

    @property
    def lock_path(self) -> Path:
        return self.folder / lockfile.FILE

    def write_lock(self, variant: Variant | None = None) -> Lock:
        pins = tuple(project.engine_pin(engine) for engine in self.engines)
        lock = msgspec.structs.replace(
            boxes.lock(variant or self.variant), inputs=inputs_digest(project.find(self.folder).config), engines=pins
        )
        self.lock_path.write_text(lockfile.write(lock))
        return lock

    def pull(self) -> Path:
        blob = cache.blob(self.variant, self.variant.files[0])
        blob.parent.mkdir(parents=True)
        blob.write_bytes(WEIGHTS)
        cache.link(self.variant)
        assert not verify.check(self.variant)
        return blob

    def context(self) -> Context:
        return doctor.context(self.folder, self.engines, recorded("laptop-8gb"))

    def results(self) -> dict[str, doctor.Result]:
        return {result.name: result for result in doctor.run(self.context())}

    def ask(self, name: str, **parts: object) -> Verdict:
        """One check's verdict, with parts of the context replaced."""
        return doctor.CHECKS[name](replace(self.context(), **parts))  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "project").mkdir()
    return Bench(tmp_path / "project")


def recorded(name: str) -> Hardware:
    return detection.load(RECORDED / f"{name}.json")


def without_gpu(bench: Bench) -> object:
    config = project.find(bench.folder).config
    return msgspec.structs.replace(config, engines=EngineWish(gpu="none"))


# ── the whole ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_project_has_work_to_do_but_nothing_that_fails(bench: Bench) -> None:
    found = bench.results()
    assert list(found) == list(doctor.CHECKS)
    assert [name for name, result in found.items() if result.status == "fail"] == []
    assert found["lock"].status == found["hub"].status == "warn"
    assert found["plan"].status == found["engines"].status == found["weights"].status == "skip"
    assert found["models.toml"].seen == "1 model(s): chat"


def test_a_deployed_project_is_in_order(bench: Bench) -> None:
    bench.write_lock()
    bench.pull()
    found = bench.results()
    names = ("models.toml", "lock", "plan", "weights", "disk")
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
    assert found["hub"].status == "warn", "the last check was reached"


# ── the chain ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_project_here(tmp_path: Path) -> None:
    found = {result.name: result for result in doctor.run(doctor.context(tmp_path, ()))}
    assert found["models.toml"].status == "fail"
    assert found["models.toml"].hint is not None
    assert "models.toml" in found["models.toml"].hint
    assert found["lock"].status == "skip"
    assert found["port"].seen == "127.0.0.1:8000 is free" or "8000 is held" in found["port"].seen


def test_a_mistake_in_models_toml_is_named_with_its_way_out(bench: Bench) -> None:
    bench.toml.write_text('[[model]]\nname = "chat"\nslot = 3\n')
    verdict = bench.ask("models.toml")
    assert verdict.status == "fail"
    assert "unknown key `slot`" in verdict.seen
    assert verdict.hint == "did you mean `slots`?"


def test_a_damaged_lock_fails_and_a_stale_one_warns(bench: Bench) -> None:
    bench.write_lock()
    assert bench.ask("lock").status == "ok"
    bench.toml.write_text('[[model]]\nname = "chat"\nsource = "another"\n')
    verdict = bench.ask("lock")
    assert (verdict.status, verdict.hint) == ("warn", "ownweights lock")
    assert "models.toml asks for other models" in verdict.seen
    bench.lock_path.write_text(bench.lock_path.read_text().replace("size = 11", "size = 12", 1))
    verdict = bench.ask("lock")
    assert verdict.status == "fail"
    assert "the lock is damaged" in verdict.seen


def test_a_model_that_no_engine_can_run(bench: Bench) -> None:
    bench.write_lock(boxes.variant(size=10**16))
    verdict = bench.ask("plan")
    assert verdict.status == "fail"
    assert "no engine here can run model `chat`" in verdict.seen
    assert bench.ask("engines").status == bench.ask("weights").status == "skip"


def test_an_engine_is_missing_there_or_without_its_python(bench: Bench) -> None:
    bench.write_lock()
    verdict = bench.ask("engines")
    assert (verdict.status, verdict.seen) == ("warn", "llamacpp 1.0 is not installed")
    home = environment.folder(bench.engine)
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(sys.executable)
    record = Environment(
        engine="llamacpp", device="cpu", version="1.0", path=str(home), packages=1, size_bytes=1, install_s=1.0
    )
    (home / RECORD).write_bytes(msgspec.json.encode(record))
    assert bench.ask("engines") == Verdict("ok", "llamacpp 1.0 installed")
    (home / "bin" / "python").unlink()
    (home / "bin" / "python").symlink_to("/nowhere/python3")
    assert bench.ask("engines").status == "warn"


def test_weights_missing_right_changed_and_joined_by_a_stranger(bench: Bench) -> None:
    bench.write_lock()
    verdict = bench.ask("weights")
    assert (verdict.status, verdict.seen, verdict.hint) == ("warn", "missing: weights.gguf", "ownweights pull")
    blob = bench.pull()
    assert bench.ask("weights").status == "ok"
    stray = cache.snapshot(bench.variant) / "code.py"
    stray.write_text("print()")
    verdict = bench.ask("weights")
    assert (verdict.status, verdict.hint) == ("fail", f"rm -r '{stray}'")
    stray.unlink()
    blob.write_bytes(b"The weights")
    verdict = bench.ask("weights")
    assert (verdict.status, verdict.seen, verdict.hint) == ("warn", "unproved: weights.gguf", "ownweights verify")
    blob.write_bytes(b"The other weights")
    verdict = bench.ask("weights")
    assert (verdict.status, verdict.hint) == ("fail", "ownweights pull")
    assert "`weights.gguf` changed" in verdict.seen


def test_disk_space_for_what_is_missing(bench: Bench) -> None:
    bench.write_lock()
    full = msgspec.structs.replace(bench.context().hardware, disk_free_bytes=10)
    assert bench.ask("disk").status == "ok"
    verdict = bench.ask("disk", hardware=full)
    assert (verdict.status, verdict.seen) == ("fail", "10 B free where weights lie, 11 B to fetch")
    bench.pull()
    assert bench.ask("disk", hardware=full).status == "ok"
    unknown = msgspec.structs.replace(full, disk_free_bytes=None)
    assert bench.ask("disk", hardware=unknown).status == "skip"


# ── the box ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 14), "ok"), ((3, 15), "warn"), ((4, 0), "warn")]
)
def test_python_versions(version: tuple[int, int], status: str) -> None:
    assert box.judge_python(version).status == status


def distribution(site: Path, name: str, package: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{package}\n")


def test_another_distribution_with_one_of_our_packages_is_named(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    distribution(tmp_path / "site", "ownweights", "benchmarks")
    assert bench.ask("packages").status == "ok"
    distribution(tmp_path / "site", "spurious", "benchmarks")
    verdict = bench.ask("packages")
    assert (verdict.status, verdict.seen) == ("fail", "package `benchmarks` is also installed by: spurious")
    assert verdict.hint is not None
    assert f"{sys.executable} -m pip uninstall spurious" in verdict.hint


def test_a_folder_on_the_path_that_hides_one_of_our_packages(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "benchmarks").mkdir(parents=True)
    (tmp_path / "elsewhere" / "benchmarks" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    verdict = bench.ask("packages")
    assert verdict.status == "fail"
    assert str(tmp_path / "elsewhere") in verdict.seen


def test_little_memory_names_who_holds_it(bench: Bench) -> None:
    memory = boxes.box(free_bytes=10 * GB).memory
    low = replace_memory(bench, msgspec.structs.replace(memory, available_bytes=GB))
    verdict = bench.ask("memory", hardware=low)
    assert verdict.status == "warn"
    assert verdict.seen.startswith("1.0 GB of 10.0 GB free; pid ")
    assert bench.ask("memory", hardware=replace_memory(bench, memory)).status == "ok"
    unknown = msgspec.structs.replace(memory, available_bytes=None)
    assert bench.ask("memory", hardware=replace_memory(bench, unknown)).status == "skip"


def replace_memory(bench: Bench, memory: object) -> Hardware:
    return msgspec.structs.replace(bench.context().hardware, memory=memory)


def test_a_neighbour_that_takes_a_core_is_named(bench: Bench) -> None:
    context = replace(bench.context(), hardware=boxes.box(cores=2))
    stranger = Neighbour(pid=2**22 + 1, name="ffmpeg", started=0.0, cpu_s=9.0, memory_bytes=1)
    verdict = box.judge_cores(context, ((stranger, 0.97),))
    assert (verdict.status, verdict.seen) == ("warn", f"pid {stranger.pid} (ffmpeg) takes 1.0 of 2 usable cores")
    assert box.judge_cores(context, ()).status == "ok"


def test_our_own_service_is_no_neighbour(bench: Bench) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ours = Neighbour(pid=child.pid, name="python", started=0.0, cpu_s=9.0, memory_bytes=1)
        context = replace(bench.context(), service_pid=child.pid)
        assert box.judge_cores(context, ((ours, 2.0),)).status == "ok"
        child.communicate(b"\n")


@pytest.fixture
def held(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """Another process on the project's port."""
    program = f"import socket; s = socket.create_server(('127.0.0.1', {bench.port})); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.communicate(b"\n")


def service(pid: int, port: int) -> None:
    record = {"process": {"pid": pid, "started": 1, "boot": "x"}, "host": "127.0.0.1", "port": port, "since": 0}
    paths.service_file().parent.mkdir(parents=True)
    paths.service_file().write_bytes(msgspec.json.encode(record))


def test_a_port_held_by_a_stranger_fails_with_its_name(bench: Bench, held: subprocess.Popen[bytes]) -> None:
    verdict = bench.ask("port")
    assert verdict.status == "fail"
    assert f"127.0.0.1:{bench.port} is held by pid {held.pid} (" in verdict.seen
    assert verdict.hint is not None
    assert verdict.hint.startswith(f"kill {held.pid}")


def test_a_port_held_by_our_own_service_is_in_order(bench: Bench, held: subprocess.Popen[bytes]) -> None:
    service(held.pid, bench.port)
    assert bench.context().service_pid == held.pid
    verdict = bench.ask("port")
    assert verdict.status == "ok"
    assert "our own service" in verdict.seen


def test_a_record_of_a_service_that_is_gone_is_no_service(bench: Bench, held: subprocess.Popen[bytes]) -> None:
    service(1, bench.port)
    assert bench.context().service_pid is None
    assert bench.ask("port").status == "fail"
    paths.service_file().write_text("{")
    assert bench.context().service_pid is None


def test_a_running_service_without_its_record_of_what_it_serves(bench: Bench, held: subprocess.Popen[bytes]) -> None:
    bench.write_lock()
    service(held.pid, bench.port)
    found = bench.context().plan
    assert isinstance(found, OwnweightsError)
    assert "nothing has been deployed" in str(found)


def test_a_host_of_another_machine(bench: Bench) -> None:
    bench.toml.write_text('[[model]]\nname = "chat"\n[server]\nhost = "192.0.2.1"\n')
    verdict = bench.results()["port"]
    assert verdict.status == "fail"
    assert verdict.hint is not None
    assert "[server] host" in verdict.hint


def test_the_limit_of_open_files(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        verdict = bench.ask("open files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        enough = bench.ask("open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (verdict.status, verdict.hint) == ("warn", "ulimit -n 65536")
    assert enough.status == "ok"


@pytest.mark.parametrize(
    ("variable", "name"), [("OWNWEIGHTS_HOME", "data"), ("HF_HUB_CACHE", "weights")], ids=["ours", "weights"]
)
def test_a_folder_that_cannot_be_written(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    assert bench.ask("folders").status == "ok"
    assert not paths.data_dir().exists(), "looking leaves nothing behind"
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "inside"))
    verdict = bench.ask("folders")
    assert verdict.status == "fail"
    assert f"the {name} folder" in verdict.seen
    assert verdict.hint == f"export {variable}=/a/writable/folder"


@pytest.mark.parametrize(("mode", "status"), [(0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")])
def test_a_key_that_others_may_read(bench: Bench, mode: int, status: str) -> None:
    assert bench.ask("key").status == "skip"
    paths.key_file().parent.mkdir(parents=True)
    paths.key_file().write_text("secret")
    paths.key_file().chmod(mode)
    verdict = bench.ask("key")
    assert verdict.status == status
    assert "secret" not in verdict.seen
    if status == "fail":
        assert verdict.hint == f"chmod 600 {paths.key_file()}"


def test_a_hub_that_answers_and_one_that_does_not(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = bench.ask("hub")
    assert verdict.status == "warn"
    assert "127.0.0.1:9" in verdict.seen
    with hub([]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert bench.ask("hub") == Verdict("ok", f"{server.url} answers")


# ── GPUs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "check", "status", "says"),
    [
        ("laptop-8gb", "gpu", "skip", "no NVIDIA GPU"),
        ("laptop-8gb", "gpu driver", "skip", "no GPU"),
        ("laptop-8gb", "gpu memory", "skip", "no GPU"),
        ("nvml-failing", "gpu", "fail", "version mismatch"),
        ("nvml-failing", "gpu driver", "skip", "no GPU"),
        ("h100", "gpu", "ok", "GPU 0 (NVIDIA H100 80GB HBM3), capability 9.0"),
        ("h100", "gpu driver", "ok", "runs CUDA up to 13, the engine is built for 13"),
        ("h100", "gpu memory", "ok", "no other process"),
        ("rtx4090", "gpu memory", "ok", "no other process"),
        ("old-driver", "gpu driver", "fail", "driver 550.127.05 runs CUDA up to 12, the engine is built for CUDA 13"),
        ("h200-30gb-used", "gpu memory", "warn", "30.0 GB of 150.8 GB used by pid 4242"),
    ],
)
def test_recorded_boxes(bench: Bench, name: str, check: str, status: str, says: str) -> None:
    verdict = bench.ask(check, hardware=recorded(name))
    assert verdict.status == status
    assert says in verdict.seen
    assert (verdict.hint is not None) is (status in ("warn", "fail"))


@pytest.mark.parametrize("check", ["gpu", "gpu driver", "gpu memory"])
@pytest.mark.parametrize("name", ["nvml-failing", "old-driver", "h200-30gb-used"])
def test_who_has_accepted_the_cpu_is_not_bothered(bench: Bench, name: str, check: str) -> None:
    assert bench.ask(check, hardware=recorded(name), config=without_gpu(bench)).status == "skip"


def test_a_gpu_split_by_mig_is_told(bench: Bench) -> None:
    h100 = recorded("h100")
    split = msgspec.structs.replace(h100, gpus=(msgspec.structs.replace(h100.gpus[0], mig=True),))
    verdict = bench.ask("gpu", hardware=split)
    assert (verdict.status, verdict.hint) == ("warn", "sudo nvidia-smi -i 0 -mig 0")


def test_memory_used_by_processes_that_cannot_be_seen(bench: Bench) -> None:
    used = boxes.box(gpus=(boxes.gpu(free_bytes=40 * GB),))
    verdict = bench.ask("gpu memory", hardware=used)
    assert verdict.status == "warn"
    assert "40.0 GB of 80.0 GB used by processes that cannot be seen" in verdict.seen


def test_gpu_memory_that_our_own_engine_holds_is_in_order(bench: Bench) -> None:
    h200 = recorded("h200-30gb-used")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = msgspec.structs.replace(h200.gpus[0].processes[0], pid=child.pid)
        ours = msgspec.structs.replace(h200, gpus=(msgspec.structs.replace(h200.gpus[0], processes=(process,)),))
        assert bench.ask("gpu memory", hardware=ours, service_pid=child.pid).status == "ok"
        assert bench.ask("gpu memory", hardware=ours).status == "warn"
        child.communicate(b"\n")


def test_gpu_memory_that_is_unknown_is_no_alarm(bench: Bench) -> None:
    unknown = msgspec.structs.replace(boxes.gpu(), memory_free_bytes=None)
    assert bench.ask("gpu memory", hardware=boxes.box(gpus=(unknown,))).status == "ok"


@pytest.mark.parametrize("part", ["cuda_major", "engines"])
def test_an_unknown_cuda_version_is_not_judged(bench: Bench, part: str) -> None:
    hardware = recorded("old-driver")
    if part == "engines":
        assert bench.ask("gpu driver", hardware=hardware, engines=(bench.engine,)).status == "skip"
    else:
        unknown = msgspec.structs.replace(hardware, cuda_major=None)
        assert bench.ask("gpu driver", hardware=unknown).status == "skip"


def test_shared_memory_matters_to_an_engine_on_gpus_only(bench: Bench, tmp_path: Path) -> None:
    bench.write_lock()
    assert bench.ask("shared memory").status == "skip"
    bench.write_lock(boxes.variant(kind="safetensors", precision="bf16"))
    lock = lockfile.read(bench.lock_path)
    on_gpu = plan.make(project.find(bench.folder).config, lock, recorded("h100"), bench.engines, prepare.layout())
    context = replace(bench.context(), plan=on_gpu)
    assert gpu.shared_memory(context, tmp_path).status == "ok"
    verdict = gpu.shared_memory(context, Path("/proc"))
    assert (verdict.status, verdict.seen) == ("warn", "`/proc` holds 0 B, engines on several GPUs need 1.1 GB")
