import msgspec
import pytest

from deploy import catalog, config, licence
from deploy.errors import UserError
from deploy.lockfile import Licence, Model, Origin
from tests.deploy import boxes

KIMI = catalog.find("kimi-k2.5").licence


def model(id_, *, repo="org/name", catalogue=None, kind="huggingface"):
    origin = Origin(kind=kind, repo=repo, commit="c" * 40) if kind == "huggingface" else Origin(kind=kind)
    variant = msgspec.structs.replace(boxes.variant(), origin=origin, licence=Licence(id=id_) if id_ else None)
    return Model(name="chat", requested="x", catalogue=catalogue, variants=(variant,))


def terms(one):
    return licence.terms(one, one.variants[0])


def wishes(allowed=None):
    line = f'allow-licence = "{allowed}"' if allowed else ""
    return config.parse(f'[[model]]\nname = "other"\n[[model]]\nname = "chat"\n{line}')


def refusal(one, allowed=None):
    assert not licence.accepted(wishes(allowed), one, one.variants[0])
    with pytest.raises(UserError) as caught:
        licence.refuse(wishes(allowed), one, one.variants[0])
    return caught.value


def passes(one, allowed=None):
    licence.refuse(wishes(allowed), one, one.variants[0])
    return licence.accepted(wishes(allowed), one, one.variants[0])


@pytest.mark.parametrize(
    ("tag", "name", "expected"),
    [
        ("apache-2.0", None, "Apache-2.0"),
        ("MIT ", None, "MIT"),
        ("bsd-3-clause", None, "BSD-3-Clause"),
        ("cc-by-nc-4.0", None, "CC-BY-NC-4.0"),
        ("gpl-3.0", None, "GPL-3.0"),
        ("odbl", None, "ODbL-1.0"),
        ("llama3.1", None, "LicenseRef-llama3.1"),
        ("openrail++", None, "LicenseRef-openrail--"),
        ("bsd", None, "LicenseRef-bsd"),
        ("other", "modified-mit", "LicenseRef-modified-mit"),
        ("other", "MIT", "LicenseRef-MIT"),
        ("other", 'a "b"/c', "LicenseRef-a--b--c"),
        ("other", " ", "LicenseRef-org-model"),
        ("other", None, "LicenseRef-org-model"),
        ("unknown", None, None),
        ("", None, None),
        (None, "mit", None),
    ],
)
def test_the_tags_of_the_hub_in_the_words_of_spdx(tag, name, expected):
    assert licence.spdx(tag, name, "org/model") == expected


def test_a_name_without_end_becomes_a_short_reference():
    assert len(licence.spdx("other", "x" * 10**6, "org/model")) < 200


def test_the_catalogue_speaks_for_its_model():
    found = terms(model(KIMI.spdx, catalogue="kimi-k2.5"))
    assert (found.commercial, found.condition, found.source) == ("conditions", KIMI.note, KIMI.source)


def test_the_catalogue_speaks_for_its_repositories_whatever_the_case():
    assert terms(model(KIMI.spdx.lower(), repo="MoonshotAI/kimi-k2.5")).commercial == "conditions"
    gguf = next(row for row in catalog.rows() if row.gguf and row.licence.commercial == "yes")
    found = terms(model(gguf.licence.spdx, repo=gguf.gguf[0].hf_repo))
    assert (found.commercial, found.condition, found.source) == ("yes", None, gguf.licence.source)


def test_a_cards_own_name_for_it_is_the_beginning_of_the_catalogues():
    found = terms(model("LicenseRef-modified-mit", repo="moonshotai/Kimi-K2.5"))
    assert (found.id, found.commercial, found.condition) == ("LicenseRef-modified-mit", "conditions", KIMI.note)


@pytest.mark.parametrize("id_", ["LicenseRef-Modified-MI", "LicenseRef-", "MIT", None])
def test_its_word_does_not_hold_for_another_licence(id_):
    found = terms(model(id_, repo="moonshotai/Kimi-K2.5"))
    assert found.commercial == "unknown"
    assert KIMI.spdx in found.condition
    assert KIMI.note in found.condition


def test_a_copy_of_other_precision_finds_the_terms_of_its_model():
    found = terms(model(KIMI.spdx, repo="nvidia/Kimi-K2.5-NVFP4"))
    assert (found.commercial, found.source) == ("conditions", KIMI.source)
    assert KIMI.spdx in terms(model("MIT", repo="nvidia/kimi-k2.5-nvfp4")).condition


@pytest.mark.parametrize("name", ["qwen3-8b", "kimi-k2.5"])
def test_a_ban_is_one_whatever_the_catalogue_says_of_the_model(name):
    row = catalog.find(name)
    found = terms(model("CC-BY-NC-4.0", catalogue=name))
    assert found.commercial == "no"
    assert found.source == "https://spdx.org/licenses/CC-BY-NC-4.0.html"
    assert found.condition.startswith("NonCommercial purposes only; the catalogue knows")
    assert row.licence.spdx in found.condition
    assert "forbids commercial use" in refusal(model("CC-BY-NC-4.0", catalogue=name)).message


@pytest.mark.parametrize(
    ("id_", "commercial"),
    [
        ("Apache-2.0", "yes"),
        ("MIT", "yes"),
        ("CC-BY-4.0", "yes"),
        ("CC-BY-NC-4.0", "no"),
        ("CC-BY-NC-SA-3.0", "no"),
        ("CC-BY-SA-4.0", "unknown"),
        ("AGPL-3.0", "unknown"),
        ("LicenseRef-MIT", "unknown"),
        ("MIT AND LicenseRef-x", "unknown"),
        (None, "unknown"),
    ],
)
def test_without_a_row_the_id_alone_speaks(id_, commercial):
    assert terms(model(id_)).commercial == commercial


def test_what_asks_for_nothing_passes():
    assert passes(model("Apache-2.0"))


def test_conditions_are_quoted_with_the_line_that_accepts_them():
    error = refusal(model(KIMI.spdx, catalogue="kimi-k2.5"))
    assert error.exit_code == 1
    assert KIMI.note in error.message
    assert KIMI.source in error.message
    assert error.where == "models.toml"
    assert 'name = "chat"' in error.hint
    assert error.hint.endswith(f'allow-licence = "{KIMI.spdx}"')
    assert passes(model(KIMI.spdx, catalogue="kimi-k2.5"), KIMI.spdx)


@pytest.mark.parametrize("id_", ["CC-BY-NC-4.0", "LicenseRef-llama3.1", "LicenseRef-x"])
def test_no_commercial_use_and_unknown_terms_wait_for_a_word(id_):
    assert f'allow-licence = "{id_}"' in refusal(model(id_)).hint
    assert passes(model(id_), id_)
    assert passes(model(id_), id_.upper())


def test_a_word_for_another_licence_is_none():
    error = refusal(model("LicenseRef-new"), "LicenseRef-old")
    assert "LicenseRef-old" in error.message
    assert "LicenseRef-new" in error.message
    assert "LicenseRef-old" in refusal(model("MIT"), "LicenseRef-old").message


def test_a_repository_without_a_licence_waits_too():
    assert 'allow-licence = "NOASSERTION"' in refusal(model(None)).hint
    assert passes(model(None), "NOASSERTION")


def test_a_file_of_ones_own_needs_no_word_unless_it_names_a_licence():
    assert passes(model(None, kind="path"))
    assert "CC-BY-NC-4.0" in refusal(model("CC-BY-NC-4.0", kind="path")).message


def test_a_gated_repository_is_no_condition():
    one = model("Apache-2.0")
    gated = msgspec.structs.replace(one.variants[0], licence=Licence(id="Apache-2.0", gated=True))
    licence.refuse(wishes(), one, gated)
