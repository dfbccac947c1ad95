"""Back to an earlier lock: which one may be gone back to, and what is left where it fails."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deploy import config, lockfile
from deploy.changes import history, rollback
from deploy.errors import LockError, PlanError, UserError
from deploy.lockfile import EnginePin, Lock, Model
from deploy.project import Project, engine_pin
from serving.engines import ENGINES
from tests import locked
from tests.hubrepo import Repo

WISHES = (
    '[[model]]\nname = "chat"\nsource = "hf:org/tiny-GGUF"\n[[model]]\nname = "code"\nsource = "hf:org/code-GGUF"\n'
)
PINS = tuple(map(engine_pin, ENGINES))


def made(text: str, content: bytes) -> Lock:
    """A lock that fits a models.toml; its bytes tell it from others."""
    wanted = config.parse(text)
    variant = locked.of(Repo("org/tiny-GGUF", files={"tiny.gguf": content}))
    models = tuple(
        Model(
            name=wish.name,
            aliases=wish.aliases,
            requested=wish.source,
            inputs=lockfile.wish_digest(wish),
            variants=(variant,),
        )
        for wish in wanted.model
    )
    return Lock(generator="test", inputs=lockfile.inputs_digest(wanted), models=models, engines=PINS)


A, B = made(WISHES, b"a"), made(WISHES, b"b")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """It had A, then B, which lies there now."""
    for lock in (A, B):
        history.keep(tmp_path, lock, "lock")
    (tmp_path / lockfile.FILE).write_text(lockfile.write(B))
    return Project(folder=tmp_path, config=config.parse(WISHES))


def test_the_lock_before_is_chosen(project: Project) -> None:
    entry, lock = rollback.choose(project, 1, ENGINES)
    assert lock.digest == entry.digest == A.digest
    assert rollback.choose(project, 0, ENGINES)[1].digest == B.digest


def test_a_number_that_is_none_says_which_there_are(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is 0 to 1"):
        rollback.choose(project, 2, ENGINES)
    with pytest.raises(UserError, match="there is none"):
        rollback.choose(Project(folder=tmp_path / "other", config=project.config), 1, ENGINES)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("hf:org/code-GGUF", "hf:org/other-GGUF", "`code` was `hf:org/code-GGUF` and is `hf:org/other-GGUF` now"),
        ('name = "code"', 'name = "coder"', "`code` is not in models.toml now; `coder` was not in it then"),
        ('name = "code"', 'name = "code"\naliases = ["c"]', "`code` had other keys"),
        ('name = "code"', 'name = "code"\nprecision = "Q8_0"', "`code` had other keys"),
    ],
)
def test_a_lock_of_another_models_toml_is_refused_by_what_differs(
    project: Project, before: str, after: str, change: str
) -> None:
    now = msgspec.structs.replace(project.config, model=config.parse(WISHES.replace(before, after)).model)
    with pytest.raises(LockError) as raised:
        rollback.choose(Project(folder=project.folder, config=now), 1, ENGINES)
    assert raised.value.message.endswith(f": {change}")
    assert "models.toml" in str(raised.value.hint)


def test_what_only_the_plan_depends_on_may_differ(project: Project) -> None:
    now = config.parse(WISHES.replace('name = "code"', 'name = "code"\ncontext = 4096'))
    assert rollback.choose(Project(folder=project.folder, config=now), 1, ENGINES)[1].digest == A.digest


def test_engines_stay_those_of_now_and_it_is_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    first = PINS[0]
    old = EnginePin(name=first.name, device=first.device, version="0.0.1", requirements="sha256:0")
    history.keep(project.folder, msgspec.structs.replace(A, engines=(old, *PINS[2:])), "lock")
    _, lock = rollback.choose(project, 0, ENGINES)
    assert set(lock.engines) == set(PINS)
    assert lock.models == lockfile.parse(lockfile.write(A)).models
    said = capsys.readouterr().err
    assert f"{first.name} for {first.device} stays at {first.version} of this ownweights, although 0.0.1 was" in said
    assert f"{PINS[1].name} for {PINS[1].device} stays" in said
    assert said.count("stays at") == 2


def test_a_damaged_lock_is_refused(project: Project) -> None:
    history.lock_file(A.digest).write_bytes(b"?")
    with pytest.raises(LockError, match="damaged"):
        rollback.choose(project, 1, ENGINES)


def test_the_swap_is_written_down(project: Project) -> None:
    with rollback.swapped(project, A, "rollback to a"):
        assert lockfile.read(project.lock_path).digest == A.digest
    assert lockfile.read(project.lock_path).digest == A.digest
    newest = history.entries(project.folder)[0]
    assert (newest.digest, newest.reason) == (A.digest, "rollback to a")


@pytest.mark.parametrize("failure", [PlanError("no room"), KeyboardInterrupt()])
def test_what_fails_is_undone(project: Project, failure: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    before = project.lock_path.read_bytes()
    with pytest.raises(type(failure)), rollback.swapped(project, A, "rollback to a"):
        raise failure
    assert project.lock_path.read_bytes() == before
    assert "models.lock is as it was before" in capsys.readouterr().err
    assert history.entries(project.folder)[0].digest == B.digest


def test_a_lock_that_was_gone_is_not_missed(project: Project) -> None:
    project.lock_path.unlink()
    with pytest.raises(PlanError), rollback.swapped(project, A, "rollback to a"):
        raise PlanError("no room")
    assert not project.lock_path.exists()
