from __future__ import annotations

from benchmarks.markdown import bullets, table


def test_figures_stand_right_words_left_and_unknown_is_said() -> None:
    assert table(("who", "$"), [("a", "$1"), ("bcd", None)]) == "\n".join(
        ("| who |       $ |", "| --- | ------: |", "| a   |      $1 |", "| bcd | unknown |")
    )


def test_a_table_without_rows_is_its_heading() -> None:
    assert table(("c",), []) == "| c   |\n| --- |"


def test_bullets() -> None:
    assert bullets(("a", "b")) == "- a\n- b"
