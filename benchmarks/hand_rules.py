"""What rules written by hand win where learning is measured, to hold its results against.

    python benchmarks/hand_rules.py [--tasks mpe/simple_spread smacv2/terran_5_vs_5] [--episodes N]

* ``mpe/simple_spread``, discrete actions. Each agent stands still, or goes, the longer way first
  and coasting to a stop, to the nearest landmark, to a landmark of its own, always the same, or to
  the one that is its in the assignment with the shortest ways.
* ``smacv2/<task>``, seeing every unit. Medivacs heal the weakest in range and otherwise follow the
  nearest; the others shoot at the nearest or the weakest enemy within range, and otherwise stay,
  go to the nearest enemy, or, while none is in sight, to the nearest of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from statistics import mean, stdev
from typing import Any

import torch
from interleaved import parse, table
from torch import Tensor

from hetmarl_envs import make_env

COAST = 0.3
"""An agent of MPE that stops pushing goes on for its velocity times .1 (1 + .75 + .75² + …), less
the step that is late."""


def nobody(ways: Tensor) -> Tensor | None:
    """Standing still."""
    return None


def nearest(ways: Tensor) -> Tensor:
    """``(environment, agent)`` the nearest landmark."""
    return ways.norm(dim=-1).argmin(-1)


def own(ways: Tensor) -> Tensor:
    """``(environment, agent)`` the landmark with the agent's number."""
    return torch.arange(ways.shape[1]).expand(ways.shape[:2])


def shortest(ways: Tensor) -> Tensor:
    """``(environment, agent)`` the landmarks of the assignment with the least sum of distances."""
    agents = range(ways.shape[1])
    orders = torch.tensor(list(permutations(agents)))
    sums = ways.norm(dim=-1)[:, agents, orders].sum(-1)  # of each order, in every environment
    return orders[sums.argmin(1)]


SPREAD: dict[str, tuple[Callable[[Tensor], Tensor | None], bool]] = {
    "stand still": (nobody, False),
    "the nearest landmark": (nearest, True),
    "a landmark each, always the same": (own, False),
    "the shortest assignment": (shortest, False),
}
"""Rules by name: which landmark is whose, given the ways ``(environment, agent, landmark, 2)``, and
whether that is asked anew at each step."""


def spread(rule: str, episodes: int) -> list[float]:
    """Returns of as many episodes, one in each environment."""
    choose, anew = SPREAD[rule]
    env = make_env("mpe/simple_spread", num_envs=episodes, seed=1)
    data: Any = env.reset()
    returns, goal = torch.zeros(episodes), None
    done = False
    while not done:
        observation = data["agents", "observation"]  # velocity 2, position 2, landmarks 3 × 2, …
        ways = observation[..., 4:10].unflatten(-1, (3, 2))
        goal = choose(ways) if goal is None or anew else goal
        action = torch.zeros(ways.shape[:2], dtype=torch.long)
        if goal is not None:
            way = ways.gather(2, goal[..., None, None].expand(*goal.shape, 1, 2)).squeeze(2)
            left = way - COAST * observation[..., :2]
            axis = left.abs().argmax(-1)  # 1 left, 2 right, 3 down, 4 up
            ahead = left.gather(-1, axis[..., None]).squeeze(-1)
            action = torch.where(ahead.abs() < 0.05, 0, 1 + 2 * axis + (ahead > 0))
        data = env.step(data.set(("agents", "action"), action))["next"].clone()
        returns += data["reward"].squeeze(-1)
        done = bool(data["done"].all())
    env.close()
    return returns.tolist()


SHOOT = ("nearest", "weakest")
WALK = ("stay", "to the nearest enemy", "wait for enemies in sight")
BATTLES = [("nearest", WALK[0]), ("nearest", WALK[1]), ("weakest", WALK[1]), ("nearest", WALK[2])]


def battle_action(game: Any, agent: int, shoot: str, walk: str) -> int:
    """What the rule makes ``agent`` do: a number in smacv2's order (0 dead, 1 stop, 2 to 5 north,
    south, east, west, then whom to shoot at or heal)."""
    mask, unit = game.get_avail_agent_actions(agent), game.agents[agent]
    if unit.health <= 0:
        return 0
    medivac = unit.unit_type == game.medivac_id
    others = {i: other for i, other in game.agents.items() if i != agent and other.health > 0}
    enemies = {i: enemy for i, enemy in game.enemies.items() if enemy.health > 0}

    def far(other: Any) -> float:
        return math.dist((unit.pos.x, unit.pos.y), (other.pos.x, other.pos.y))

    def health(other: Any) -> float:
        return other.health / other.health_max if medivac else other.health

    first, side = game.n_actions_no_attack, others if medivac else enemies
    within = [i for i in side if first + i < len(mask) and mask[first + i]]
    if within:
        rank = health if medivac or shoot == "weakest" else far
        return first + min(within, key=lambda i: rank(side[i]))
    if walk == WALK[0]:
        return 1
    fighters = [other for other in others.values() if other.unit_type != game.medivac_id]
    goals = fighters if medivac else list(enemies.values())
    if walk == WALK[2]:
        goals = [goal for goal in goals if far(goal) < game.unit_sight_range(agent)]
        goals = goals or list(others.values())
    if not goals:
        return 1
    goal = min(goals, key=far)
    east, north = goal.pos.x - unit.pos.x, goal.pos.y - unit.pos.y
    ways = [4 if east > 0 else 5, 2 if north > 0 else 3]
    ways = ways if abs(east) > abs(north) else ways[::-1]
    return next((way for way in ways if mask[way]), 1)


def battles(task: str, shoot: str, walk: str, episodes: int) -> list[float]:
    """Whether each battle was won."""
    from hetmarl_envs.smacv2.game import Game
    from hetmarl_envs.smacv2.tasks import game_arguments

    game: Any = Game(**game_arguments(task.removeprefix("smacv2/"), {}, None))
    game.launch()
    won = []
    for episode in range(episodes):
        game.begin(10_000 + episode)
        ended = cut = False
        while not (ended or cut):
            actions = [battle_action(game, i, shoot, walk) for i in range(game.n_agents)]
            _, ended, cut, info = game.play(actions)
        won.append(float(info["battle_won"]))
    game.close()
    return won


def main() -> None:
    """Prints every rule's mean and how far it may be off (95 %)."""
    given = parse(__doc__, tasks=("mpe/simple_spread",), episodes=200)
    episodes = 4 if given.quick else given.episodes
    for task in given.tasks:
        if task == "mpe/simple_spread":
            found = {rule: spread(rule, episodes) for rule in SPREAD}
        else:
            found = {
                f"shoot at the {shoot}, {walk}": battles(task, shoot, walk, episodes)
                for shoot, walk in BATTLES
            }
        rows = {
            rule: f"{mean(values):.2f} ± {1.96 * stdev(values) / math.sqrt(episodes):.2f}"
            for rule, values in found.items()
        }
        table(f"{task}, {episodes} episodes", rows)


if __name__ == "__main__":
    main()
