from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from hetmarl.typed import build, unknown_key
from hetmarl_envs.errors import ConfigError, UnknownNameError


@dataclass
class Inner:
    rate: float = 0.5


@dataclass
class Outer:
    count: int = 1
    on: bool = False
    rate: float = 0.1
    rate_or_name: float | str = "auto"
    kind: Literal["red", "green"] = "red"
    names: list[str] = field(default_factory=list)
    pair: tuple[int, float] = (1, 1.0)
    sizes: tuple[int, ...] = ()
    path: Path | None = None
    table: dict[str, int] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    anything: Any = None


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("count", 1e6, 1_000_000),
        ("rate", 1, 1.0),
        ("rate_or_name", 1, 1.0),
        ("rate_or_name", "fixed", "fixed"),
        ("kind", "green", "green"),
        ("names", ["a", "b"], ["a", "b"]),
        ("pair", [2, 3], (2, 3.0)),
        ("sizes", [1, 2, 3], (1, 2, 3)),
        ("path", "a/b", Path("a/b")),
        ("path", None, None),
        ("table", {"a": 1}, {"a": 1}),
        ("inner", {"rate": 2}, Inner(2.0)),
        ("anything", {"x": [1]}, {"x": [1]}),
    ],
)
def test_values_become_the_fields_types(key: str, given: Any, expected: Any) -> None:
    value = getattr(build(Outer, {key: given}), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("count", 1.5, "o.count=1.5: expected a whole number"),
        ("count", True, "o.count=True: expected a whole number"),
        ("count", "3", "o.count='3': expected a whole number"),
        ("count", None, "o.count=None: expected a whole number"),
        ("on", 1, "o.on=1: expected true or false"),
        ("rate", "fast", "o.rate='fast': expected a number"),
        ("rate", float("nan"), "o.rate=nan: expected a number"),
        ("rate_or_name", [1], "expected a number or a text"),
        ("kind", "gren", "expected one of red, green. Did you mean 'green'?"),
        ("names", "a", "expected a list, such as names=[a,b]"),
        ("names", [1], "o.names[0]=1: expected a text"),
        ("pair", [1], "expected 2 values"),
        ("table", {"a": "x"}, "o.table.a='x': expected a whole number"),
        ("inner", 3, "expected keys of its own, such as o.inner.rate"),
        ("inner", {"rate": "x"}, "o.inner.rate='x': expected a number"),
    ],
)
def test_wrong_types_say_what_was_expected(key: str, given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, {key: given}, "o")
    assert message in str(caught.value)


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown key 'o\.cuont'\. Did you mean 'o\.count'"):
        build(Outer, {"cuont": 1}, "o")


def test_errors_of_a_users_own_dataclass_are_ours() -> None:
    @dataclass
    class Theirs:
        size: int = 1

        def __post_init__(self) -> None:
            if self.size < 1:
                raise ValueError("size must be positive")

    with pytest.raises(ConfigError, match="mine: size must be positive"):
        build(Theirs, {"size": 0}, "mine")


def test_a_key_of_the_same_name_elsewhere_comes_first() -> None:
    known = ["gama_ray", "algo.gamma", "data.gammas"]
    assert "'algo.gamma'" in str(unknown_key("gamma", known))
