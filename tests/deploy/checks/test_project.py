"""The chain: a lock, a plan and weights on a real disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deploy.checks import Context, project
from deploy.errors import ConfigError, LockError, PlanError
from deploy.plan import Unplanned
from deploy.weights import cache, verify
from tests.deploy.checks.contexts import WEIGHTS, box, context, lock, model, plan, variant


def planned(**parts: object) -> Context:
    return context(plan=plan(model()), **parts)


def test_what_models_toml_says_and_what_is_wrong_with_it() -> None:
    assert project.models_toml(context()).seen == "1 model(s): chat"
    verdict = project.models_toml(context(config=ConfigError("unknown key `slot`", hint="did you mean `slots`?")))
    assert (verdict.status, verdict.seen, verdict.hint) == ("fail", "unknown key `slot`", "did you mean `slots`?")


def test_the_lock_current_missing_stale_damaged_and_without_anything_to_fit() -> None:
    assert project.lock(context()).status == "ok"
    assert project.lock(context(lock=None)).status == "warn"
    stale = project.lock(context(stale=("models.toml asks for other models",)))
    assert (stale.status, stale.hint) == ("warn", "ownweights lock")
    assert "asks for other models" in stale.seen
    assert project.lock(context(lock=LockError("the lock is damaged", hint="restore it"))).hint == "restore it"
    assert project.lock(context(config=ConfigError("no models.toml here"))).status == "skip"


def test_a_plan_that_fits_one_with_limits_and_one_that_leaves_a_model_out() -> None:
    assert project.plan(planned()).seen == "chat: llamacpp on cpu"
    limited = project.plan(context(plan=plan(model(limits=("a context of 4096 of 32768 tokens",)))))
    assert (limited.status, limited.seen) == ("warn", "chat: a context of 4096 of 32768 tokens")
    assert limited.hint is not None
    assert limited.hint.startswith("ownweights plan")
    missing = Unplanned(model="large", reason="no engine here can run model `large`", hint="80 GB more", rejected=())
    left_out = project.plan(context(plan=plan(model(limits=("short",)), unplanned=(missing,))))
    assert left_out.status == "fail"
    assert left_out.seen == "no engine here can run model `large`; chat: short"
    assert left_out.hint is not None
    assert left_out.hint.splitlines()[0] == "80 GB more"


def test_no_plan_and_one_that_could_not_be_made() -> None:
    assert project.plan(context()).status == "skip"
    verdict = project.plan(context(plan=PlanError("contradiction", hint="change it")))
    assert (verdict.status, verdict.seen, verdict.hint) == ("fail", "contradiction", "change it")


def pull() -> Path:
    blob = cache.blob(variant(), variant().files[0])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WEIGHTS)
    cache.link(variant())
    assert not verify.check(variant())
    return blob


def test_weights_missing_right_changed_and_joined_by_a_stranger() -> None:
    verdict = project.weights(planned())
    assert (verdict.status, verdict.seen, verdict.hint) == ("warn", "missing: weights.gguf", "ownweights pull")
    blob = pull()
    assert project.weights(planned()).status == "ok"
    stray = cache.snapshot(variant()) / "code.py"
    stray.write_text("print()")
    verdict = project.weights(planned())
    assert (verdict.status, verdict.hint) == ("fail", f"rm -r '{stray}'")
    stray.unlink()
    blob.write_bytes(b"The weights")
    verdict = project.weights(planned())
    assert (verdict.status, verdict.seen, verdict.hint) == ("warn", "unproved: weights.gguf", "ownweights verify")
    blob.write_bytes(b"The other weights")
    verdict = project.weights(planned())
    assert (verdict.status, verdict.hint) == ("fail", "ownweights pull")
    assert "`weights.gguf` changed" in verdict.seen


@pytest.mark.parametrize("other", [None, lock(variant(repo="org/other"))])
def test_weights_of_no_plan_or_of_another_locks_plan_are_not_judged(other: object) -> None:
    found = context() if other is None else planned(lock=other)
    assert project.weights(found).status == "skip"


def test_disk_space_for_what_is_missing() -> None:
    assert project.disk(planned()).status == "ok"
    full = box(disk_free_bytes=10)
    verdict = project.disk(planned(hardware=full))
    assert verdict.status == "fail"
    assert verdict.seen.startswith("10 B free where weights lie, 11 B to fetch")
    pull()
    assert project.disk(planned(hardware=full)).status == "ok"
    assert project.disk(planned(hardware=box(disk_free_bytes=None))).status == "skip"
    assert project.disk(context(lock=None)).status == "skip"


def test_disk_space_tells_what_every_locked_variant_would_take() -> None:
    larger = msgspec.structs.replace(variant(size=1000, repo="org/larger"), precision="Q8_0")
    both = lock(variant(), larger)
    verdict = project.disk(context(lock=both, plan=plan(model(), of=both), hardware=box(disk_free_bytes=500)))
    assert verdict.status == "ok", "what is not planned need not fit"
    assert verdict.seen.endswith("11 B to fetch (1 kB for every locked variant)")
