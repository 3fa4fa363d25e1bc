"""The reference pages name every key, with its default; every picture is shown on a page."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hetmarl.cli.evaluate import EvaluateConfig
from hetmarl.cli.plot import PlotConfig
from hetmarl.cli.render import RenderConfig
from hetmarl.conf import Settings
from hetmarl.conf.settings import known_keys

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = DOCS / "reference"
ROW = re.compile(r"^\| `([\w.]+)` \| `([^`]*)` \|", re.MULTILINE)
SECTIONS = ("eval", "checkpoint", "trainer", "data", "network")


@pytest.mark.parametrize("algorithm", ["hasac", "haddpg", "happo"])
def test_configuration_page_has_every_key_with_its_default(
    settings: Callable[..., Settings], algorithm: str
) -> None:
    page = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")}
    others = {
        "hasac": ("Deterministic policies", "On policy"),
        "haddpg": ("Network", "On policy"),
        "happo": ("Data", "Network", "Deterministic policies"),
    }[algorithm]
    stated = dict(ROW.findall("".join(text for t, text in sections.items() if t not in others)))
    keys = {key for key in known_keys(algorithm) if not key.startswith("algo.")}
    assert set(stated) == keys - set(SECTIONS)
    values = OmegaConf.create(settings(f"algo={algorithm}").to_dict())
    for key, default in stated.items():
        if key not in ("algo", "task"):
            assert _same(default, OmegaConf.select(values, key)), key


def _same(stated: str, value: object) -> bool:
    return bool(OmegaConf.create(f"x: {stated}").x == value)


@pytest.mark.parametrize("config", [EvaluateConfig, RenderConfig, PlotConfig])
def test_command_line_page_has_every_argument(config: type) -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    name = config.__name__.removesuffix("Config").lower()
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    stated = dict(ROW.findall(section))
    assert set(stated) == {field.name for field in dataclasses.fields(config)}
    for field in dataclasses.fields(config):
        assert _same(stated[field.name], field.default), field.name


def test_every_picture_is_shown_on_a_page() -> None:
    """The tables beside them, csv, are held against the pages by the studies' tests."""
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = {Path(name).name for name in re.findall(r"assets/([\w./-]+)", text)}
    pictures = {p.name for p in (DOCS / "assets").rglob("*") if p.suffix in (".png", ".gif")}
    assert pictures and pictures <= shown, sorted(pictures - shown)
