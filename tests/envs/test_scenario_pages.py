"""What the pages of VMAS and MPE say of scenarios agrees with their tables of sizes.

That those are the environments' is tested in ``test_vmas.py`` and ``test_mpe.py``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "environments"


def tables(family: str) -> list[dict[str, list[str]]]:
    """Each table that has a row per task: task to the row's other cells."""
    found = re.findall(r"^\| task \|.*\n\|[-|]*\n((?:\|.*\n)+)", page(family), re.MULTILINE)
    rows = [[line.strip("| ").split(" | ") for line in table.splitlines()] for table in found]
    return [{cells[0]: cells[1:] for cells in table} for table in rows]


def page(family: str) -> str:
    return (PAGES / f"{family}.md").read_text()


def entries(text: str) -> int:
    """The sum of the numbers and products in a text, as ``landmarks 3 × 2, message 10``."""
    terms = re.findall(r"\d+(?: × \d+)*(?=[,;]|$)", text)
    return sum(math.prod(int(factor) for factor in term.split(" × ")) for term in terms)


@pytest.mark.parametrize("family", ["vmas", "mpe"])
def test_sizes_of_what_agents_see(family: str) -> None:
    sizes, meanings = tables(family)
    assert set(sizes) == set(meanings)
    for task, (groups, *_) in sizes.items():
        expected = [int(size) for size in re.findall(r"\((\d+),", groups)]
        seen = [entries(group) for group in meanings[task][0].split(" · ")]
        if len(seen) == 1:
            seen *= len(expected)
        assert seen == expected, task
