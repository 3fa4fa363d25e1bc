"""Plain values, as Hydra and YAML give them, into dataclasses: types checked, errors named."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from hetmarl_envs.errors import ConfigError, HetmarlError, UnknownNameError, nearest

T = TypeVar("T")

_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "null",
}


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """An instance of a dataclass from plain values.

    Args:
        cls: the dataclass; its annotations are the types, its ``__post_init__`` the ranges.
        values: field to value; fields left out keep their default.
        where: dotted prefix of the fields in messages, such as ``"algo"``.

    Raises:
        UnknownNameError: no such field; names the nearest.
        ConfigError: a value of the wrong type or out of range.
    """
    hints = typing.get_type_hints(cls)
    names = field_names(cls)
    for key in values:
        if key not in names:
            raise unknown_key(_join(where, key), (_join(where, name) for name in names))
    kwargs = {key: convert(value, hints[key], _join(where, key)) for key, value in values.items()}
    try:
        return cls(**kwargs)
    except HetmarlError:
        raise
    except (TypeError, ValueError) as error:  # somebody else's dataclass
        raise ConfigError(f"{where or cls.__name__}: {error}") from error


def field_names(cls: type) -> list[str]:
    """Fields that can be set, in order."""
    return [field.name for field in dataclasses.fields(cls) if field.init]


def keys(cls: type, where: str) -> list[str]:
    """Fields that can be set as dotted keys; of a field that is a dataclass: that one's."""
    hints, found = typing.get_type_hints(cls), []
    for name in field_names(cls):
        inner, key = hints[name], _join(where, name)
        nested = isinstance(inner, type) and dataclasses.is_dataclass(inner)
        found += keys(inner, key) if nested else [key]
    return found


def unknown_key(key: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a key that does not exist, with the key that was probably meant.

    A key of the same name in another section (``gamma`` for ``algo.gamma``) comes before one that
    is merely spelt alike.
    """
    options = list(known)
    leaf = key.rpartition(".")[2]
    namesakes = [option for option in options if option.rpartition(".")[2] == leaf]
    siblings = [option for option in options if option.rpartition(".")[0] == key.rpartition(".")[0]]
    match = "".join(namesakes[:1]) or nearest(key, siblings) or nearest(key, options)
    hint = f" Did you mean '{match}'?" if match else ""
    return UnknownNameError(f"unknown key '{key}'.{hint} `hetmarl train --cfg job` shows them all.")


def convert(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type ``hint``, or a ``ConfigError`` that says what was expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, (str, TypeVar)):
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, where)
    if origin is Literal:
        if value in arguments:
            return value
        options = [str(argument) for argument in arguments]
        match = nearest(str(value), options)
        meant = f" Did you mean '{match}'?" if match else ""
        raise ConfigError(f"{where}={value!r}: expected one of {', '.join(options)}.{meant}")
    if origin in (list, tuple, set, frozenset) or _is_abstract(origin, "Sequence", "Iterable"):
        return _sequence(value, origin, arguments, where)
    if origin is dict or hint is dict or _is_abstract(origin, "Mapping", "MutableMapping"):
        if not isinstance(value, Mapping):
            raise _wrong(value, "a mapping such as {key: value}", where)
        inner = arguments[1] if len(arguments) == 2 else Any
        return {key: convert(item, inner, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(value, f"keys of its own, such as {where}.{field_names(hint)[0]}", where)
        return build(hint, value, where)
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: Any, where: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float:
        if not is_number or math.isnan(value):
            raise _wrong(value, _EXPECTED[float], where)
        return float(value)
    if hint is int:
        if not is_number or not math.isfinite(value) or value != int(value):
            raise _wrong(value, _EXPECTED[int], where)
        return int(value)  # 1e6 is a whole number
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise _wrong(value, _EXPECTED.get(hint, f"a {hint.__name__}"), where)
    return value


def _one_of(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    if type(value) in hints:
        return value
    for hint in hints:
        try:
            return convert(value, hint, where)
        except HetmarlError:
            if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
                raise  # the only member that takes keys: its own message is the better one
    expected = [_described(hint) for hint in hints]
    raise _wrong(value, " or ".join(expected), where)


def _sequence(value: Any, origin: Any, arguments: tuple[Any, ...], where: str) -> Any:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise _wrong(value, f"a list, such as {where.rpartition('.')[2]}=[a,b]", where)
    items = list(value)
    variadic = len(arguments) == 2 and arguments[1] is Ellipsis
    if origin is tuple and arguments and not variadic:
        if len(items) != len(arguments):
            raise _wrong(value, f"{len(arguments)} values", where)
        inner: list[Any] = list(arguments)
    else:
        inner = [arguments[0] if arguments else Any] * len(items)
    converted = [
        convert(item, hint, f"{where}[{i}]")
        for i, (item, hint) in enumerate(zip(items, inner, strict=True))
    ]
    return origin(converted) if origin in (tuple, set, frozenset) else converted


def _described(hint: Any) -> str:
    if typing.get_origin(hint) is list:
        return f"a list such as {_example(hint)}"
    return _EXPECTED.get(hint, str(hint))


def _example(hint: Any) -> str:
    """``[[a,b],[a,b]]`` for ``list[list[str]]``, ``[1,2]`` for ``list[int]``."""
    (inner,) = typing.get_args(hint)
    if typing.get_origin(inner) is list:
        return f"[{_example(inner)},{_example(inner)}]"
    return "[1,2]" if inner in (int, float) else "[a,b]"


def _is_abstract(origin: Any, *names: str) -> bool:
    return getattr(origin, "__module__", "") == "collections.abc" and origin.__name__ in names


def _wrong(value: Any, expected: str, where: str) -> ConfigError:
    return ConfigError(f"{where}={value!r}: expected {expected}.")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
