"""The table of GPUs: its rows are sound, and product names as NVML gives them find the right one."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from deploy.hardware import GENERATIONS, gpus


@pytest.mark.parametrize(
    ("product", "row", "bandwidth_gbps"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM", 3350),
        ("NVIDIA H100 PCIe", "H100 PCIe", 2000),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM4 40GB", 1555),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB", 2039),
        ("A100-SXM4-80GB", "A100 SXM4 80GB", 2039),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 1008),
        ("GeForce RTX 3090", "RTX 3090", 936),
        ("Tesla T4", "T4", 320),
        ("NVIDIA H200", "H200 SXM", 4800),
        ("NVIDIA B200", "B200 SXM", 7700),
        ("NVIDIA L40S", "L40S", 864),
    ],
)
def test_product_names_find_their_row(product: str, row: str, bandwidth_gbps: int) -> None:
    found = gpus.find(product)
    assert found is not None
    assert (found.name, found.bandwidth_bytes_per_s) == (row, bandwidth_gbps * 1e9)


@pytest.mark.parametrize(
    "product",
    [
        None,
        "",
        "NVIDIA ",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA H200 NVL",
        "NVIDIA L40",
        "AMD Instinct MI300X",
    ],
)
def test_a_name_that_is_only_like_one_finds_nothing(product: str | None) -> None:
    assert gpus.find(product) is None


def test_a_row_without_a_confirmed_bandwidth_says_so() -> None:
    found = gpus.find("NVIDIA GeForce RTX 5090")
    assert found is not None
    assert found.bandwidth_bytes_per_s is None


def test_every_row_has_a_source_and_a_date_and_names_of_its_own() -> None:
    names = Counter(name for row in gpus.rows() for name in row.nvml)
    assert set(names.values()) == {1}
    for row in gpus.rows():
        assert row.nvml, row.name
        assert row.source, row.name
        assert date(2026, 1, 1) <= row.as_of, row.name
        assert row.compute_capability in GENERATIONS, row.name
        assert row.bandwidth_gbps is None or 200 < row.bandwidth_gbps < 10_000, row.name


def test_the_two_figures_for_memory_agree() -> None:
    """One is the product's name, the other what the board has, from which ECC may take a part."""
    for row in gpus.rows():
        if row.memory_bytes is not None:
            assert 0.93 < row.memory_bytes / (row.memory_gb << 30) < 1.01, row.name
