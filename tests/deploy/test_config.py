from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import config
from deploy.config import TABLES
from deploy.errors import ConfigError


def refused(text):
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    return caught.value


def test_three_lines_are_a_whole_file():
    found = config.parse('[[model]]\nname = "chat"\nsource = "qwen3-8b"\n')
    assert [(wish.name, wish.source, wish.aliases) for wish in found.model] == [("chat", "qwen3-8b", ())]
    assert (found.server.host, found.server.port) == ("127.0.0.1", 8000)


def test_source_may_be_left_out():
    assert config.parse('[[model]]\nname = "chat"').model[0].source == "auto"


def test_money_is_decimal_to_the_last_digit():
    found = config.parse('[[model]]\nname = "a"\n[cost]\nusd-per-hour = 0.1\nutilisation = 1\n')
    assert found.cost.usd_per_hour == Decimal("0.1")
    assert found.cost.utilisation == Decimal(1)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ('[[model]]\nname = "a"\nsorce = "b"', "sorce", "source"),
        ('[[model]]\nname = "a"\n[server]\nprot = 1', "prot", "port"),
        ('modle = 1\n[[model]]\nname = "a"', "modle", "model"),
        ('[[model]]\nname = "a"\n[cost]\nusd_per_hour = 1', "usd_per_hour", "usd-per-hour"),
    ],
)
def test_an_unknown_key_names_the_nearest(text, key, near):
    error = refused(text)
    assert f"`{key}`" in error.message
    assert f"`{near}`" in error.hint


def test_an_unknown_key_with_nothing_near_lists_what_is_valid():
    assert "host, port" in refused('[[model]]\nname = "a"\n[server]\nzzzzzz = 1').hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [[model]]"),
        ("[[model]]", "name"),
        ('[[model]]\nname = "a"\nslots = "many"', "slots"),
        ('[[model]]\nname = "a"\nslots = 0', "at least 1"),
        ('[[model]]\nname = "a"\ncontext = -1', "at least 1"),
        ('[[model]]\nname = "a b"', "cannot be a model name"),
        ('[[model]]\nname = "a"\n[[model]]\nname = "a"', "used twice"),
        ('[[model]]\nname = "a"\naliases = ["b"]\n[[model]]\nname = "b"', "used twice"),
        ('[[model]]\nname = "a"\n[server]\nport = 0', "1 to 65535"),
        ('[[model]]\nname = "a"\n[server]\nport = 65536', "1 to 65535"),
        ('[[model]]\nname = "a"\n[engines]\ncpu = "sglang"', "engines.cpu"),
        ("[[model]\n", "not valid TOML"),
        ('"=".' + ".".join("a" * 30000) + " = 1", "too many parts"),
        ("x = " + "[" * 5000 + "]" * 5000, "without end"),
        ("model = 3", "model"),
        ('[model]\nname = "a"', "model"),
    ],
)
def test_a_wrong_value_is_named(text, words):
    assert words in refused(text).message


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path / "models.toml")
    assert caught.value.where == str(tmp_path / "models.toml")
    assert "[[model]]" in caught.value.hint


def test_a_mark_of_the_byte_order_is_no_content(tmp_path):
    (tmp_path / "models.toml").write_text('[[model]]\nname = "a"\n', encoding="utf-8-sig")
    assert config.read(tmp_path / "models.toml").model[0].name == "a"


def test_a_file_of_other_bytes_is_one_error(tmp_path):
    (tmp_path / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read(tmp_path / "models.toml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "port", "x"]), inner),
    max_leaves=5,
)


@given(table=st.sampled_from([name for name in TABLES if name]), value=VALUES)
def test_no_shape_of_a_table_escapes_as_another_error(table, value):
    text = f"{table} = {_toml(value)}\n"
    with suppress(ConfigError):
        config.parse(text if table == "model" else text + '[[model]]\nname = "a"')


def _toml(value):
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value if not 0xD800 <= ord(letter) < 0xE000) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    return str(value)
