"""Dividing a body among agents: which actuators each moves, and what each observes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hetmarl_envs.errors import ConfigError, did_you_mean
from hetmarl_envs.mamujoco.features import (
    BODY_WIDTHS,
    QFRC_ACTUATOR,
    QPOS,
    QVEL,
    Block,
    Feature,
    clip_1,
    span,
)
from hetmarl_envs.mamujoco.graph import Graph, Joint, make_graph
from hetmarl_envs.mamujoco.tasks import (
    SCENARIOS,
    SINGLE,
    agents_by_joints,
    check_factorization,
)
from hetmarl_envs.options import check, whole

_PLAIN = ("qpos", "qvel", "qfrc_actuator", *BODY_WIDTHS)


@dataclass(frozen=True)
class Agent:
    """What one agent moves, as places among the controls in the order of its action, and sees."""

    actuators: tuple[int, ...]
    observation: tuple[Feature, ...]


@dataclass(frozen=True)
class Division:
    """How a scenario's body is divided among agents.

    Args:
        scenario: one of ``tasks.SCENARIOS``.
        factorization: a native name, ``"1"`` (one agent) or ``"NxM"``.
        partition: joint names of each agent, every joint exactly once, in place of the above
            (which then only says how many segments a many-segment body has).
        agent_obsk: distance in joints up to which an agent sees.
        local_categories: quantities seen at each distance, ``agent_obsk + 1`` lists.
        global_categories: quantities seen of the root, by everyone.
        repair_graph: see ``graph.make_graph``.
    """

    scenario: str
    factorization: str
    partition: Sequence[Sequence[str]] | None = None
    agent_obsk: int = 1
    local_categories: Sequence[Sequence[str]] | None = None
    global_categories: Sequence[str] | None = None
    repair_graph: bool = False

    def __post_init__(self) -> None:
        note = (
            ", the distance in joints up to which an agent sees. For one agent that sees "
            f"everything take the task '{self.scenario.lower()}_{SINGLE}'"
        )
        check("", "agent_obsk", self.agent_obsk, whole(), note)
        name = check_factorization(self.scenario, self.factorization)
        object.__setattr__(self, "factorization", name)

    @property
    def segments(self) -> int | None:
        """Segments of a many-segment body, None for the others."""
        sizes = agents_by_joints(self.factorization)
        if SCENARIOS[self.scenario][0] is not None or sizes is None:
            return None
        return sizes[0] * sizes[1]

    def agents(self, num_actuators: int, state: tuple[Feature, ...]) -> list[Agent]:
        """The agents in their order; ``state`` is what a single one sees."""
        graph = make_graph(self.scenario, self.segments, self.repair_graph)
        if self.partition is not None and graph is None:
            raise ConfigError(f"partition: scenario '{self.scenario}' has one joint to move.")
        if graph is None or (self.partition is None and self.factorization == SINGLE):
            if self.local_categories is not None or self.global_categories is not None:
                raise ConfigError(
                    f"the one agent of factorization '{SINGLE}' sees the whole state; "
                    "local_categories and global_categories do not apply to it."
                )
            return [Agent(tuple(range(num_actuators)), state)]
        local, everyone = _check_categories(self, graph)
        agents: list[Agent] = []
        for names in self._joint_names(graph):
            part = tuple(graph.joint(name) for name in names)
            moved = tuple(joint.actuator for joint in part if joint.actuator is not None)
            seen = observe(part, graph, self.agent_obsk, local, everyone)
            if not seen:
                raise ConfigError(
                    f"agent_{len(agents)} ({', '.join(names)}) would see nothing: none of its "
                    f"joints has any of local_categories={local}, nor the root any of "
                    f"global_categories={everyone}."
                )
            agents.append(Agent(moved, seen))
        return agents

    def _joint_names(self, graph: Graph) -> list[list[str]]:
        """Each agent's joints in the order of its action."""
        if self.partition is not None:
            return _check_partition(self.scenario, graph, self.partition)
        if self.factorization in graph.partitions:
            return [list(agent) for agent in graph.partitions[self.factorization]]
        sizes = agents_by_joints(self.factorization)
        assert sizes is not None
        per_agent = len(graph.joints) // sizes[0]
        names = [joint.name for joint in graph.joints]  # consecutive in the reference's order
        return [names[i : i + per_agent] for i in range(0, len(names), per_agent)]


def _check_partition(
    scenario: str, graph: Graph, partition: Sequence[Sequence[str]]
) -> list[list[str]]:
    known = [joint.name for joint in graph.joints]
    example = f"Joints of {scenario}: {', '.join(known)}."
    if not _is_nested(partition):
        raise ConfigError(
            f"partition={partition!r}: expected one list of joint names per agent, such as "
            f"[['{known[0]}'], ...]. {example}"
        )
    names = [list(agent) for agent in partition]
    owner: dict[str, int] = {}
    for number, agent in enumerate(names):
        if not agent:
            raise ConfigError(f"partition: agent_{number} has no joint. {example}")
        for name in agent:
            if name not in known:
                raise ConfigError(
                    f"partition: agent_{number} has the unknown joint '{name}'."
                    f"{did_you_mean(str(name), known)} {example}"
                )
            if name in owner:
                raise ConfigError(
                    f"partition: joint '{name}' belongs to agent_{owner[name]} and to "
                    f"agent_{number}; expected every joint exactly once."
                )
            owner[name] = number
    missing = [name for name in known if name not in owner]
    if missing:
        raise ConfigError(
            f"partition: no agent moves {', '.join(missing)}; expected every joint of {scenario} "
            "exactly once."
        )
    return names


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_nested(value: object) -> bool:
    """Whether the value is a list of lists."""
    return isinstance(value, Sequence) and _is_list(value) and all(map(_is_list, value))


def observe(
    part: tuple[Joint, ...],
    graph: Graph,
    obsk: int,
    local_categories: Sequence[Sequence[str]],
    global_categories: Sequence[str],
) -> tuple[Feature, ...]:
    """What the agent of ``part`` sees, in the reference's order.

    Joints at distance 0, 1, ..., ``obsk`` (sorted by name within a distance), each with its
    distance's categories; then what everyone sees. A body is counted once, at its first joint.

    Args:
        part: the agent's joints.
        graph: of the scenario.
        obsk: greatest distance in the graph that is still seen.
        local_categories: what is seen at each distance, at least ``obsk + 1`` lists.
        global_categories: what is seen of the joints that everyone sees.
    """
    features: list[Feature] = []
    counted: set[tuple[str, int]] = set()
    for distance, joints in enumerate(_by_distance(part, graph, obsk)):
        for joint in joints:
            for category in local_categories[distance]:
                features += _features(joint, category, counted)
    counted = set()
    for category in global_categories:
        for joint in graph.everyone:
            features += _features(joint, category, counted)
    return tuple(features)


def _by_distance(part: tuple[Joint, ...], graph: Graph, obsk: int) -> list[list[Joint]]:
    reached = set(part)
    rings = [reached]
    for _ in range(obsk):
        neighbours = {
            other for edge in graph.edges for joint in edge if joint in rings[-1] for other in edge
        }
        rings.append(neighbours - reached)
        reached = reached | rings[-1]
    return [sorted(ring, key=lambda joint: joint.sort_key) for ring in rings]


def _features(joint: Joint, category: str, counted: set[tuple[str, int]]) -> tuple[Feature, ...]:
    if category in joint.special:
        return joint.special[category]
    if category == "qpos" and joint.qpos is not None:
        return ((QPOS, joint.qpos),)
    if category == "qvel" and joint.qvel is not None:
        return ((QVEL, joint.qvel),)
    if category == "qfrc_actuator" and joint.qvel is not None:
        return ((QFRC_ACTUATOR, joint.qvel),)
    if category not in BODY_WIDTHS:
        return ()
    width = BODY_WIDTHS[category]
    block = Block(category, clip_1 if joint.clip_bodies else None)
    features: list[Feature] = []
    for body in joint.bodies:
        if (category, body) not in counted:
            counted.add((category, body))
            features += span(block, width * body, width * (body + 1))
    return tuple(features)


def _check_categories(division: Division, graph: Graph) -> tuple[list[list[str]], list[str]]:
    """``local_categories`` and ``global_categories``, filled in and checked.

    Raises:
        ConfigError: too few distances, or an unknown category (names the nearest).
    """
    obsk, local, everyone = (
        division.agent_obsk,
        division.local_categories,
        division.global_categories,
    )
    if local is None:
        default = [list(names) for names in graph.categories]
        local_lists = [default[min(k, len(default) - 1)] for k in range(obsk + 1)]
    else:
        if not _is_nested(local):
            raise ConfigError(
                f"local_categories={local!r}: expected one list of categories per distance, such "
                "as [['qpos', 'qvel'], ['qpos']]."
            )
        local_lists = [list(names) for names in local]
        if len(local_lists) <= obsk:
            raise ConfigError(
                f"local_categories has {len(local_lists)} lists; agent_obsk={obsk} needs "
                f"{obsk + 1}, one for each distance from 0 to {obsk}."
            )
    if everyone is None:
        everyone = ("qpos", "qvel")
    if not _is_list(everyone):
        raise ConfigError(
            f"global_categories={everyone!r}: expected a list of categories, such as "
            "['qpos', 'qvel']."
        )
    known = [*_PLAIN]
    for joint in (*graph.joints, *graph.everyone):
        known += [category for category in joint.special if category not in known]
    for name in (name for names in (*local_lists, everyone) for name in names):
        if name not in known:
            raise ConfigError(
                f"'{name}' is no category of scenario '{division.scenario}'."
                f"{did_you_mean(str(name), known)} Categories: {', '.join(known)}."
            )
    return local_lists, list(everyone)
