from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from deploy import environment, installer, paths
from deploy.engine import Engine
from deploy.errors import InstallError

LIMIT_S = 60.0


@dataclass(frozen=True)
class Toy:
    """All that an environment asks of an engine."""

    requirements: Path
    name: str = "toy"
    device: str = "cpu"
    version: str = "1.0"
    files: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return cast("Engine", self)


def wheel(folder: Path, name: str = "toy") -> str:
    """A package with one module and one console script; returns its line in a requirement set."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "def main():\n    print('I play')\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """An engine whose only source of packages is a folder."""
    line = wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(line)
    return Toy(requirements)


def leftovers() -> list[Path]:
    return [path for path in paths.environments_dir().iterdir() if environment.PARTIAL in path.name]


def test_an_environment_is_complete_under_its_final_name(toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    told = Toy(toy.requirements, files={"ours/note.txt": "hello"})
    assert environment.describe(told.engine) is None
    home = environment.install(told.engine)
    assert home == environment.folder(told.engine)
    assert home.parent == paths.environments_dir()
    assert home.name.startswith("toy-cpu-")
    # The script was written for another folder name: it must work where it lies now.
    assert subprocess.check_output([home / "bin" / "toy"], text=True) == "I play\n"
    assert (home / "ours" / "note.txt").read_text() == "hello"
    found = environment.describe(told.engine)
    assert found
    assert (found.engine, found.version, found.packages, found.path) == ("toy", "1.0", 1, str(home))
    assert found.size_bytes > 0
    assert leftovers() == []
    out, err = capfd.readouterr()
    assert out == ""
    assert "installing toy 1.0" in err


def test_a_second_install_changes_nothing(toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    home = environment.install(toy.engine)
    before = home.stat()
    shutil.rmtree(os.environ["UV_FIND_LINKS"])
    capfd.readouterr()
    assert environment.install(toy.engine) == home
    assert (home.stat().st_ino, home.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert capfd.readouterr().err == ""


def test_the_engine_does_not_depend_on_our_own_virtual_environment(toy: Toy) -> None:
    python = environment.install(toy.engine) / "bin" / "python"
    program = "import sys; print(sys.base_prefix)"
    assert subprocess.check_output([python, "-c", program], text=True).strip() == sys.base_prefix
    assert not python.resolve().is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix


def test_other_content_is_another_folder(toy: Toy, tmp_path: Path) -> None:
    folders = {environment.folder(toy.engine)}
    folders.add(environment.folder(Toy(toy.requirements, files={"a": "1"}).engine))
    folders.add(environment.folder(Toy(toy.requirements, files={"a": "2"}).engine))
    folders.add(environment.folder(Toy(toy.requirements, device="gpu").engine))
    other = tmp_path / "other.txt"
    other.write_text(toy.requirements.read_text() + "# newer\n")
    folders.add(environment.folder(Toy(other).engine))
    assert len(folders) == 5
    assert environment.folder(toy.engine) in folders


def test_an_environment_whose_python_is_gone_is_made_again(toy: Toy) -> None:
    home = environment.install(toy.engine)
    (home / "bin" / "python").unlink()
    assert environment.describe(toy.engine) is None
    environment.install(toy.engine)
    assert subprocess.check_output([home / "bin" / "toy"], text=True) == "I play\n"


def test_other_bytes_than_the_pinned_ones_are_refused(toy: Toy) -> None:
    toy.requirements.write_text("toy==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(InstallError) as caught:
        environment.install(toy.engine)
    assert "Hash mismatch for `toy==1.0`, which is sha256:" in caught.value.message
    assert caught.value.hint
    assert not environment.folder(toy.engine).exists()
    assert leftovers() == []


def test_a_package_that_the_index_lacks_is_named(toy: Toy) -> None:
    toy.requirements.write_text("absent==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(InstallError, match=r"the package index lacks a pinned package.*absent==1\.0"):
        environment.install(toy.engine)


def test_an_index_that_cannot_be_reached_is_told(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(InstallError, match=r"the package index cannot be reached.*refused") as caught:
        environment.install(toy.engine)
    assert "secret" not in str(caught.value)
    assert leftovers() == []


def test_a_place_that_cannot_be_written_is_told(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "file"))
    with pytest.raises(InstallError, match="cannot be written") as caught:
        environment.install(toy.engine)
    assert "OWNWEIGHTS_HOME" in (caught.value.hint or "")


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No source of packages but an index that refuses every connection."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_FIND"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


def stocked(index: Path) -> None:
    shutil.copytree(index, paths.wheelhouse_dir())


def test_a_full_wheelhouse_needs_no_index(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch)
    with pytest.raises(InstallError, match="the package index cannot be reached"):
        environment.install(toy.engine)
    stocked(tmp_path / "index")
    home = environment.install(toy.engine)
    assert subprocess.check_output([home / "bin" / "toy"], text=True) == "I play\n"


def test_half_a_wheelhouse_is_looked_into_beside_the_index(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked(tmp_path / "index")
    rest = wheel(tmp_path / "rest", "ball")
    toy.requirements.write_text(toy.requirements.read_text() + rest)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "rest"))
    home = environment.install(toy.engine)
    assert sorted(path.name for path in (home / "bin").glob("*") if path.name in ("toy", "ball")) == ["ball", "toy"]


def test_a_wheelhouse_with_other_bytes_is_not_enough(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch)
    stocked(tmp_path / "index")
    with next(paths.wheelhouse_dir().glob("*.whl")).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InstallError, match="the package index cannot be reached"):
        environment.install(toy.engine)


def test_no_index_of_pip_is_one_for_uv(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere(monkeypatch)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InstallError, match="the package index lacks a pinned package"):
        environment.install(toy.engine)


PROGRAM = """\
import sys
from pathlib import Path
from deploy import environment
from tests.deploy.test_environment import Toy
environment.install(Toy(Path(sys.argv[1])).engine)
"""


def another_process(toy: Toy, program: str = PROGRAM, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(toy.requirements), *arguments],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )


HANGING_UV = """\
#!/bin/sh
for last; do :; done
[ "$1" = venv ] && mkdir -p "$last"
echo $$ > "$0.pid.new"
mv "$0.pid.new" "$0.pid"
exec sleep 99
"""
HANGING = PROGRAM.replace(
    "environment.install(", "installer._binary = lambda: sys.argv[2]\nenvironment.install("
).replace("import environment", "import environment, installer")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_install_leaves_nothing_that_counts(toy: Toy, tmp_path: Path, number: signal.Signals) -> None:
    uv = tmp_path / "uv-that-hangs"
    uv.write_text(HANGING_UV)
    uv.chmod(0o755)
    with another_process(toy, HANGING, str(uv)) as install:
        note = Path(f"{uv}.pid")
        while not note.exists():
            assert install.poll() is None
        child = os.pidfd_open(int(note.read_text()))
        install.send_signal(number)
    # uv ends with us, whichever way we go.
    assert select.select([child], [], [], LIMIT_S)[0]
    os.close(child)
    assert environment.describe(toy.engine) is None
    assert not environment.folder(toy.engine).exists()
    # After SIGKILL and SIGTERM what was begun still lies there; the next install sweeps it.
    assert len(leftovers()) == (0 if number is signal.SIGINT else 1)
    environment.install(toy.engine)
    assert leftovers() == []


def test_two_at_once_make_one(toy: Toy) -> None:
    installs = [another_process(toy) for _ in range(3)]
    said = [install.communicate(timeout=LIMIT_S)[1] for install in installs]
    assert [install.returncode for install in installs] == [0, 0, 0], said
    assert sum("installed in" in text for text in said) == 1
    assert leftovers() == []


def test_pips_settings_reach_uv_unless_it_has_its_own() -> None:
    pip = {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://one.example/simple\nhttps://two.example/simple",
        "find-links": f"/nowhere {Path('/').resolve()} https://links.example/",
        "cert": "/etc/ours.pem",
        "proxy": "http://proxy.example:3128",
        "unrelated": "x",
    }
    own = {"SSL_CERT_FILE": "/etc/mine.pem", "VIRTUAL_ENV": "/ours", "UV_PYTHON": "3.9", "HOME": "/home/me"}
    assert installer.environment(own, pip) == {
        "HOME": "/home/me",
        "SSL_CERT_FILE": "/etc/mine.pem",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/,https://links.example/",
        "ALL_PROXY": "http://proxy.example:3128",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_a_pip_that_is_set_up_for_a_mirror_is_enough(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real pip: its file says where packages are, and nothing else does."""
    monkeypatch.delenv("UV_FIND_LINKS")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links = {tmp_path / 'index'}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    environment.install(toy.engine)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("error: Failed to write to `/x`: No space left on device (os error 28)", "the disk is full"),
        ("error: Failed to create: Read-only file system (os error 30)", "a folder cannot be written"),
        ("  cause: dns error: failed to lookup address information", "the package index cannot be reached"),
        ("  cause: HTTP status client error (401 Unauthorized) for url (https://m/)", "cannot be reached"),
        ("  cause: Because a==1 has no usable wheels and you require a==1", "lacks a pinned package"),
        ("error: Something nobody has seen", "uv failed, exit code 2: Something nobody has seen"),
    ],
)
def test_failures_of_uv_are_told_apart(line: str, says: str) -> None:
    error = installer.decode(["Using Python 3.11", line], 2)
    assert says in error.message
    assert error.hint


def test_a_uv_that_was_killed_is_told() -> None:
    assert "SIGKILL" in installer.decode([], -9).message
