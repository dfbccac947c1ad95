"""A plan with what it costs, by stub engines on small boxes: what is counted, and what is not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deploy import config, environment, lockfile, outlook, paths
from deploy.config import ModelWish
from deploy.errors import ConfigError
from deploy.hardware import Hardware
from deploy.lockfile import Lock, Model, Variant
from deploy.outlook import Asked, Box, Outlook
from deploy.project import Project, engine_pin
from deploy.weights import cache
from tests.deploy.boxes import GB, StubEngine, box, variant


class Installable(StubEngine):
    """Any file will do as its requirement set: nothing is installed here."""

    requirements = Path(__file__)


ENGINE = Installable("stub", "cpu", "gguf")


def project(folder: Path, *names: str, locked: Variant) -> Project:
    """Models of these names, all locked as one variant."""
    text = "".join(
        f'[[model]]\nname = "{name}"\nsource = "hf:org/name"\naliases = ["{name}-alias"]\n' for name in names
    )
    wanted = config.parse(text)
    models = tuple(
        Model(
            name=wish.name,
            aliases=wish.aliases,
            requested=wish.source,
            inputs=lockfile.wish_digest(wish),
            variants=(locked,),
        )
        for wish in wanted.model
    )
    lock = Lock(generator="test", inputs=lockfile.inputs_digest(wanted), models=models, engines=(engine_pin(ENGINE),))
    made = Project(folder=folder, config=wanted)
    made.lock_path.write_text(lockfile.write(lock))
    return made


def of(made: Project | None, hardware: Hardware, *, recorded: bool = False, **asked: object) -> Outlook:
    return outlook.of(
        made,
        Box(hardware=hardware, engines=(ENGINE,), recorded=recorded),
        msgspec.convert(asked, Asked),
    )


def test_what_two_models_share_is_fetched_once(tmp_path: Path) -> None:
    made = project(tmp_path, "one", "two", locked=variant(size=GB))
    found = of(made, box())
    assert [model.model for model in found.models] == ["one", "two"]
    assert found.locked
    assert found.fetch.bytes == GB
    assert of(made, box(), recorded=True).fetch.bytes == GB


def test_what_is_here_is_not_fetched_again_and_not_taken_to_be_on_another_box(tmp_path: Path) -> None:
    locked = variant(size=1000)
    blob = cache.blob(locked, locked.files[0])
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(1000))
    made = project(tmp_path, "one", locked=locked)
    assert of(made, box()).fetch.bytes == 0
    assert of(made, box(), recorded=True).fetch.bytes == 1000


def test_an_environment_is_named_until_it_is_there(tmp_path: Path) -> None:
    made = project(tmp_path, "one", locked=variant())
    assert of(made, box()).fetch.environments == ("stub 1.0 (cpu)",)
    home = environment.folder(ENGINE)
    assert home.is_relative_to(paths.environments_dir())
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").touch()
    record = environment.Environment(
        engine="stub", device="cpu", version="1.0", path=str(home), packages=1, size_bytes=1, install_s=1.0
    )
    (home / environment.RECORD).write_bytes(msgspec.json.encode(record))
    assert of(made, box()).fetch.environments == ()


@pytest.mark.parametrize(("free_bytes", "verdict"), [(None, "fits"), (GB, "fits"), (GB - 1, "no")])
def test_a_disk_whose_room_is_not_known_is_no_reason_against(
    tmp_path: Path, free_bytes: int | None, verdict: str
) -> None:
    made = project(tmp_path, "one", locked=variant(size=GB))
    hardware = box()
    now = msgspec.structs.replace(hardware.now, disk_free_bytes=free_bytes)
    assert of(made, msgspec.structs.replace(hardware, now=now)).verdict == verdict


def test_one_model_shown_has_its_own_verdict_and_fetches_for_itself(tmp_path: Path) -> None:
    made = project(tmp_path, "one", "two", locked=variant(size=3 * GB))
    small = box(free_bytes=4 * GB)
    assert of(made, small).verdict == "no"
    shown = of(made, small, model="one-alias")
    assert [model.model for model in shown.models] == ["one"]
    assert shown.verdict != "no"
    assert of(made, small, model="two").fetch.bytes == 0


def test_context_and_slots_change_the_model_that_is_named_alone(tmp_path: Path) -> None:
    made = project(tmp_path, "one", "two", locked=variant())
    (one,) = of(made, box(), model="one", context=4096, slots=2).models
    (two,) = of(made, box(), model="two").models
    assert (one.settings.context_tokens, one.settings.slots, one.context_fixed) == (4096, 2, True)
    assert (two.settings.context_tokens, two.context_fixed) == (8192, False)
    (alike,) = of(made, box(), model="one", slots=2).models
    assert alike.room_bytes == of(made, box()).models[0].room_bytes
    assert {model.settings.slots for model in of(made, box(), slots=3).models} == {3}


def test_what_is_not_asked_stays_as_it_is_wished() -> None:
    wish = ModelWish(name="chat", context=1000, slots=7)
    assert Asked().change(wish) == wish
    assert Asked(slots=2).change(wish) == ModelWish(name="chat", context=1000, slots=2)


def test_the_nearest_names_are_those_of_models_toml_too(tmp_path: Path) -> None:
    made = project(tmp_path, "assistant", locked=variant())
    with pytest.raises(ConfigError, match=r"in models\.toml or in the catalogue") as caught:
        of(made, box(), model="asistant-alias")
    assert "`assistant-alias`" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="no model `asistant` in the catalogue"):
        of(None, box(), model="asistant")


def test_a_what_if_of_a_row_counts_no_other_model(tmp_path: Path) -> None:
    made = project(tmp_path, "one", locked=variant())
    row = of(made, box(), model="qwen2.5-coder-0.5b")
    assert row == of(None, box(), model="qwen2.5-coder-0.5b")
    assert not row.locked
    assert row.models[0].launch.weights == str(outlook.UNLOCKED)
    assert row.fetch.bytes == row.fetch.disk_bytes == row.models[0].weights_bytes


def test_settings_of_models_toml_hold_for_a_what_if_too(tmp_path: Path) -> None:
    made = project(tmp_path, "one", locked=variant())
    elsewhere = msgspec.structs.replace(made.config, engines=config.EngineWish(cpu="vllm"))
    with pytest.raises(ConfigError, match='cpu = "vllm"'):
        of(Project(folder=tmp_path, config=elsewhere), box(), model="qwen2.5-coder-0.5b")
