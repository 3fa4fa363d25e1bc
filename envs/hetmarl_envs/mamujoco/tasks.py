"""Names of the MAMuJoCo tasks, ``<scenario>_<factorization>``, known without any simulator."""

from __future__ import annotations

import re

from hetmarl_envs.errors import UnknownNameError, did_you_mean

# Scenario to its joints and the factorizations that have names of their own in gymnasium_robotics.
# None joints: the factorization itself says how many segments the body has.
SCENARIOS: dict[str, tuple[int | None, tuple[str, ...]]] = {
    "Ant": (8, ("2x4", "2x4d", "4x2")),
    "CoupledHalfCheetah": (12, ("1p1",)),
    "HalfCheetah": (6, ("2x3", "6x1")),
    "Hopper": (3, ("3x1",)),
    "Humanoid": (17, ("9|8",)),
    "HumanoidStandup": (17, ("9|8",)),
    "InvertedDoublePendulum": (1, ()),
    "InvertedPendulum": (1, ()),
    "ManySegmentAnt": (None, ()),
    "ManySegmentSwimmer": (None, ()),
    "Pusher": (7, ("3p",)),
    "Reacher": (2, ("2x1",)),
    "Swimmer": (2, ("2x1",)),
    "Walker2d": (6, ("2x3",)),
}
SINGLE = "1"  # one agent that sees and controls everything
_WITHOUT_GRAPH = ("InvertedPendulum", "InvertedDoublePendulum")

# Beyond gymnasium_robotics' own: what the papers train, and sizes of the many-segment bodies.
_LISTED_BESIDES: dict[str, tuple[str, ...]] = {
    "Ant": ("8x1",),
    "HalfCheetah": ("3x2",),
    "Humanoid": ("17x1",),
    "HumanoidStandup": ("17x1",),
    "ManySegmentAnt": ("2x3", "3x1", "10x2"),
    "ManySegmentSwimmer": ("2x5", "6x1", "10x2"),
    "Walker2d": ("3x2", "6x1"),
}


def task_name(scenario: str, factorization: str) -> str:
    """``("Humanoid", "9|8")`` as ``"humanoid_9x8"``."""
    return f"{scenario.lower()}_{factorization.replace('|', 'x')}"


def tasks() -> list[str]:
    """The listed tasks; ``<scenario>_<N>x<M>`` exists besides wherever N agents of M joints fit."""
    names = []
    for scenario, (joints, native) in SCENARIOS.items():
        listed = (*native, *_LISTED_BESIDES.get(scenario, ()))
        names += [task_name(scenario, factorization) for factorization in listed]
        if joints is not None:
            names.append(task_name(scenario, SINGLE))
    return sorted(names)


def agents_by_joints(factorization: str) -> tuple[int, int] | None:
    """``"4x2"`` as ``(4, 2)``, agents and the joints or segments of each; None for other forms."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", factorization)
    return (int(match[1]), int(match[2])) if match else None


def parse_task(task: str) -> tuple[str, str]:
    """``"humanoid_9x8"`` as ``("Humanoid", "9|8")``.

    Raises:
        UnknownNameError: no such scenario or factorization; names the nearest.
    """
    prefix, _, factorization = task.partition("_")
    by_lower = {name.lower(): name for name in SCENARIOS}
    if prefix.lower() not in by_lower:
        raise UnknownNameError(
            f"unknown MAMuJoCo scenario '{prefix}' in task '{task}'."
            f"{did_you_mean(task, tasks())} Scenarios: {', '.join(by_lower)}."
        )
    scenario = by_lower[prefix.lower()]
    return scenario, check_factorization(scenario, factorization)


def check_factorization(scenario: str, factorization: str) -> str:
    """The factorization under its own name: a native one, ``"1"``, or ``"NxM"`` that fits.

    Raises:
        UnknownNameError: no such scenario, or its joints cannot be divided like that.
    """
    if scenario not in SCENARIOS:
        raise UnknownNameError(
            f"unknown MAMuJoCo scenario '{scenario}'.{did_you_mean(scenario, SCENARIOS)} "
            f"Scenarios: {', '.join(SCENARIOS)}."
        )
    joints, native = SCENARIOS[scenario]
    by_name = {name.replace("|", "x"): name for name in native}
    name = factorization.replace("|", "x")
    if name in by_name:
        return by_name[name]
    if name == SINGLE and joints is not None:
        return name
    sizes = agents_by_joints(name)
    if scenario in _WITHOUT_GRAPH:
        expected = "'1', its only one"
    elif joints is None:
        # the reference's bodies have at least two segments: their XML ends in a special one
        if sizes is not None and sizes[0] * sizes[1] >= 2:
            return name
        expected = "'<agents>x<segments per agent>', two segments at least, such as '2x3'"
    else:
        if sizes is not None and sizes[0] * sizes[1] == joints:
            return name
        divisors = [n for n in range(1, joints + 1) if joints % n == 0]
        fitting = {*by_name, SINGLE, *(f"{n}x{joints // n}" for n in divisors)}
        expected = f"one of {', '.join(sorted(fitting))}"
    near = did_you_mean(
        f"{scenario}_{name}", [t for t in tasks() if t.startswith(scenario.lower())]
    )
    raise UnknownNameError(
        f"scenario '{scenario}' has no factorization '{factorization}'; expected {expected}.{near} "
        "For one of your own pass partition=[[joint names of agent_0], ...]."
    )
