"""The command line: light, suggests, and turns every error into error + hint + exit code."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from deploy import cli
from deploy.errors import BusyError, OwnweightsError, UserError


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom deploy import cli\n"
        "assert cli.run(['--help']) == 0\n"
        "heavy = {'fastapi', 'pydantic', 'huggingface_hub', 'uvicorn', 'aiohttp', 'rich', 'psutil', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deploy" in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_exists_and_explains_itself(name: str) -> None:
    module, _, attribute = cli.COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["dploy"]) == 1
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "Did you mean 'deploy'?" in seen.err
    assert "hint: ownweights --help" in seen.err


def test_unknown_option_is_the_users_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["paths", "--jsn"]) == 1
    seen = capsys.readouterr()
    assert "error: No such option" in seen.err
    assert "hint: ownweights paths --help" in seen.err


@pytest.mark.parametrize(("error", "code"), [(UserError, 1), (OwnweightsError, 2), (BusyError, 75)])
def test_errors_carry_place_hint_and_exit_code(
    error: type[OwnweightsError],
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command(name="paths")
    def breaks() -> None:
        raise error("it broke", where="models.toml", hint="mend it")

    monkeypatch.setattr("deploy.commands.box.paths_", breaks)
    assert cli.run(["paths"]) == code
    assert capsys.readouterr().err == "error: it broke (models.toml)\nhint: mend it\n"


def test_a_read_only_home_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command(name="paths")
    def breaks() -> None:
        raise PermissionError(13, "Permission denied", "/home/x/.local")

    monkeypatch.setattr("deploy.commands.box.paths_", breaks)
    assert cli.run(["paths"]) == 1
    seen = capsys.readouterr().err
    assert "error: no access: Permission denied (/home/x/.local)" in seen
    assert "hint: OWNWEIGHTS_HOME=" in seen


def test_a_reader_that_leaves_is_no_failure_and_changes_no_exit_code(tmp_path: Path) -> None:
    """As ``ownweights paths | head -1``, with the pipe closed before the first line."""
    code = "import sys\nfrom deploy import cli\nsys.stdin.readline()\nsys.exit(cli.run(['paths']))\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stderr.read() == ""
    assert process.returncode == 0
