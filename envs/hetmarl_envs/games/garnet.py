"""Random cooperative Markov games, the team's version of Garnet problems.

A Garnet (generic average-reward non-stationary environment test-bench; Archibald, McKinnon & Thomas
1995) draws for each state and action a few possible successors with random probabilities. Here an
action is a joint action.
"""

from __future__ import annotations

import torch

from hetmarl_envs.games.tabular import TabularGame


def random_game(
    states: int, actions: tuple[int, ...], *, density: float, termination: float, seed: int
) -> TabularGame:
    """A random game, always the same one for the same arguments.

    Args:
        states: S.
        actions: numbers of actions of the agents (K_1, ..., K_n).
        density: share of the states that may follow a state and joint action, in (0, 1]; at least
            one does. Their probabilities are uniform on the simplex.
        termination: probability of termination at each step.
        seed: of the tables; an environment's episodes have a seed of their own.

    Returns:
        A game with rewards uniform in [0, 1) and a uniform first state.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    shape = (states, *actions)
    successors = max(1, round(density * states))
    rank = uniform(*shape, states).argsort(-1).argsort(-1)
    # normalised exponential variables are uniform on the simplex
    weights = -torch.log1p(-uniform(*shape, states)) + 1e-12
    weights = weights * (rank < successors)
    transition = (1 - termination) * weights / weights.sum(-1, keepdim=True)
    initial = torch.full((states,), 1.0 / states, dtype=torch.float64)
    return TabularGame(transition, uniform(*shape), initial)
