"""The options that VMAS's scenarios read: their names, their defaults, what they may be."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hetmarl_envs.options import (
    ANYTHING,
    FLAG,
    TEXT,
    Kind,
    check,
    check_names,
    is_number,
    number,
    numbers,
    optional,
    whole,
)
from hetmarl_envs.vmas.scenarios import load_scenario

if TYPE_CHECKING:
    from vmas.simulator.scenario import BaseScenario

# Whole numbers of which a scenario needs one at least. Other options that are counts by name may be
# 0; all others are numbers, also where the default is whole: VMAS writes 1 where it means a factor.
_ONE_AT_LEAST = frozenset(
    "agents_per_target agents_with_same_goal dim_c formation_agents_per_column "
    "max_ref_path_points n_adversaries n_agents n_blue_agents n_food n_gaussians "
    "n_nearing_agents_observed n_packages n_passages n_points_short_term n_steps_before_recording "
    "n_stored_steps n_targets num_adversaries num_food num_forests num_good_agents "
    "sample_interval_ref_path".split()
)
_COUNT = re.compile(r"(n|num)_.+|dt_delay")
_NOT_NEGATIVE = re.compile(
    r"(.+_)?(mass|radius|length|width|range|noise|noise_level|size|semidim|max_speed)(_1)?"
)
# Those whose default does not say what they may be.
_NAMED = {
    "max_speed_1": optional(number(0)),
    "map_file_path": optional(TEXT),
    "max_steering_angle": Kind(
        "a number, in radians", lambda value: is_number(value) or isinstance(value, Tensor)
    ),
}


def scenario_options(scenario: str | type[BaseScenario]) -> dict[str, str]:
    """The options that a scenario reads, each with its default as written in the source.

    VMAS scenarios declare no options: they take them out of ``kwargs`` one by one, in
    ``make_world`` or in what it calls. So the source of the class and of its parents is read for
    ``kwargs.pop("name", default)`` and ``kwargs.get("name", default)``.

    Args:
        scenario: a name or a class.

    Returns:
        Option name to default, in the order of the source; empty where no source is found.
    """
    cls: Any = load_scenario(scenario) if isinstance(scenario, str) else scenario
    return dict(_read_options(cls))


@lru_cache(maxsize=64)  # the longest source takes a second
def _read_options(cls: type[BaseScenario]) -> dict[str, str]:
    options: dict[str, str] = {}
    for parent in cls.__mro__[:-1]:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(parent)))
        except (OSError, TypeError):  # defined at a prompt: no file to read
            continue
        for node in ast.walk(tree):
            option = _read_option(node)
            if option is not None:
                options.setdefault(*option)
    return options


def _read_option(node: ast.AST) -> tuple[str, str] | None:
    if not (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("pop", "get")
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "kwargs"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ):
        return None
    default = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
    return node.args[0].value, default


def check_scenario_options(
    cls: type[BaseScenario], given: Mapping[str, Any], own: Sequence[str], where: str
) -> None:
    """Refuses an option that the scenario does not read, or a value that it does not take.

    Args:
        cls: the scenario.
        given: the options that were passed on to the scenario.
        own: names of the environment's own options, for the suggestion and the list.
        where: what the message calls the environment, such as ``"vmas/balance"``.

    Raises:
        ConfigError: one of them does not fit; says what was expected.
    """
    known = scenario_options(cls)
    if not known and "make_world" not in vars(cls):
        return
    check_names(where, given, known, own)
    for option, value in given.items():
        kind = _kind(option, known[option], known, cls)
        check(where, option, value, kind, f"; the scenario's default is {known[option]}")


def _kind(option: str, default: str, known: Mapping[str, str], cls: type[BaseScenario]) -> Kind:
    """What an option may be, by its name and its default as written; anything if neither tells."""
    if option in _NAMED:
        return _NAMED[option]
    if not default:
        return ANYTHING
    node = ast.parse(default, mode="eval").body
    if isinstance(node, (ast.Tuple, ast.List)):
        return numbers(len(node.elts))
    if isinstance(node, ast.BinOp):  # computed, such as 'self.agent_length / 2'
        return _like(option, 0.0)
    other = default.removeprefix("self.")
    if other in known and other != option:
        return _kind(option, known[other], known, cls)
    try:
        return _like(option, ast.literal_eval(node))
    except ValueError:  # a constant of its module
        return _like(option, getattr(sys.modules[cls.__module__], default, None))


def _like(option: str, default: Any) -> Kind:
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, int) and option in _ONE_AT_LEAST:
        return whole(1)
    if isinstance(default, int) and _COUNT.fullmatch(option):
        return whole()
    if isinstance(default, (int, float)):
        return number(0) if _NOT_NEGATIVE.fullmatch(option) else number()
    return TEXT if isinstance(default, str) else ANYTHING
