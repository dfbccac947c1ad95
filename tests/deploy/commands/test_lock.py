"""`lock` and `drift` against a Hub whose main moves: what is shown, what is written, and the exit codes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from deploy import catalog, cli, lockfile, prepare
from deploy.changes import history
from deploy.errors import UserError
from deploy.project import find, stale
from deploy.soundness import tree_digest
from serving.engines import ENGINES
from tests import hubserver, rows, tiny
from tests.conftest import NOWHERE
from tests.deploy.boxes import box
from tests.hubserver import Hub, Repo

FIRST, SECOND = "a" * 40, "b" * 40
REPO = "org/tiny"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.huggingface(tmp_path_factory.mktemp("tiny"))
    others = {"LICENSE": b"Anyone may use it.\n", "modeling_tiny.py": b"import os\n", "README.md": b"# Tiny\n"}
    return {path.name: path.read_bytes() for path in folder.iterdir()} | others


@pytest.fixture
def server(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hubserver.hub([Repo(REPO, FIRST, files)]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    wish(folder, f"hf:{REPO}")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*args: str) -> tuple[int, str, str]:
        code = cli.run(list(args))
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


def wish(folder: Path, *sources: str) -> None:
    """A models.toml of so many models: chat, then model1, model2."""
    tables = [
        f'[[model]]\nname = "{f"model{number}" if number else "chat"}"\nsource = "{source}"\n'
        for number, source in enumerate(sources)
    ]
    (folder / "models.toml").write_text("".join(tables))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and its time of change."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def config(files: dict[str, bytes], **changes: object) -> bytes:
    return json.dumps(json.loads(files["config.json"]) | changes).encode()


def drifted(run: Run, project: Path) -> tuple[str, dict[str, list[dict[str, object]]]]:
    """What `drift` prints for people, and its changes by group; it must find some, and write nothing."""
    before = snapshot(project)
    code, out, err = run("drift")
    assert (code, err) == (3, "")
    code, text, _ = run("drift", "--json")
    assert code == 3
    assert snapshot(project) == before
    (one,) = json.loads(text)
    assert (one["model"], one["before"], one["after"]) == ("chat", FIRST, SECOND)
    groups: dict[str, list[dict[str, object]]] = {}
    for change in one["changes"]:
        groups.setdefault(change["group"], []).append(change)
    return out, groups


def test_what_did_not_move_has_no_drift(project: Path, server: Hub, run: Run) -> None:
    run("lock")
    before = snapshot(project)
    code, out, _ = run("drift")
    assert code == 0
    assert out == f"chat  safetensors/bf16  {REPO}@main  unchanged at {FIRST[:12]}\n"
    assert snapshot(project) == before


def test_a_commit_that_changes_nothing_locked_is_no_drift(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    run("lock")
    server.move(Repo(REPO, SECOND, files | {"README.md": b"# Tiny, the model\n"}))
    code, out, _ = run("drift")
    assert code == 0
    assert f"the same files under the same terms: {FIRST[:12]} → {SECOND[:12]}" in out
    (one,) = json.loads(run("drift", "--json")[1])
    assert (one["before"], one["after"], one["changes"]) == (FIRST, SECOND, [])


def test_config_key_by_key_with_what_it_decides(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    run("lock")
    changed = config(files, max_position_embeddings=131072, num_key_value_heads=4, rope_scaling={"factor": 4.0})
    server.move(Repo(REPO, SECOND, files | {"config.json": changed}))
    out, groups = drifted(run, project)
    assert "max_position_embeddings 32768 → 131072 (context)" in out
    assert 'rope_scaling nothing → {"factor":4.0} (how far the context reaches)' in out
    assert "cache.kv_heads 2 → 4 (KV cache: memory per token of context)" in out
    assert set(groups) == {"config"}
    values = {value["key"]: value for change in groups["config"] for value in change["values"]}
    assert (values["context"]["before"], values["context"]["after"]) == ("32768", "131072")


def test_weights_by_file_tensors_and_size(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    small = weights(("a", "BF16", 4), ("b", "BF16", 2))
    server.move(Repo(REPO, FIRST, files | {"model.safetensors": small}))
    run("lock")
    grown = weights(("a", "BF16", 4), ("b", "F32", 2), ("c", "F32", 6))
    server.move(Repo(REPO, SECOND, files | {"model.safetensors": grown}))
    out, groups = drifted(run, project)
    assert "    changed model.safetensors  " in out
    assert "count 2 → 3" in out
    assert "elements.BF16 6 → 4" in out
    assert "elements.F32 nothing → 8" in out
    assert f"(+{len(grown) - len(small)} B of weights)" in out
    assert set(groups) == {"weights", "config"}, "the number of parameters is a fact of its own"
    file = next(change for change in groups["weights"] if change["path"])
    assert file["after"]["size"] == len(grown)


def test_tokenizer_by_file_and_key(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    run("lock")
    tokenizer = json.loads(files["tokenizer.json"])
    tokenizer["added_tokens"][0]["special"] = False
    tokenizer["model"]["vocab"]["new"] = 999
    named = json.loads(files["tokenizer_config.json"]) | {"eos_token": "<|endoftext|>"}
    moved = {"tokenizer.json": json.dumps(tokenizer).encode(), "tokenizer_config.json": json.dumps(named).encode()}
    server.move(Repo(REPO, SECOND, files | moved | {"merges.txt": b"a b\n"}))
    out, groups = drifted(run, project)
    assert "added_tokens[0].special true → false" in out
    assert "model.vocab.new nothing → 999" in out
    assert 'eos_token "<|im_end|>" → "<|endoftext|>" (where an answer ends)' in out
    assert "added merges.txt" in out
    assert set(groups) == {"tokenizer"}
    assert [change["path"] for change in groups["tokenizer"]] == [
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_template_in_the_tokenizer_is_shown_decoded(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    run("lock")
    table = json.loads(files["tokenizer_config.json"])
    table["chat_template"] = table["chat_template"].replace("Functions:", "Tools:")
    server.move(Repo(REPO, SECOND, files | {"tokenizer_config.json": json.dumps(table).encode()}))
    out, groups = drifted(run, project)
    assert "      -{{- 'Functions:\\n' }}" not in out, "no diff of the JSON that holds it"
    assert "    -{{- 'Functions:\\n' }}\n    +{{- 'Tools:\\n' }}\n" in out
    assert "(only `chat_template`)" in out
    assert set(groups) == {"tokenizer", "template"}


def test_a_template_of_its_own_file(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    server.move(Repo(REPO, FIRST, files | {"chat_template.jinja": b"one\ntwo\n"}))
    run("lock")
    server.move(Repo(REPO, SECOND, files | {"chat_template.jinja": b"one\n\x1b[2Jthree\n"}))
    out, groups = drifted(run, project)
    assert "-two\n    +\\x1b[2Jthree\n" in out
    assert "\x1b" not in out, "nothing reaches the terminal raw"
    assert out.count("-two") == 1, "the file is not shown beside the template that it holds"
    assert set(groups) == {"template"}


def test_a_template_in_a_gguf(project: Path, server: Hub, tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    content = tiny.gguf(tmp_path_factory.mktemp("gguf") / "tiny-F16.gguf").read_bytes()
    server.move(Repo(REPO, FIRST, {"tiny-F16.gguf": content}))
    run("lock")
    server.move(Repo(REPO, SECOND, {"tiny-F16.gguf": content.replace(b"Functions:", b"Callables:")}))
    out, groups = drifted(run, project)
    assert "-{{- 'Functions:\\n' }}\n    +{{- 'Callables:\\n' }}\n" in out
    assert set(groups) == {"weights", "template"}


def test_code_and_licence_come_first_and_loud(
    project: Path, server: Hub, files: dict[str, bytes], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = {"config.json": config(files, auto_map={"AutoModel": "modeling_tiny.Tiny"})}
    server.move(Repo(REPO, FIRST, files | mapped))
    assert run("lock")[0] == 0
    moved = {
        "LICENSE": b"Nobody may use it.\n",
        "modeling_tiny.py": b"import os\nos.system('x')\n",
        "generation_config.json": b'{"temperature": 0.1}',
    }
    server.move(Repo(REPO, SECOND, files | mapped | moved, license="other", gated=True))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    out, groups = drifted(run, project)
    headings = [line for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert headings == ["  WARNING: code that comes with the weights", "  WARNING: licence", "  configuration"]
    assert "      +os.system('x')\n" in out
    assert "      -Anyone may use it.\n      +Nobody may use it.\n" in out
    assert "gated false → true (the Hub asks for acceptance first)" in out
    assert 'id "Apache-2.0" → "LicenseRef-' in out
    assert "temperature nothing → 0.1 (sampling, where a request says nothing)" in out
    assert set(groups) == {"code", "licence", "config"}


def test_a_new_owner_stops_everything_until_accepted(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    run("lock")
    (locked,) = lockfile.read(project / "models.lock").models[0].variants
    server.move(Repo(REPO, SECOND, files, object_id="f" * 24))
    before = snapshot(project)
    for command in (["drift"], ["lock", "--upgrade", "chat"]):
        code, out, err = run(*command)
        assert (code, out) == (1, "")
        assert "new owner" in err
        assert "f" * 24 in err
        assert "--accept-new-owner" in err
        assert snapshot(project) == before
    code, _, err = run("lock", "--upgrade", "chat", "--accept-new-owner")
    assert code == 0
    headings = [line for line in err.splitlines() if line.startswith("  WARNING")]
    assert headings == ["  WARNING: another repository"]
    assert f'repo_id "{locked.origin.repo_id}" → "{"f" * 24}"' in err
    (one,) = lockfile.read(project / "models.lock").models[0].variants
    assert (one.origin.repo_id, one.origin.commit) == ("f" * 24, SECOND)


def test_an_upgrade_shows_what_changed_and_then_writes(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    wish(project, f"hf:{REPO}", f"hf:{REPO}@{FIRST}")
    run("lock")
    server.move(Repo(REPO, SECOND, files | {"config.json": config(files, max_position_embeddings=8)}))
    assert run("lock")[2] == "the lock is current\n", "upstream moved, which is no reason"
    shown = run("drift", "chat")[1]
    code, out, err = run("lock", "--upgrade", "chat")
    assert code == 0
    assert err.startswith(shown)
    assert "model1" not in err
    assert err.splitlines()[-1].startswith("locked: ")
    assert out.startswith("chat  safetensors/bf16  ")
    assert lockfile.read(project / "models.lock").models[0].variants[0].origin.commit == SECOND
    assert run("drift")[0] == 0
    found = json.loads(run("lock", "--upgrade", "chat", "--json")[1])
    assert found["model"][0]["name"] == "chat"


def test_check_of_a_lock_as_it_was_made(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    run("lock")
    server.move(Repo(REPO, SECOND, files | {"config.json": b"{}"}))
    before = snapshot(project)
    code, out, err = run("lock", "--check")
    assert (code, out) == (0, "")
    assert err.startswith("the lock is current: ")
    assert json.loads(run("lock", "--check", "--json")[1]) == {"current": True, "stale": [], "diff": []}
    assert snapshot(project) == before


def test_check_finds_a_forged_hash_whose_sums_are_right(project: Path, server: Hub, run: Run) -> None:
    run("lock")
    path = project / "models.lock"
    (one,) = lockfile.read(path).models[0].variants
    forged = {"model.safetensors": "0" * 64, "config.json": "1" * 64}
    files = tuple(
        msgspec.structs.replace(file, sha256=forged.get(file.path, file.sha256), git=None) for file in one.files
    )
    text = path.read_text().replace(one.tree, tree_digest(files))
    for file in one.files:
        text = text.replace(file.sha256, forged.get(file.path, file.sha256))
    path.write_text(text)
    before = snapshot(project)
    code, out, _ = run("lock", "--check")
    assert code == 1
    for file in one.files:
        told = {line[0]: line for line in out.splitlines() if f'"{file.path}"' in line and line[0] in "-+"}
        if file.path in forged:
            assert forged[file.path] in told["-"]
            assert file.sha256 in told["+"]
        else:
            assert not told
    assert snapshot(project) == before


def test_check_of_a_lock_that_models_toml_left_behind(project: Path, server: Hub, run: Run) -> None:
    wish(project, f"hf:{REPO}", "qwen2.5-coder-0.5b")
    run("lock")
    wish(project, f"hf:{REPO}", "qwen2.5-coder-1.5b")
    before = snapshot(project)
    code, out, err = run("lock", "--check")
    assert code == 1
    assert '-requested = "qwen2.5-coder-0.5b"\n' in out
    assert '+requested = "qwen2.5-coder-1.5b"\n' in out
    assert "the lock is stale: models.toml asks for other models" in err
    assert not json.loads(run("lock", "--check", "--json")[1])["current"]
    assert run("lock", "--check", "chat")[0] == 0, "of the model that is named nothing differs"
    assert snapshot(project) == before


def test_check_without_a_lock_and_with_an_upgrade(project: Path, run: Run) -> None:
    code, out, err = run("lock", "--check")
    assert (code, out) == (1, "")
    assert err.endswith("hint: ownweights lock\n")
    assert run("lock", "--check", "--upgrade", "chat")[0] == 1
    assert list(project.iterdir()) == [project / "models.toml"]


def test_lock_of_some_models_leaves_the_others(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    wish(project, f"hf:{REPO}", "qwen2.5-coder-0.5b")
    code, out, _ = run("lock", "model1")
    assert code == 0
    assert out.startswith("model1  gguf/")
    assert not [asked for asked in server.requests if REPO in asked.path], "the other one was not resolved"
    assert [model.name for model in lockfile.read(project / "models.lock").models] == ["model1"]
    assert run("lock", "--check")[0] == 1, "not all that is wished for is locked"
    assert run("lock")[0] == 0
    whole = (project / "models.lock").read_bytes()
    assert [model.name for model in lockfile.read(project / "models.lock").models] == ["chat", "model1"]
    assert run("lock", "chat")[2] == "the lock is current\n"
    assert run("lock", "--check")[0] == 0
    assert (project / "models.lock").read_bytes() == whole
    code, _, err = run("lock", "nobody")
    assert code == 1
    assert "no model `nobody`" in err


def test_locked_twice_the_bytes_are_the_same(project: Path, server: Hub, run: Run) -> None:
    run("lock")
    first = (project / "models.lock").read_bytes()
    (project / "models.lock").unlink()
    run("lock")
    assert (project / "models.lock").read_bytes() == first


def test_drift_of_what_cannot_drift_asks_nobody(project: Path, server: Hub, run: Run) -> None:
    wish(project, f"hf:{REPO}@{FIRST}", "qwen2.5-coder-0.5b")
    run("lock")
    server.requests.clear()
    code, out, _ = run("drift", "chat", "model1")
    assert code == 0
    assert [line.split("  ")[3].split(":")[0] for line in out.splitlines()] == ["cannot drift"] * 2
    assert not server.requests


def test_drift_of_a_model_one_variant_of_which_is_pinned(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    row = next(row for row in catalog.rows() if row.commit is None and any(gguf.pinned for gguf in row.gguf))
    wish(project, row.id)
    files = files | {"config.json": rows.config(row, files["config.json"])}
    server.move(Repo(row.hf_repo, FIRST, files))
    run("lock")
    server.move(Repo(row.hf_repo, SECOND, files | {"LICENSE": b"Nobody may use it.\n"}))
    code, out, _ = run("drift")
    assert code == 3
    assert "cannot drift" in out
    assert "+Nobody may use it." in out


def test_drift_of_a_file_looks_at_the_disk(project: Path, run: Run) -> None:
    tiny.gguf(project / "tiny-F16.gguf")
    wish(project, "file:tiny-F16.gguf")
    run("lock")
    assert run("drift")[:2] == (0, f"chat  gguf/F16  {project}  unchanged on this disk\n")
    content = (project / "tiny-F16.gguf").read_bytes()
    (project / "tiny-F16.gguf").write_bytes(content.replace(b"Functions:", b"Callables:"))
    code, out, _ = run("drift")
    assert code == 3
    assert "changed tiny-F16.gguf" in out
    assert "(it is no longer on this disk as it was locked)" in out


def test_drift_without_a_hub(project: Path, server: Hub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("lock")
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    before = snapshot(project)
    code, out, err = run("drift")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert NOWHERE in err
    assert "hint: " in err
    assert snapshot(project) == before


def test_drift_of_a_lock_that_models_toml_left_behind(project: Path, server: Hub, run: Run) -> None:
    run("lock")
    wish(project, "hf:org/other")
    code, _, err = run("drift")
    assert code == 1
    assert "locked for another source" in err
    assert "hint: ownweights lock chat" in err


def test_what_could_be_looked_up_is_shown_before_the_error(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    server.move(Repo("org/other", FIRST, files))
    wish(project, "hf:org/other", f"hf:{REPO}")
    assert run("lock")[0] == 0
    del server.revisions["org/other"]
    code, out, err = run("drift")
    assert code == 1
    assert out.startswith("model1  safetensors/bf16  org/tiny@main  unchanged")
    assert "org/other" in err
    assert [one["model"] for one in json.loads(run("drift", "--json")[1])] == ["model1"]


def test_of_two_upgrades_at_once_both_are_kept(
    project: Path, server: Hub, files: dict[str, bytes], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    wish(project, f"hf:{REPO}", f"hf:{REPO}")
    run("lock")
    server.move(Repo(REPO, SECOND, files | {"config.json": config(files, eos_token_id=7)}))
    here = find(project)
    with ThreadPoolExecutor() as pool:
        with here.changing():
            first = here.lock(box(), (), upgrade=frozenset({"chat"}))
            second = pool.submit(cli.run, ["lock", "--upgrade", "model1"])
            said = ""
            while "another ownweights" not in said and not second.done():
                said += capsys.readouterr().err
            here.save(first)
        assert second.result() == 0
    found = lockfile.read(project / "models.lock")
    assert [model.variants[0].origin.commit for model in found.models] == [SECOND, SECOND]


def test_a_damaged_history_does_not_keep_an_upgrade_from_being_done(
    project: Path, server: Hub, files: dict[str, bytes], run: Run
) -> None:
    run("lock")
    history.list_file(project).write_bytes(b"{")
    server.move(Repo(REPO, SECOND, files | {"config.json": config(files, eos_token_id=7)}))
    code, _, err = run("lock", "--upgrade", "chat")
    assert code == 0
    assert "is not in the history" in err
    assert lockfile.read(project / "models.lock").models[0].variants[0].origin.commit == SECOND


@pytest.mark.parametrize("source", [f"hf:{REPO}@{FIRST}", f"hf:{REPO}"])
def test_a_check_asks_for_the_commit_that_was_wished_for(
    project: Path, server: Hub, files: dict[str, bytes], run: Run, source: str
) -> None:
    wish(project, source)
    run("lock")
    server.move(Repo(REPO, SECOND, files | {"config.json": config(files, eos_token_id=7)}))
    lock = lockfile.read(project / "models.lock")
    (variant,) = lock.models[0].variants
    # All of it of the other commit, as if that had been asked for by a branch's name.
    wish(project, f"hf:{REPO}")
    run("lock", "--upgrade", "chat")
    (other,) = lockfile.read(project / "models.lock").models[0].variants
    model = msgspec.structs.replace(lock.models[0], variants=(other,))
    wish(project, source)
    (project / "models.lock").write_text(lockfile.write(msgspec.structs.replace(lock, models=(model,))))
    code, out, _ = run("lock", "--check")
    assert code == int(source.endswith(FIRST))
    assert (f'-commit = "{SECOND}"' in out) == source.endswith(FIRST)
    assert variant.origin.commit == FIRST


def test_what_only_the_lock_allows_does_not_run(project: Path, server: Hub, files: dict[str, bytes], run: Run) -> None:
    run("lock")
    lock = lockfile.read(project / "models.lock")
    (variant,) = lock.models[0].variants
    content = files["modeling_tiny.py"]
    code = lockfile.File(path="modeling_tiny.py", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    listed = (*variant.files, code)
    smuggled = msgspec.structs.replace(
        variant, files=listed, code=(code,), tree=tree_digest(listed), size=variant.size + code.size
    )
    model = msgspec.structs.replace(lock.models[0], variants=(smuggled,))
    (project / "models.lock").write_text(lockfile.write(msgspec.structs.replace(lock, models=(model,))))
    assert not stale(lockfile.read(project / "models.lock"), find(project).config, ENGINES)
    with pytest.raises(UserError, match=r"`modeling_tiny.py` run, which models.toml does not allow"):
        prepare.decide(find(project), ENGINES, box(), locked=True)


def weights(*tensors: tuple[str, str, int]) -> bytes:
    """A safetensors file of vectors: name, type and length."""
    header, end = {}, 0
    for name, kind, length in tensors:
        start, end = end, end + length * {"BF16": 2, "F32": 4}[kind]
        header[name] = {"dtype": kind, "shape": [length], "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def test_a_lock_of_an_earlier_form_says_what_to_type_and_that_works(project: Path, server: Hub, run: Run) -> None:
    run("lock")
    path = project / "models.lock"
    path.write_text(path.read_text().replace('lock-version = "1.1"', 'lock-version = "1.0"'))
    for command in (("lock",), ("lock", "--check"), ("drift",)):
        code, _, err = run(*command)
        assert code == 1
        assert "lock-version is '1.0'" in err
        assert f"hint: rm {path} && ownweights lock" in err
    path.unlink()
    assert run("lock")[0] == 0
    assert run("drift")[0] == 0
