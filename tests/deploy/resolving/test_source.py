import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import ConfigError
from deploy.resolving.source import Source, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Source(kind="auto")),
        ("qwen3-8b", Source(kind="catalogue", name="qwen3-8b")),
        ("hf:Qwen/Qwen3-8B", Source(kind="hf", name="Qwen/Qwen3-8B")),
        ("hf:Qwen/Qwen3-8B@v1.0", Source(kind="hf", name="Qwen/Qwen3-8B", revision="v1.0")),
        ("hf:o/n@refs/pr/3", Source(kind="hf", name="o/n", revision="refs/pr/3")),
        ("file:models/x.gguf", Source(kind="file", name="models/x.gguf")),
        ("file:/abs/a b.gguf", Source(kind="file", name="/abs/a b.gguf")),
    ],
)
def test_every_form(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:name", "hf:/name", "hf:a/b/c", "hf:a/b@", "hf:a/b@x y", "hf:../b", "hf:a/..", "hf:a/b@../c", "file:"],
)
def test_a_malformed_source_says_what_to_write(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.hint.startswith("write source = ")


@given(st.text())
def test_a_hub_source_never_leaves_its_place_in_a_url(text):
    try:
        found = parse(f"hf:{text}")
    except ConfigError:
        return
    assert found.name.count("/") == 1
    assert not {"..", "?", "#", "%", "\\"} & set(found.name + found.revision)
    assert ".." not in found.name + found.revision
