"""`licences` and `sbom` on a locked project, offline."""

import json

import pytest

from deploy import catalog, cli, lockfile, project
from deploy.lockfile import Licence, Lock, Model, Origin, Variant
from deploy.soundness import tree_digest
from tests.deploy import boxes

KIMI = catalog.find("kimi-k2.5").licence


def variant(id_):
    files = boxes.variant().files
    return Variant(
        format="gguf",
        precision="Q4_K_M",
        size=sum(file.size for file in files),
        tree=tree_digest(files),
        origin=Origin(kind="huggingface", repo="org/name", commit="c" * 40),
        licence=Licence(id=id_),
        files=files,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with a model without conditions, and one whose conditions nobody accepted."""
    models = (
        Model(name="free", requested="x", variants=(variant("Apache-2.0"),)),
        Model(name="kimi", requested="kimi-k2.5", catalogue="kimi-k2.5", variants=(variant(KIMI.spdx),)),
    )
    pins = tuple(project.engine_pin(engine) for engine in cli.engines())
    lock = Lock(generator="test", inputs="x", models=models, engines=pins)
    (tmp_path / "models.lock").write_text(lockfile.write(lock))
    wish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wish(folder, allowed=""):
    (folder / "models.toml").write_text(f'[[model]]\nname = "free"\n[[model]]\nname = "kimi"\n{allowed}\n')


def run(capsys, *args):
    code = cli.run(list(args))
    out, err = capsys.readouterr()
    return code, out, err


def test_licences_shows_terms_and_whether_they_are_accepted(folder, capsys):
    code, out, _ = run(capsys, "licences")
    assert code == 0
    header, free, kimi = out.splitlines()
    assert header.split() == ["MODEL", "VARIANT", "LICENCE", "COMMERCIAL", "ACCEPTED", "CONDITION", "SOURCE"]
    assert free.split()[:6] == ["free", "gguf/Q4_K_M", "Apache-2.0", "yes", "yes", "-"]
    assert kimi.split()[:5] == ["kimi", "gguf/Q4_K_M", KIMI.spdx, "conditions", "no"]
    assert KIMI.note in kimi


def test_licences_as_json_after_they_were_accepted(folder, capsys):
    wish(folder, f'allow-licence = "{KIMI.spdx}"')
    code, out, _ = run(capsys, "licences", "--json")
    assert code == 0
    assert [(row["model"], row["accepted"]) for row in json.loads(out)] == [("free", True), ("kimi", True)]
    assert json.loads(out)[1]["condition"] == KIMI.note


def test_notices_are_exported(folder, capsys):
    code, _, err = run(capsys, "licences", "--notice", "out/notices")
    assert code == 0
    assert "NOTICE.md" in err
    assert KIMI.note in (folder / "out/notices/NOTICE.md").read_text()


def test_sbom_on_stdout_is_what_it_writes(folder, capsys):
    code, out, err = run(capsys, "sbom")
    assert (code, err) == (0, "")
    assert json.loads(out)["specVersion"] == "1.6"
    code, none, err = run(capsys, "sbom", "--output", "bom.json")
    assert (code, none) == (0, "")
    assert "bom.json" in err
    assert (folder / "bom.json").read_text() == out


@pytest.mark.parametrize(
    ("command", "path", "why"),
    [
        (("licences", "--notice"), "taken", "a file lies where a folder must be"),
        (("licences", "--notice"), "taken/x", "a file lies where a folder must be"),
        (("sbom", "--output"), "folder", "Is a directory"),
        (("sbom", "--output"), "taken/x", "a file lies where a folder must be"),
        (("sbom", "--output"), "a" * 300, "File name too long"),
    ],
)
def test_a_path_that_cannot_be_written_is_the_users(folder, capsys, command, path, why):
    (folder / "taken").write_text("mine")
    (folder / "folder").mkdir()
    code, out, err = run(capsys, *command, path)
    assert (code, out) == (1, "")
    assert f"cannot write there: {why} ({path})" in err
    assert (folder / "taken").read_text() == "mine"
    assert not list(folder.glob(".*"))


def test_sbom_takes_its_time_from_source_date_epoch(folder, capsys, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert json.loads(run(capsys, "sbom")[1])["metadata"]["timestamp"].startswith("1970-01-01T00:00:00")
    for wrong in ("soon", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        code, out, err = run(capsys, "sbom")
        assert (code, out) == (1, "")
        assert "whole seconds" in err


def test_sbom_says_which_packages_it_cannot_list(folder, capsys):
    path = folder / "models.lock"
    path.write_text(path.read_text().replace('requirements = "sha256:', 'requirements = "sha256:0'))
    code, _, err = run(capsys, "sbom")
    assert code == 0
    assert err.count("another ownweights has locked them") == len(cli.engines())


@pytest.mark.parametrize("command", ["licences", "sbom"])
def test_without_a_lock_the_command_is_named(folder, capsys, command):
    (folder / "models.lock").unlink()
    code, out, err = run(capsys, command)
    assert (code, out) == (1, "")
    assert err.endswith("hint: ownweights lock\n")
