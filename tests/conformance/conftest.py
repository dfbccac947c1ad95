"""Every test here runs once per target: an engine with a model, deployed by the product, one after another.

``ENGINES`` names the engines, ``llamacpp`` where it is not set: each runs with the tiny checkpoint, llama.cpp with
the real Qwen 0.5B too. ``vllm-derived`` stands for vLLM with the real one in bf16, made from the GGUF.
``OWNWEIGHTS_TEST_HOME`` keeps what was installed and fetched for the next run; else it goes with this one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import endpoint as endpoints
from tests.conformance.endpoint import TARGETS, Endpoint, World

OF_ENGINE = {
    "llamacpp": ("llamacpp-tiny", "llamacpp-real"),
    "vllm": ("vllm-tiny",),
    "vllm-derived": ("vllm-derived",),
}
# The first test of a target waits for its deployment: an engine's install and 475 MB of weights.
WAIT = pytest.mark.timeout(900)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "endpoint" not in metafunc.fixturenames:
        return
    only_real = metafunc.definition.get_closest_marker("real") is not None
    names = [name for engine in _engines() for name in OF_ENGINE[engine] if TARGETS[name].real or not only_real]
    marks = {name: [WAIT, pytest.mark.real] if TARGETS[name].real else [WAIT] for name in names}
    # Session scope makes pytest group the tests by target, so that never two engines run at once.
    params = [pytest.param(name, id=name, marks=marks[name]) for name in names]
    metafunc.parametrize("endpoint", params, indirect=True, scope="session")


def _engines() -> list[str]:
    wanted = os.environ.get("ENGINES", "llamacpp").split()
    if unknown := set(wanted) - set(OF_ENGINE):
        raise pytest.UsageError(f"ENGINES names {', '.join(sorted(unknown))}; known: {', '.join(OF_ENGINE)}")
    return wanted


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if kept := os.environ.get("OWNWEIGHTS_TEST_HOME"):
        yield World(Path(kept).absolute())
        return
    home = tmp_path_factory.mktemp("world")
    yield World(home)
    # pytest keeps the folders of three runs, and this one holds gigabytes.
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest, world: World) -> Iterator[Endpoint]:
    with endpoints.deployed(world, request.param) as running:
        yield running
