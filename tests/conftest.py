"""No test reaches a real Hub, a real cache or the user's own state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy import output

# huggingface_hub reads these once, when it is imported: a stored token must not reach a test's server.
os.environ["HF_TOKEN_PATH"] = os.devnull
os.environ.pop("HF_HUB_OFFLINE", None)

# Port 9 ("discard") of loopback: nothing listens there, so that a connection is refused at once.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our places, the Hugging Face cache and the Hub's address, of this test alone."""
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    # Shared by all tests of a run: what one has fetched need not be fetched again.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "uv"))
    # Said loudly once per process, which here is once per test.
    monkeypatch.setattr(output, "_warned", set())
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
