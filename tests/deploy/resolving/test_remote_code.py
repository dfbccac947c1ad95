import json

import pytest

from deploy.errors import LockError
from deploy.lockfile import File
from deploy.resolving import remote_code
from deploy.resolving.remote_code import Claim

TOKENIZER = {"auto_map": {"AutoTokenizer": ["tokenization_x.Tokenizer", None]}}
CONFIG = {"auto_map": {"AutoConfig": "configuration_x.Config", "AutoModelForCausalLM": "modeling_x.Model"}}
CODE = tuple(
    File(path=f"{name}_x.py", size=1, sha256=digit * 64)
    for name, digit in (("configuration", "1"), ("modeling", "2"), ("tokenization", "3"))
)
ALLOWED = tuple(f"sha256:{file.sha256}" for file in CODE)


def claims(**files):
    """Of a folder: keyword ``config`` is ``config.json``."""
    encoded = {f"{name}.json": json.dumps(content).encode() for name, content in files.items()}
    return remote_code.claims(encoded, encoded.__getitem__)


def refused(call, *arguments):
    with pytest.raises(LockError) as caught:
        call(*arguments)
    return caught.value


def test_what_the_configurations_name():
    found = claims(config=CONFIG, tokenizer_config=TOKENIZER, preprocessor_config=CONFIG, other=CONFIG)
    assert [(claim.file, claim.name) for claim in found] == [
        ("config.json", "configuration_x.Config"),
        ("config.json", "modeling_x.Model"),
        ("tokenizer_config.json", "tokenization_x.Tokenizer"),
        ("preprocessor_config.json", "configuration_x.Config"),
        ("preprocessor_config.json", "modeling_x.Model"),
    ]


@pytest.mark.parametrize(
    ("auto_map", "names"),
    [
        (None, []),
        ({}, []),
        ([], []),
        ({"AutoTokenizer": None}, []),
        ({"AutoTokenizer": 7}, []),
        ({"AutoTokenizer": "x.T"}, ["x.T"]),
        ({"AutoTokenizer": ["x.T", "x.F"]}, ["x.F", "x.T"]),
        (["x.T", None], ["x.T"]),
        ("x.T", ["x.T"]),
    ],
)
def test_the_forms_of_an_auto_map(auto_map, names):
    assert [claim.name for claim in claims(tokenizer_config={"auto_map": auto_map})] == names


def test_a_configuration_that_is_none_is_refused():
    assert "tokenizer_config.json" in refused(lambda: claims(tokenizer_config=[])).message


def test_every_script_of_the_top_folder_counts_once_something_is_named():
    paths = ["b.py", "a.py", "sub/c.py", "config.json"]
    assert remote_code.scripts(paths, claims(config=CONFIG)) == ("a.py", "b.py")
    assert remote_code.scripts(paths, ()) == ()


def test_a_model_that_the_engines_have_needs_none_but_its_tokenizer_does():
    found = claims(config=CONFIG, tokenizer_config=TOKENIZER)
    known = {"XForCausalLM"}
    assert [one.name for one in remote_code.needed(found, "XForCausalLM", known)] == ["tokenization_x.Tokenizer"]
    assert remote_code.needed(found, "YForCausalLM", known) == found
    assert remote_code.needed(found, None, known) == found


def test_it_may_run_where_every_file_is_allowed(capsys):
    found = claims(config=CONFIG)
    assert remote_code.may_run(CODE, found, found, ALLOWED)
    assert not remote_code.may_run(CODE, found, (), ())
    assert capsys.readouterr().err == ""
    error = refused(remote_code.may_run, CODE, found, found, ALLOWED[:2])
    assert "tokenization_x.py  1 bytes  sha256:" + "3" * 64 in error.message
    assert error.hint.endswith("allow-remote-code = [" + ", ".join(f'"{one}"' for one in ALLOWED) + "]")


def test_an_allowed_hash_that_is_gone_is_said(capsys):
    gone = "sha256:" + "4" * 64
    found = claims(config=CONFIG)
    assert remote_code.may_run(CODE, found, found, (*ALLOWED, gone))
    assert gone in capsys.readouterr().err


@pytest.mark.parametrize("name", ["org/other--modeling_x.Model", "missing.Model", "Model", "", "../modeling_x.Model"])
def test_code_that_cannot_be_pinned_is_refused_whatever_is_allowed(name):
    claimed = (Claim(file="config.json", name=name),)
    assert f"`{name}`" in refused(remote_code.may_run, CODE, claimed, claimed, ALLOWED).message


def test_once_code_runs_every_claim_must_be_of_pinned_files():
    """An engine that trusts the tokenizer's code trusts what config.json names too, known architecture or not."""
    found = claims(config={"auto_map": {"AutoModel": "org/other--x.Model"}}, tokenizer_config=TOKENIZER)
    needed = remote_code.needed(found, "XForCausalLM", {"XForCausalLM"})
    assert [claim.file for claim in needed] == ["tokenizer_config.json"]
    assert "org/other--x.Model" in refused(remote_code.may_run, CODE, found, needed, ALLOWED).message


def test_parts_of_a_multimodal_model_name_classes_too():
    found = claims(
        config={"text_config": CONFIG, "vision_config": 3, "other": CONFIG}, video_preprocessor_config=CONFIG
    )
    assert [claim.file for claim in found] == ["config.json"] * 2 + ["video_preprocessor_config.json"] * 2
