"""The documentation names what exists, and its numbers are those of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hetmarl.algorithms import get_algorithm, list_algorithms
from tests.packaging.source_tree import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|<img[^>]*src=\"([^\"]+)\"")


def prose(page: Path) -> str:
    """The page without code and comments."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of the page's headings, as Markdown renderers make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    titles = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for found in LINK.finditer(prose(page)):
        link = found[1] or found[2]
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target)
        ):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_menu() -> None:
    def leaves(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        parts = node.values() if isinstance(node, dict) else node
        return [leaf for part in parts for leaf in leaves(part)]

    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(leaves(menu)) == sorted(pages)


def test_included_files_exist() -> None:
    for page in PAGES:
        for name in re.findall(r'--8<-- "([^"]+)"', page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} includes {name}"


def test_readme_starts_with_exactly_two_commands() -> None:
    blocks = re.findall(
        r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    assert blocks[0].strip() == "pip install -e . && python recipes/train.py algo=hasac"
    assert blocks[1].strip() == "pip install tox && tox"


@pytest.mark.parametrize("algorithm", list_algorithms())
def test_hyperparameters_on_the_page_are_those_of_the_code(algorithm: str) -> None:
    text = (ROOT / "docs" / "algorithms" / f"{algorithm}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \| [^|]* \|$", text, flags=re.MULTILINE)
    stated = {
        name: value.strip() for names, value in rows for name in re.findall(r"`(\w+)`", names)
    }
    fields = [*dataclasses.fields(get_algorithm(algorithm).load("config"))]
    for field in fields:
        if dataclasses.is_dataclass(field.default_factory):  # keys of its own, in a table below
            assert isinstance(field.default_factory, type)
            fields += dataclasses.fields(field.default_factory)
            continue
        assert field.name in stated, f"algo.{field.name} is not on the page"
        value = field.default
        assert _same(stated[field.name], value), (
            f"algo.{field.name} is {value} by default, the page says {stated[field.name]}"
        )


def _same(text: str, value: object) -> bool:
    if value is None or isinstance(value, (bool, str)):
        return text.lower() == str(value).lower()
    try:
        return float(text) == value
    except ValueError:
        return False
