"""What is printed: whatever it holds, it steers no terminal, forges no line and meets no encoding that ends us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import output
from deploy.errors import UserError

STEERING = "\x1b[31mred\x07\r\x9b2J\u202e"
SHOWN = r"\x1b[31mred\x07\r\x9b2J\u202e"


@pytest.mark.parametrize("speak", [output.data, output.say, output.warn])
def test_what_steers_a_terminal_is_shown_as_what_it_is(
    capsys: pytest.CaptureFixture[str], speak: Callable[[str], None]
) -> None:
    speak(f"a {STEERING} → …")
    out, err = capsys.readouterr()
    assert (out + err).removeprefix("warning: ") == f"a {SHOWN} → …\n"


def test_lines_of_a_text_stay_and_those_in_a_cell_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    output.data("# one\n\n\ttwo")
    assert capsys.readouterr().out == "# one\n\n\ttwo\n"
    output.table(("NAME", "VALUE"), [("x\ny", None), (f"\t{STEERING}", 1)])
    assert capsys.readouterr().out.splitlines() == [
        f"NAME{' ' * (len(SHOWN) - 2)}  VALUE",
        f"x\\ny{' ' * (len(SHOWN) - 2)}  unknown",
        f"\\t{SHOWN}  1",
    ]


def test_a_name_with_a_newline_cannot_pass_for_a_hint_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail(UserError("2 are wrong\n  and more", where="a\nhint: rm -r /", hint="first\nsecond"))
    assert capsys.readouterr().err.splitlines() == [
        "error: 2 are wrong",
        "  and more (a",
        "  hint: rm -r /)",
        "hint: first",
        "  second",
    ]
    output.warn("a\nhint: rm -r /")
    assert capsys.readouterr().err == "warning: a\n  hint: rm -r /\n"


def test_json_keeps_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a\n": f"{STEERING} → é 😀", "b": [1, None]}
    output.dump(value)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert "→ é 😀" in text
    assert not any(char in text for char in STEERING if not char.isprintable())


PRINTS = """
from deploy import output
output.take_any_character()
output.data("data → é 😀 \\udc80")
output.say("said …")
output.dump({"key": "→ é 😀"})
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_without_our_characters_ends_nothing(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTS],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    data, _, dumped = done.stdout.decode(encoding).partition("\n")
    assert json.loads(dumped) == {"key": "→ é 😀"}
    if encoding == "utf-8":
        assert data == "data → é 😀 \\udc80"
        assert done.stderr.decode() == "said …\n"
    else:
        assert data.startswith("data \\u2192 ")
        assert done.stderr == b"said \\u2026\n"


def test_the_command_itself_speaks_any_encoding(tmp_path: Path) -> None:
    name = tmp_path / "a→b"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "hardware", "--hardware", str(name)],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: cannot be read: No such file")
    assert b"a\\u2192b" in done.stderr
