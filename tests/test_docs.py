"""The documents say what the code does: commands, options, keys, variables, targets, modules and links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import msgspec
import pytest

from deploy import cli, config

ROOT = Path(__file__).parent.parent
PACKAGES = ("deploy", "serving", "benchmarks")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
CODE = re.compile(r"^```.*?\n(.*?)^```|`([^`\n]+)`|^ {4}(\S.*)$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"\bownweights +([a-z][a-z-]*)([^|;&`#\n)]*)")
MAKE = re.compile(r"(?:\$ +)?make +(.*)")
OPTION = re.compile(r"(?<![\w-])--[a-z-]+")


def code(page: Path) -> list[str]:
    """The lines of a page that are code: fenced, indented, or between backticks."""
    found = ("".join(match.groups(default="")) for match in CODE.finditer(page.read_text(encoding="utf-8")))
    return [line for block in found for line in block.splitlines()]


def calls(page: Path) -> list[tuple[str, list[str]]]:
    """Every ``ownweights COMMAND`` in a page's code, with its long options; ``make COMMAND ARGS=…`` is one too."""
    matches = (match for line in code(page) for match in CALL.finditer(line))
    found = [(match[1], OPTION.findall(match[2])) for match in matches]
    made = [(target, OPTION.findall(" ".join(words))) for words in makes(page) for target in words]
    return found + [(target, options) for target, options in made if target in cli.COMMANDS]


def makes(page: Path) -> list[list[str]]:
    """The words of every ``make`` line in a page's code."""
    lines = (MAKE.match(line.strip()) for line in code(page))
    return [shlex.split(line[1], comments=True) for line in lines if line]


def known_options(command: click.Command) -> set[str]:
    """Its own, and those of its commands where it is a group of some."""
    within = command.commands.values() if isinstance(command, click.Group) else ()
    own = {option for parameter in command.params for option in parameter.opts}
    return {"--help"}.union(own, *map(known_options, within))


def targets(page: Path) -> set[str]:
    return {word for words in makes(page) for word in words if "=" not in word}


def page_id(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_options_exist(page: Path) -> None:
    with click.Context(cli.ownweights) as context:
        for name, options in calls(page):
            assert name in cli.COMMANDS, f"{page.name} names `ownweights {name}`"
            command = cli.ownweights.get_command(context, name)
            assert command is not None
            assert set(options) <= known_options(command), f"{page.name}: ownweights {name}"


def test_every_command_is_documented() -> None:
    documented = {name for page in PAGES for name, _ in calls(page)}
    assert set(cli.COMMANDS) <= documented


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets(page) <= set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_readme_names_the_main_targets() -> None:
    assert {"deploy", "bench", "cost", "test"} <= targets(ROOT / "README.md")


def test_config_keys() -> None:
    """Section by section: every key that is read is described, every key described is read."""
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## `\[+(\w+)\]+`.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    described = {name: set(re.findall(r"^\| `([a-z-]+)` \|", body, re.MULTILINE)) for name, body in sections}
    read = {
        name: {field.encode_name for field in msgspec.structs.fields(table)}
        for name, table in config.TABLES.items()
        if name
    }
    assert described == read
    assert set(read) == {field.encode_name for field in msgspec.structs.fields(config.Config)}


def test_environment_variables() -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Environment variables\n")
    described = set(re.findall(r"`([A-Z][A-Z_]+)`", section))
    help_text = " ".join(f"{name} {meaning}" for name, meaning in cli.ENVIRONMENT.items())
    assert described == set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", help_text))


def test_every_module_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(rf"\b(?:{'|'.join(PACKAGES)})/[\w/]+\.py\b", text))
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == modules


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
