"""Checks along the chain: models.toml, lock, plan, weights, disk."""

from __future__ import annotations

from collections.abc import Iterator

from deploy import output, prepare
from deploy.checks import Context, Verdict, fail, ok, skip, together, warn
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
    fine = ", ".join(f"{model.model}: {model.engine} on {model.device}" for model in context.plan.models)
    return together(_shortcomings(context.plan), ok(fine))


def _shortcomings(plan: Plan) -> Iterator[Verdict]:
    for missing in plan.unplanned:
        yield fail(missing.reason, missing.hint)
    for model in plan.models:
        if model.verdict != "fits":
            yield warn(f"{model.model}: {'; '.join(model.limits)}", "ownweights plan  # says what would change it")


def weights(context: Context) -> Verdict:
    """By size, time and inode against the last full hash, without reading. What is missing comes with a deploy."""
    from deploy.weights import cache, verify

    variants = planned(context)
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
    """What the plan still has to fetch must fit; what all locked variants would take is said beside it."""
    from deploy.weights import room

    free = context.hardware.now.disk_free_bytes
    if free is None:
        return skip("free disk space is unknown")
    seen = f"{output.size(free)} free where weights lie"
    if not isinstance(context.lock, Lock):
        return skip(f"{seen}, {UNPLANNED}")
    everything = [variant for model in context.lock.models for variant in model.variants]
    rest, missing = (sum(room.unseen(variants).values()) for variants in (everything, planned(context)))
    seen = f"{seen}, {output.size(missing)} to fetch ({output.size(rest)} for every locked variant)"
    if missing > free:
        return fail(seen, "ownweights gc  # or: export HF_HOME=/a/larger/disk")
    return ok(seen)


def planned(context: Context) -> list[Variant]:
    """The locked variants that the plan uses. A running service's plan may be of an older lock."""
    if (
        not isinstance(context.plan, Plan)
        or not isinstance(context.lock, Lock)
        or context.plan.lock != context.lock.digest
    ):
        return []
    return [prepare.variant_of(context.lock, model) for model in context.plan.models]
