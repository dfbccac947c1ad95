"""Checks of the engines: are they installed, is none below its security floor, and an Ollama of the user's own."""

from __future__ import annotations

import re
import shutil
import subprocess

from deploy import environment
from deploy.checks import Context, Verdict, fail, floors, ok, skip, together, warn
from deploy.checks.project import UNPLANNED

OLLAMA_S = 5.0
OLLAMA_VERSIONS = (re.compile(r"client version is (\S+)"), re.compile(r"ollama version is (\S+)"))
"""The program's own, where it is told apart from that of the server which runs."""
INSTALL_OLLAMA = "curl -fsSL https://ollama.com/install.sh | sh"


def installed(context: Context) -> Verdict:
    """A missing environment is made by the next deploy."""
    planned = {(model.engine, model.device) for model in context.models}
    if not planned:
        return skip(UNPLANNED)
    wanted = [engine for engine in context.engines if (engine.name, engine.device) in planned]
    for engine in wanted:
        if environment.describe(engine) is None:
            return warn(f"{engine.name} {engine.version} is not installed", "ownweights deploy  # installs it")
    return ok(", ".join(f"{engine.name} {engine.version}" for engine in wanted) + " installed")


def versions(context: Context) -> Verdict:
    """Of what is planned, or runs; without a plan, of every engine that could be."""
    ours = {(engine.name, engine.version) for engine in context.engines}
    used = {(model.engine, model.engine_version) for model in context.models} or ours
    if not used:
        return skip("there is no engine")
    fine = ok(", ".join(" ".join(engine) for engine in sorted(used)) + ": none is below its floor")
    return together((_judge(name, version, ours) for name, version in sorted(used)), fine)


def _judge(name: str, version: str, ours: set[tuple[str, str]]) -> Verdict:
    floor = floors.below(name, version)
    if floor is None:
        return ok(f"{name} {version}")
    newer = any(known == name and floors.below(name, pinned) is None for known, pinned in ours)
    return fail(
        f"{name} {version} is older than {floor.oldest}: {floor.because}",
        "ownweights deploy  # the pinned one is newer" if newer else "git pull && make deploy  # pins a newer one",
    )


def ollama(_: Context) -> Verdict:
    program = shutil.which("ollama")
    if program is None:
        return skip("no `ollama` on PATH")
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=OLLAMA_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return judge_ollama(program, "")
    return judge_ollama(program, told.stdout + told.stderr)


def judge_ollama(program: str, told: str) -> Verdict:
    """``told`` is what `ollama --version` prints, on both of its outputs."""
    match = next((found for pattern in OLLAMA_VERSIONS if (found := pattern.search(told))), None)
    if match is None:
        return warn(f"`{program}` does not tell its version: it will not be used", INSTALL_OLLAMA)
    floor = floors.below("ollama", match[1])
    if floor:
        return warn(
            f"`{program}` is {match[1]}, older than {floor.oldest}, and will not be used: {floor.because}",
            INSTALL_OLLAMA,
        )
    return ok(f"`{program}` is {match[1]}")
