from hypothesis import given
from hypothesis import strategies as st

from deploy import memory
from deploy.dimensions import Cache
from deploy.memory import Term
from tests.deploy import boxes

COUNT = st.integers(1, 4096)
GQA = st.builds(
    Cache,
    kind=st.sampled_from(["gqa", "hybrid-gqa"]),
    layers=COUNT,
    kv_heads=st.integers(1, 256),
    key_width=COUNT,
    value_width=COUNT,
)
MLA = st.builds(Cache, kind=st.just("mla"), layers=COUNT, rank=COUNT, rotary_width=COUNT)


@given(GQA | MLA, COUNT)
def test_bytes_per_token_grow_with_the_layers_and_are_never_negative(cache, more):
    longer = type(cache)(**{name: getattr(cache, name) for name in cache.__struct_fields__} | {"layers": more})
    assert cache.bytes_per_token > 0
    assert cache.bytes_per_token * more == longer.bytes_per_token * cache.layers


def test_the_sum_of_a_table_counts_a_measured_difference():
    lines = [
        Term(name="a", bytes=size, formula="", provenance="measured", confidence="exact", source="") for size in (5, -2)
    ]
    assert memory.total(tuple(lines)) == 3
    assert memory.total(()) == 0


def test_weights_are_the_files_with_tensors_and_before_they_are_known_what_the_source_says():
    held = boxes.variant(size=1000)
    assert memory.weights_bytes(held) == 1000
    row = type(held)(**{name: getattr(held, name) for name in held.__struct_fields__} | {"files": (), "size": 7})
    assert memory.weights_bytes(row) == 7
