"""What models.lock says may run, and models.toml does not."""

import msgspec
import pytest

from deploy import config, permission
from deploy.errors import UserError
from deploy.lockfile import File, Model, Origin, Variant
from deploy.soundness import tree_digest

WISH = '[[model]]\nname = "chat"\n{}\n'
CODE = tuple(File(path=f"{name}.py", size=1, sha256=digit * 64) for name, digit in (("modeling", "1"), ("tokens", "2")))
WEIGHTS = File(path="model.safetensors", size=1, sha256="3" * 64)


def model(*files: File, **keys: str) -> Model:
    plain = Variant(
        format="safetensors",
        precision="bf16",
        size=len(files),
        tree=tree_digest(files),
        origin=Origin(kind="path"),
        files=files,
        code=CODE,
    )
    return Model(name="chat", requested="x", variants=(msgspec.structs.replace(plain, **keys),))


def refused(wish: str, found: Model) -> UserError:
    with pytest.raises(UserError) as caught:
        permission.refuse(config.parse(WISH.format(wish)), found, found.variants[0])
    assert caught.value.where == "models.toml"
    return caught.value


def test_code_that_is_listed_and_not_fetched_needs_nothing() -> None:
    found = model(WEIGHTS)
    permission.refuse(config.parse(WISH.format("")), found, found.variants[0])


def test_every_file_of_code_must_be_allowed_by_its_hash() -> None:
    found = model(WEIGHTS, *CODE)
    line = 'allow-remote-code = ["sha256:{}", "sha256:{}"]'
    permission.refuse(config.parse(WISH.format(line.format("1" * 64, "2" * 64))), found, found.variants[0])
    for wish in ("", line.format("1" * 64, "3" * 64)):
        error = refused(wish, found)
        assert line.format("1" * 64, "2" * 64) in str(error.hint)
    assert "`tokens.py`" in error.message


def test_pickles_must_be_allowed() -> None:
    found = model(File(path="pytorch_model.bin", size=1, sha256="4" * 64), format="pickle")
    permission.refuse(config.parse(WISH.format("allow-pickle = true")), found, found.variants[0])
    assert "allow-pickle = true" in str(refused("", found).hint)


def test_a_model_that_is_not_wished_for_may_run_nothing() -> None:
    assert "`modeling.py`" in refused("", msgspec.structs.replace(model(*CODE), name="other")).message
