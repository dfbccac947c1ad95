"""uv, the package installer, as a child process: with pip's own index settings, its failures told apart.

Whoever set up pip for a mirror, a proxy or a certificate has said all there is to say; uv reads none of pip's
settings, so they are handed on in uv's words. What the user set for uv itself wins.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import IO, NamedTuple

from deploy import bound, output, paths, wheelhouse
from deploy.errors import InstallError
from deploy.wheelhouse import Stock

KEPT_LINES = 200
LARGE = re.compile(r"Downloading (\S+ \((\d{3,}\.\d+MiB|[\d.]+GiB)\))")

SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
"""pip's option → the environment variable by which uv knows the same. For ``no-index`` it has none."""
YES = ("1", "true", "t", "yes", "y", "on")


class Cause(NamedTuple):
    """``pattern`` in what uv printed means ``message``."""

    pattern: str
    message: str
    hint: str


CAUSES = (
    Cause(
        r"No space left on device|Disk quota exceeded",
        "the disk is full",
        "df -h  # then make room, or move: OWNWEIGHTS_HOME for environments, UV_CACHE_DIR for uv's cache",
    ),
    Cause(
        r"Hash mismatch",
        "the package index served other bytes than the pinned ones",
        "uv cache clean  # then again; if it stays, the mirror is damaged or lies: report it to whoever runs it",
    ),
    Cause(
        r"Read-only file system|Permission denied",
        "a folder cannot be written",
        "export OWNWEIGHTS_HOME=/a/folder/with/room UV_CACHE_DIR=/another  # both must be writable",
    ),
    Cause(
        r"(?i)dns error|failed to lookup|connect error|connection (refused|reset|closed)|timed? ?out|sending request"
        r"|certificate|unreachable|HTTP status|Failed to fetch",
        "the package index cannot be reached",
        "pip config debug  # shows the index, proxy and certificate in use; then run the same command again",
    ),
    Cause(
        r"(?i)not found in the (package registry|provided package locations)|no version of|no wheels|no usable wheels",
        "the package index lacks a pinned package, or a build of it for this machine",
        "pip config debug  # shows which index is asked: a full mirror is needed",
    ),
)


def create(home: Path, python: str) -> None:
    """An empty environment of ``python``, which may be renamed. Raises InstallError."""
    _uv(["venv", "--no-project", "--relocatable", "--python", python, str(home)], environment(os.environ, {}))


def install(home: Path, requirements: Path) -> None:
    """The requirement set, every package of it with its hash and as a wheel. Raises InstallError.

    What the wheelhouse holds of it is not fetched; where that is all of it, no network is touched.
    """
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--python", str(home / "bin" / "python")]
    pip = _pip_settings()
    env = environment(os.environ, pip)
    more, links = sources(env.get("UV_FIND_LINKS"), pip, wheelhouse.stock(requirements), paths.wheelhouse_dir())
    _uv(["pip", "install", *options, *more, "-r", str(requirements)], env | links)


def sources(links: str | None, pip: dict[str, str], stock: Stock, house: Path) -> tuple[list[str], dict[str, str]]:
    """Where uv is to look: options and environment. ``links`` is what it would look through anyway. Pure."""
    if stock.wheels and not stock.missing:
        return ["--no-index", "--offline"], {"UV_FIND_LINKS": str(house)}
    options = ["--no-index"] if pip.get("no-index", "").lower() in YES else []
    return options, {"UV_FIND_LINKS": ",".join(filter(None, (links, str(house))))} if stock.wheels else {}


def environment(own: os._Environ[str] | dict[str, str], pip: dict[str, str]) -> dict[str, str]:
    """Environment of uv: our own, pip's settings where uv has none of its own, and what we insist on. Pure."""
    result = {name: value for name, value in own.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PYTHON")}
    for option, variable in SETTINGS.items():
        if value := pip.get(option):
            result.setdefault(variable, _in_uvs_words(option, value))
    result["UV_PYTHON_DOWNLOADS"] = "never"
    # Safe because every package is pinned by hash: any index may give it.
    result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return result


def decode(lines: list[str], code: int) -> InstallError:
    """What uv printed, as an error with a hint. Pure."""
    plain = [_plain(line) for line in lines if line.strip()]
    innermost = next((_plain(line) for line in reversed(lines) if line.startswith("  cause: ")), "")
    for cause in CAUSES:
        for line in plain:
            if re.search(cause.pattern, line):
                reason = line if innermost in line else f"{line}: {innermost}"
                return InstallError(f"{cause.message}: {reason}{_computed(plain)}", where="uv", hint=cause.hint)
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = plain[-1] if plain else "it printed nothing"
    return InstallError(f"uv failed, {ended}: {said}", where="uv", hint="run the same command again")


def _uv(arguments: list[str], env: dict[str, str]) -> None:
    """Run it to its end; Ctrl-C or our death ends it too."""
    with subprocess.Popen(
        bound.argv(_binary(), *arguments),
        # Not the user's folder: a uv.toml or pyproject.toml there speaks about another project.
        cwd=paths.environments_dir(),
        env=env | {"UV_CACHE_DIR": str(paths.uv_cache())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as child:
        try:
            said = _listen(child.stderr) if child.stderr else []
            code = child.wait()
        except BaseException:
            child.kill()
            raise
    if code != 0:
        raise decode(said, code)


def _computed(lines: list[str]) -> str:
    """The hash of what came, where uv tells it."""
    following = lines[lines.index("Computed:") + 1 :] if "Computed:" in lines else []
    return f", which is {following[0]}" if following else ""


def _listen(lines: IO[str]) -> list[str]:
    """The last lines. Large downloads are said as they begin: only they keep a person waiting."""
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    for line in lines:
        tail.append(line.rstrip())
        if large := LARGE.match(line):
            output.say(f"  fetching {large[1]}")
    return list(tail)


def _binary() -> str:
    from uv import find_uv_bin

    try:
        return str(find_uv_bin())
    except FileNotFoundError as error:
        raise InstallError("uv is not installed", hint="make deploy  # installs it with the project") from error


def _pip_settings() -> dict[str, str]:
    """Options in effect for ``pip install``: from pip's files and PIP_* variables, in pip's own order of weight."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for section, option, value in re.findall(r"^([\w:]+)\.([\w-]+)=(.*)$", listing, re.MULTILINE):
        if section in found:
            found[section][option] = str(ast.literal_eval(value))
    return found["global"] | found["install"] | found[":env:"]


def _in_uvs_words(option: str, value: str) -> str:
    entries = value.split()
    if option == "find-links":
        # pip passes over folders that are not there; uv would stop, and it runs in another folder than we do.
        folders = (entry if "://" in entry else str(Path(entry).expanduser().absolute()) for entry in entries)
        return ",".join(entry for entry in folders if "://" in entry or Path(entry).is_dir())
    return " ".join(entries)


def _plain(line: str) -> str:
    """Without uv's labels, and without the password of an index address."""
    return re.sub(r"//[^/@\s]+@", "//", line.strip()).removeprefix("error: ").removeprefix("cause: ")
