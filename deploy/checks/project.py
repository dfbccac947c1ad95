"""Checks along the chain: models.toml, lock, plan, engine environment, weights, disk."""

from __future__ import annotations

from deploy import environment, output, prepare
from deploy.checks import Context, Verdict, fail, ok, skip, warn
from deploy.errors import OwnweightsError
from deploy.lockfile import Lock, Variant
from deploy.plan import Plan

UNPLANNED = "nothing is planned for this lock"


def models_toml(context: Context) -> Verdict:
    if isinstance(context.config, OwnweightsError):
        return fail(str(context.config), context.config.hint)
    return ok(f"{len(context.config.model)} model(s): {', '.join(model.name for model in context.config.model)}")


def lock(context: Context) -> Verdict:
    if isinstance(context.config, OwnweightsError):
        return skip("nothing to compare it with")
    if context.lock is None:
        return warn("nothing is locked yet", "ownweights lock  # or deploy, which does it too")
    if isinstance(context.lock, OwnweightsError):
        return fail(str(context.lock), context.lock.hint)
    if context.stale:
        return warn(f"stale: {'; '.join(context.stale)}", "ownweights lock")
    return ok(f"current, sha256 {context.lock.digest[:12]}")


def plan(context: Context) -> Verdict:
    if context.plan is None:
        return skip("without a lock there is no plan")
    if isinstance(context.plan, OwnweightsError):
        return fail(str(context.plan), context.plan.hint)
    return ok(", ".join(f"{model.model}: {model.engine} on {model.device}" for model in context.plan.models))


def engines(context: Context) -> Verdict:
    """A missing environment is made by the next deploy."""
    if not isinstance(context.plan, Plan):
        return skip(UNPLANNED)
    planned = {(model.engine, model.device) for model in context.plan.models}
    wanted = [engine for engine in context.engines if (engine.name, engine.device) in planned]
    for engine in wanted:
        if environment.describe(engine) is None:
            return warn(f"{engine.name} {engine.version} is not installed", "ownweights deploy  # installs it")
    return ok(", ".join(f"{engine.name} {engine.version}" for engine in wanted) + " installed")


def weights(context: Context) -> Verdict:
    """By size, time and inode against the last full hash, without reading. What is missing comes with a deploy."""
    from deploy.weights import cache, verify

    variants = _planned(context)
    if not variants:
        return skip(UNPLANNED)
    inspected = verify.inspect(variants, "quick")
    findings = [(variant, finding) for variant, found in zip(variants, inspected, strict=True) for finding in found]
    for variant, finding in findings:
        if finding.problem == "extra":
            return fail(str(finding), f"rm -r '{cache.snapshot(variant) / finding.path}'")
        if finding.problem == "unreadable":
            return fail(str(finding), f"ls -lL '{cache.snapshot(variant) / finding.path}'  # whose is it?")
        if finding.problem not in ("missing", "unproved"):
            return fail(str(finding), "ownweights pull")
    for problem, command in (("missing", "ownweights pull"), ("unproved", "ownweights verify")):
        if paths := [finding.path for _, finding in findings if finding.problem == problem]:
            return warn(f"{problem}: {', '.join(paths)}", command)
    return ok("on disk as locked")


def disk(context: Context) -> Verdict:
    from deploy.weights import room

    free = context.hardware.disk_free_bytes
    if free is None:
        return skip("free disk space is unknown")
    variants = _planned(context)
    if not variants:
        return skip(f"{output.size(free)} free where weights lie, {UNPLANNED}")
    missing = sum(room.unseen(variants).values())
    seen = f"{output.size(free)} free where weights lie, {output.size(missing)} to fetch"
    if missing > free:
        return fail(seen, "ownweights gc  # or: export HF_HOME=/a/larger/disk")
    return ok(seen)


def _planned(context: Context) -> list[Variant]:
    """The locked variants that the plan uses. A running service's plan may be of an older lock."""
    if (
        not isinstance(context.plan, Plan)
        or not isinstance(context.lock, Lock)
        or context.plan.lock != context.lock.digest
    ):
        return []
    return [prepare.variant_of(context.lock, model) for model in context.plan.models]
