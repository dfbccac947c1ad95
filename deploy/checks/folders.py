"""Checks of our folders: can they be written, do locks hold there, is the key for our eyes only."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

from deploy import paths
from deploy.checks import Context, Verdict, fail, ok, skip, warn
from deploy.hardware import filesystem

NETWORK = frozenset(
    [
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse"),
    ]
)
"""As the kernel names them. On some of these every process that asks for a flock gets it, and SQLite's own
documentation warns of all of them; the state folder relies on both."""


def writable(_: Context) -> Verdict:
    places = {
        "data": paths.data_dir(),
        "state": paths.state_dir(),
        "cache": paths.cache_dir(),
        "weights": paths.hub_cache(),
    }
    for name, folder in places.items():
        try:
            # A nameless file: permission bits alone do not tell of read-only and of foreign network file systems.
            with tempfile.TemporaryFile(dir=paths.nearest(folder)):
                pass
        except OSError as error:
            moved = "HF_HUB_CACHE" if name == "weights" else "OWNWEIGHTS_HOME"
            return fail(
                f"the {name} folder `{folder}` cannot be written: {error.strerror}",
                f"export {moved}=/a/writable/folder",
            )
    return ok(f"{', '.join(places)} can be written")


def locks(_: Context) -> Verdict:
    return judge_locks(filesystem.disk(paths.state_dir(), Path("/"))[0].filesystem)


def judge_locks(kind: str | None) -> Verdict:
    """``kind`` is the file system of the state folder."""
    if kind is None:
        return skip("the file system of the state folder is unknown")
    if kind in NETWORK:
        return warn(
            f"the state folder `{paths.state_dir()}` lies on {kind}, where file locks and SQLite cannot be relied on",
            "export OWNWEIGHTS_HOME=/a/folder/on/a/local/disk",
        )
    return ok(f"the state folder lies on {kind}")


def key(_: Context) -> Verdict:
    path = paths.key_file()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return skip("there is none before the first deploy")
    if mode & 0o077:
        return fail(f"`{path}` has mode {mode:04o}: others may read it", f"chmod 600 {path}")
    return ok(f"`{path}` has mode {mode:04o}")
