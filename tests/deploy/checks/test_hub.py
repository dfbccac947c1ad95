"""The Hub, its token and gated repositories, against a local Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.checks import Context, clock
from deploy.checks import hub as checks
from deploy.lockfile import File
from deploy.weights import cache
from tests.deploy.checks.contexts import WEIGHTS, context, lock, model, plan, variant
from tests.hubrepo import Repo
from tests.hubserver import Hub, hub

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub([Repo("org/name", files={"weights.gguf": WEIGHTS}, gated=True)]) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_hub_that_does_not_answer() -> None:
    verdict = checks.reach(context())
    assert verdict.status == "warn"
    assert "127.0.0.1:9" in verdict.seen
    assert (verdict.hint or "").startswith("export HF_ENDPOINT=")


def test_a_hub_that_answers_and_one_that_is_not_to_be_asked(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.reach(context()) == ("ok", f"{server.url} answers", None)
    offline(monkeypatch)
    assert checks.reach(context()).status == "skip"


@pytest.mark.parametrize(
    "endpoint", ["ftp://hub.example", "hub.example", "http://", "http://[::1", "https://u:secret@"]
)
def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, token: str, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    verdict = checks.reach(context())
    assert (verdict.status, verdict.hint) == ("fail", "unset HF_ENDPOINT")
    assert "secret" not in verdict.seen
    assert checks.token(context()).status == "skip", "nothing is wrong with the token"
    assert clock.clock(context()).status == "ok"


# ── the token ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_token() -> None:
    assert checks.token(context()).status == "skip"


def test_a_token_that_the_hub_knows_is_not_shown(server: Hub, token: str) -> None:
    verdict = checks.token(context())
    assert (verdict.status, verdict.seen) == ("ok", f"from HF_TOKEN, which {server.url} knows")
    assert server.requests[-1].token == f"Bearer {token}"


def test_a_token_that_the_hub_does_not_know(server: Hub, token: str) -> None:
    server.fault("/api/whoami-v2", status=401)
    verdict = checks.token(context())
    assert (verdict.status, verdict.hint) == ("fail", "unset HF_TOKEN; hf auth login")
    assert token not in verdict.seen


def test_a_mirror_without_accounts_and_a_hub_out_of_reach_prove_nothing(
    server: Hub, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault("/api/whoami-v2", status=404)
    assert checks.token(context()).seen.endswith("has not confirmed")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert checks.token(context()) == ("ok", "from HF_TOKEN, which http://127.0.0.1:9 has not confirmed", None)


def test_a_token_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a pasted sentence")
    verdict = checks.token(context())
    assert verdict.status == "fail"
    assert "sentence" not in verdict.seen


def test_a_token_that_would_go_in_clear_text(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    verdict = checks.token(context())
    assert (verdict.status, verdict.hint) == ("warn", "export HF_ENDPOINT=https://mirror.example")


@pytest.mark.parametrize("why", ["HF_HUB_DISABLE_IMPLICIT_TOKEN", "user and password", "HF_HUB_OFFLINE"])
def test_a_token_that_is_not_used(server: Hub, token: str, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "HF_HUB_OFFLINE":
        offline(monkeypatch)
    elif why == "user and password":
        monkeypatch.setenv("HF_ENDPOINT", server.url.replace("//", "//user:secret@"))
    else:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    verdict = checks.token(context())
    assert verdict.status == "skip"
    assert why in verdict.seen
    assert "secret" not in verdict.seen


def test_a_token_of_a_file_is_told_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(file))
    assert checks.token_source() is None
    file.write_text(f"{TOKEN}\n")
    assert checks.token_source() == str(file)
    file.write_text("zwei Wörter\n")
    assert checks.token(context()).hint == "hf auth login"


# ── access ─────────────────────────────────────────────────────────────────────────────────────────────────────


def wanted(server: Hub | None = None, *, gated: bool = True) -> Context:
    """A plan that needs the file of ``org/name``, at the commit that the Hub has."""
    commit = server.revisions["org/name"]["main"].commit if server else "c" * 40
    locked = lock(variant(gated=gated, commit=commit))
    return context(lock=locked, plan=plan(model(), of=locked))


def test_access_that_was_given(server: Hub, token: str) -> None:
    assert checks.gated(wanted(server)) == ("ok", "org/name: access was given", None)
    assert server.requests[-1].method == "HEAD", "no byte of it is fetched"


@pytest.mark.parametrize("status", [401, 403])
def test_access_that_was_not_given(server: Hub, status: int) -> None:
    server.fault("/org/name/resolve/*", status=status)
    verdict = checks.gated(wanted(server))
    assert verdict.status == "fail"
    assert verdict.seen == "`org/name` is gated, and access was not given to us"
    assert (verdict.hint or "").startswith("hf auth login")
    assert f"{server.url}/org/name" in (verdict.hint or "")


def test_a_card_that_everybody_may_read_proves_nothing(server: Hub) -> None:
    server.fault("/org/name/resolve/*/weights.gguf", status=403)
    found = wanted(server)
    gated = found.lock.models[0].variants[0]  # type: ignore[union-attr]
    card = File(path="README.md", size=1, sha256="b" * 64)
    locked = lock(msgspec.structs.replace(gated, files=(card, *gated.files)))
    assert checks.gated(context(lock=locked, plan=plan(model(), of=locked))).status == "fail"


def test_a_hub_that_cannot_say(server: Hub, token: str) -> None:
    server.fault("/org/name/*", status=503)
    verdict = checks.gated(wanted(server))
    assert verdict.status == "warn"
    assert "answers 503" in verdict.seen


def test_out_of_reach_a_token_is_all_that_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = checks.gated(wanted())
    assert (verdict.status, verdict.hint) == ("warn", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert checks.gated(wanted()).status == "skip"


def test_nothing_gated_or_nothing_to_fetch(server: Hub) -> None:
    assert checks.gated(wanted(server, gated=False)).status == "skip"
    found = wanted(server)
    gated = found.lock.models[0].variants[0]  # type: ignore[union-attr]
    blob = cache.blob(gated, gated.files[0])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WEIGHTS)
    assert checks.gated(found).status == "skip"
    assert server.requests == []
