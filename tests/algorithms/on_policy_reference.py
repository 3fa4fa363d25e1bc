"""One on-policy iteration written out: loops over agents, epochs and samples, plain numbers.

Of the package only the networks are used: means and deviations, logits without masks, values.
Divergences, ratios, advantages, running statistics, clipping and Adam are all written again, sample
by sample.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Policy = list[tuple[Any, ...]]
"""Of one sample: ("normal", mean, σ) per dimension, or ("choice", {index: log-probability})."""


def policy_at(agent: Any, outputs: Tensor, mask: Sequence[bool] | None) -> Policy:
    """The policy of one sample from means and deviations, or logits of all choices."""
    if agent.action.kind == "continuous":
        n = agent.action.dim
        return [("normal", outputs[d], outputs[n + d]) for d in range(n)]
    found, start = [], 0
    for count in agent.action.choices:
        legal = [k for k in range(count) if mask is None or mask[start + k]]
        legal = legal or list(range(count))  # nobody's: a dead agent's
        total = torch.log(sum(torch.exp(outputs[start + k]) for k in legal))
        found.append(("choice", {k: outputs[start + k] - total for k in legal}))
        start += count
    return found


def log_prob(policy: Policy, action: Sequence[float]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for part, a in zip(policy, action, strict=True):
        if part[0] == "normal":
            _, mean, std = part
            total = total - (a - mean) ** 2 / (2 * std**2) - torch.log(std)
            total = total - 0.5 * math.log(2 * math.pi)
        else:
            total = total + part[1][int(a)]
    return total


def entropy(policy: Policy) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for part in policy:
        if part[0] == "normal":
            total = total + 0.5 * math.log(2 * math.pi * math.e) + torch.log(part[2])
        else:
            total = total - sum(torch.exp(p) * p for p in part[1].values())
    return total


def kl(first: Policy, second: Policy) -> Tensor:
    """KL(first ‖ second)."""
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(first, second, strict=True):
        if a[0] == "normal":
            square = (a[2] ** 2 + (a[1] - b[1]) ** 2) / (2 * b[2] ** 2)
            total = total + torch.log(b[2] / a[2]) + square - 0.5
        else:
            total = total + sum(torch.exp(p) * (p - b[1][k]) for k, p in a[1].items())
    return total


def detached(policy: Policy) -> Policy:
    def of(x: Any) -> Any:
        return {k: v.detach() for k, v in x.items()} if isinstance(x, dict) else x.detach()

    return [(part[0], *(of(x) for x in part[1:])) for part in policy]


class Adam:
    """Kingma & Ba 2015, with the bound on the gradient's norm before it."""

    def __init__(self, parameters: Any, lr: float, bound: float | None) -> None:
        self.parameters, self.lr, self.bound = list(parameters), lr, bound
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]
        self.count = 0

    def step(self, loss: Tensor) -> None:
        gradients = list(torch.autograd.grad(loss, self.parameters))
        if self.bound is not None:
            norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
            gradients = [g * min(1.0, self.bound / (norm + 1e-6)) for g in gradients]
        self.count += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
                m.copy_(0.9 * m + 0.1 * g)
                v.copy_(0.999 * v + 0.001 * g * g)
                down = (v / (1 - 0.999**self.count)).sqrt() + 1e-5
                p.sub_(self.lr * (m / (1 - 0.9**self.count)) / down)


class Reference:
    """Copies a module's networks as they are and updates the copies.

    Args:
        module: an ``OnPolicyModule`` in double precision, before its first update.
        objective: of (ratio, M, new policy, old policy), one sample's.
        sequential: as of the algorithm.
    """

    def __init__(self, module: Any, objective: Callable[..., Tensor], sequential: bool) -> None:
        self.spec, self.config = module.spec, module.config
        self.actors = [copy.deepcopy(actor) for actor in module.policy.actors]
        self.critic = copy.deepcopy(module.critic)
        self.objective, self.sequential = objective, sequential
        bound = self.config.max_grad_norm
        self.steps = [Adam(a.parameters(), self.config.actor_lr, bound) for a in self.actors]
        self.critic_step = Adam(self.critic.parameters(), self.config.critic_lr, bound)
        self.count = self.critic.num_values
        self.norm = [(0.0, 0.0, 0.0)] * self.count  # mean, mean square, weight

    # ------------------------------------------------------------------ networks
    def policies(self, i: int, data: Any, rows: Sequence[int]) -> list[Policy]:
        """Agent i's policy at frames ``rows`` of ``data [N]``."""
        actor, agent, chosen = self.actors[i], self.spec.agents[i], data[list(rows)]
        outputs = actor(self.spec.observation(chosen, i))[0]  # without any mask
        mask = self.spec.action_mask(chosen, i)
        masks = [None] * len(rows) if mask is None else mask.tolist()
        return [policy_at(agent, o, m) for o, m in zip(outputs, masks, strict=True)]

    def scale(self, v: int) -> tuple[float, float]:
        """Running mean and standard deviation of value v."""
        mean, square, weight = self.norm[v]
        if weight == 0.0:
            return 0.0, 1.0
        mean, square = mean / weight, square / weight
        return mean, math.sqrt(max(square - mean**2, 1e-2))

    # ------------------------------------------------------------------ before the update
    def lives(self, data: Any, i: int) -> list[bool]:
        alive = self.spec.alive(data, i)
        return [True] * len(data) if alive is None else alive[:, 0].tolist()

    def estimate(self, data: Any) -> tuple[list[list[float]], list[list[float]], Tensor]:
        """Advantages and targets per value and frame, and the critic's output ``[N, V]``."""
        envs, steps = data.shape
        flat, after = data.reshape(-1), data["next"].reshape(-1)
        with torch.no_grad():
            now, then = self.critic(flat), self.critic(after)
        gains, targets = [], []
        for v in range(self.count):
            mean, std = self.scale(v)
            value = [mean + std * x for x in now[:, v].tolist()]
            following = [mean + std * x for x in then[:, v].tolist()]
            gain = [0.0] * len(flat)
            living = [True] * len(flat) if self.count == 1 else self.lives(after, v)
            for e in range(envs):
                trace = 0.0
                for t in reversed(range(steps)):
                    k = e * steps + t
                    ended = bool(after["terminated"][k]) or not living[k]
                    cut = ended or bool(after["truncated"][k])
                    ahead = 0.0 if ended else self.config.gamma * following[k]
                    delta = float(after["reward"][k]) + ahead - value[k]
                    decay = self.config.gamma * self.config.gae_lambda
                    trace = delta + (0.0 if cut else decay * trace)
                    gain[k] = trace
            gains.append(gain)
            targets.append([g + x for g, x in zip(gain, value, strict=True)])
        return gains, targets, now

    # ------------------------------------------------------------------ the iteration
    def update(self, data: Any, randomness: Any) -> None:
        flat = data.reshape(-1)
        frames = list(range(len(flat)))
        gains, targets, output = self.estimate(data)
        factor = [1.0] * len(flat)
        n = self.spec.num_agents
        # simultaneous agents are in team order, which must not matter
        order = randomness.order(n) if self.sequential else list(range(n))
        for i in order:
            alive, action = self.lives(flat, i), self.spec.action(flat, i)
            if self.spec.agents[i].action.kind == "continuous":
                action = self.spec.action(flat, i, key="sample")
            action = action.tolist()
            gain = gains[i if self.count > 1 else 0]
            living = [g for g, a in zip(gain, alive, strict=True) if a]
            mean = sum(living) / len(living)
            std = math.sqrt(sum((g - mean) ** 2 for g in living) / len(living))
            weighed = [f * (g - mean) / (std + 1e-5) for f, g in zip(factor, gain, strict=True)]
            with torch.no_grad():
                old = [detached(p) for p in self.policies(i, flat, frames)]
            for _ in range(self.config.epochs):
                for rows in randomness.minibatches(len(flat), self.config.minibatches):
                    rows = frames if rows is None else rows.tolist()
                    score, number = torch.zeros((), dtype=torch.float64), 0
                    for k, new in zip(rows, self.policies(i, flat, rows), strict=True):
                        if not alive[k]:
                            continue
                        number += 1
                        r = torch.exp(log_prob(new, action[k]) - log_prob(old[k], action[k]))
                        score = score + self.objective(r, weighed[k], new, old[k])
                        score = score + self.config.entropy_coef * entropy(new)
                    self.steps[i].step(-score / number)
            if self.sequential:
                with torch.no_grad():
                    new_policies = self.policies(i, flat, frames)
                for k in frames:
                    if alive[k]:
                        new, was = new_policies[k], old[k]
                        factor[k] *= math.exp(log_prob(new, action[k]) - log_prob(was, action[k]))
        self.update_critic(flat, targets, output, randomness)

    def update_critic(self, flat: Any, targets: Any, old: Tensor, randomness: Any) -> None:
        config, count = self.config, self.count
        everywhere = [True] * len(flat)
        alive = [everywhere if count == 1 else self.lives(flat, v) for v in range(count)]
        for _ in range(config.critic_epochs):
            for rows in randomness.minibatches(len(flat), config.critic_minibatches):
                rows = list(range(len(flat))) if rows is None else rows.tolist()
                output = self.critic(flat[rows])
                total, number = torch.zeros((), dtype=torch.float64), 0
                for v in range(count):
                    chosen = [k for k in rows if alive[v][k]]
                    if config.value_norm and chosen:
                        mean = sum(targets[v][k] for k in chosen) / len(chosen)
                        square = sum(targets[v][k] ** 2 for k in chosen) / len(chosen)
                        pairs = zip(self.norm[v], (mean, square, 1.0), strict=True)
                        self.norm[v] = tuple(0.99999 * a + 1e-5 * b for a, b in pairs)
                    mean, std = self.scale(v)
                    for place, k in enumerate(rows):
                        if alive[v][k]:
                            target = (targets[v][k] - mean) / std
                            number += 1
                            total = total + self.value_loss(output[place, v], old[k, v], target)
                self.critic_step.step(total / number)

    def value_loss(self, value: Tensor, old: Tensor, target: float) -> Tensor:
        def huber(x: Tensor) -> Tensor:
            delta = self.config.huber_delta
            if delta is None or abs(x.item()) <= delta:
                return 0.5 * x * x
            return delta * (x.abs() - 0.5 * delta)

        plain = huber(target - value)
        bound = self.config.value_clip
        if bound is None:
            return plain
        change = value - old
        if change.item() > bound:
            change = 0 * change + bound
        elif change.item() < -bound:
            change = 0 * change - bound
        other = huber(target - (old + change))
        return plain if plain.item() >= other.item() else other
