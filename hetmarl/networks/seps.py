"""Selective parameter sharing: which agents are alike, by what predicts their experience.

An encoder knows nothing but which agent it is, zⁱ ~ N(μⁱ, σⁱ²); a decoder predicts from zⁱ, the
agent's observation and its action what it observes next and its reward. Both minimise

    E[error of the next observation + error of the reward] + kl_coef · mean KL(zⁱ ‖ N(0, 1))

so that latents differ where that helps to predict, and only there. Agents whose means k-means puts
together share parameters (Christianos et al. 2021, arXiv 2102.07475, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hetmarl.networks.config import SePSConfig
from hetmarl.networks.mlp import mlp
from hetmarl_envs.errors import ConfigError

HELD_OUT = 0.2
"""Share of the samples on which predictions are judged."""
NEGLIGIBLE = 0.05
"""Squared error that does not matter, in variances of what is predicted."""


@dataclass
class Experience:
    """One agent's samples.

    Args:
        observation: flat ``[N, O]``.
        action: as a network reads it ``[N, W]``.
        following: the next observation ``[N, O]``.
        reward: ``[N, 1]``.
    """

    observation: Tensor
    action: Tensor
    following: Tensor
    reward: Tensor


@dataclass
class _Samples:
    """Everybody's samples below each other, filled up with zeros to equal widths.

    Args:
        agent: whose sample it is ``[N]``.
        inputs: observation and action ``[N, O+W]``.
        targets: change of the observation, and reward ``[N, O+1]``, over the spread of the team's.
        weight: of each target's error ``[N, O+1]``; those of an observation add up to 1.
    """

    agent: Tensor
    inputs: Tensor
    targets: Tensor
    weight: Tensor

    def __getitem__(self, rows: Tensor) -> _Samples:
        return _Samples(self.agent[rows], self.inputs[rows], self.targets[rows], self.weight[rows])


class AgentModel(nn.Module):
    """The encoder, a table of means and spreads ``[n, Z]``, and the decoder."""

    def __init__(self, agents: int, inputs: int, outputs: int, config: SePSConfig) -> None:
        super().__init__()
        self.mean = nn.Parameter(0.1 * torch.randn(agents, config.latent_size))
        self.log_std = nn.Parameter(torch.full((agents, config.latent_size), -1.0))
        self.decoder = mlp(inputs + config.latent_size, outputs, config.hidden_sizes, "relu")

    def errors(self, samples: _Samples, latents: Tensor) -> Tensor:
        """Squared errors of all predictions ``[N, O+1]``, by latents ``[N, Z]``."""
        predicted = self.decoder(torch.cat([samples.inputs, latents], dim=-1))
        return (predicted - samples.targets).square()

    def divergence(self) -> Tensor:
        """Mean over agents of KL(N(μ, σ²) ‖ N(0, 1)) in nats (scalar)."""
        variance = (2 * self.log_std).exp()
        return 0.5 * (variance + self.mean.square() - 1 - 2 * self.log_std).sum(-1).mean()


def find_sets(team: Sequence[Experience], config: SePSConfig, seed: int = 0) -> list[list[int]]:
    """Positions of the agents, by set of those who are alike; each set and all sets in team order.

    As many as ``config.clusters``. Without it: the fewest with which each agent's every prediction
    is nearly as good by its set's mean latent as by its own, on held-out samples:
    ``error(set) + NEGLIGIBLE <= (1 + config.tolerance) * (error(own) + NEGLIGIBLE)``.

    Args:
        team: every agent's samples, sizes may differ.
        config: of the model and its training.
        seed: of everything random here; the same gives the same sets in every process.

    Raises:
        ConfigError: more clusters than agents.
    """
    agents = len(team)
    if config.clusters is not None and config.clusters > agents:
        raise ConfigError(
            f"network.seps.clusters={config.clusters}: the team has {agents} agents; expected at "
            "most as many, or null."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        samples = _collate(team)
        shuffled = torch.randperm(len(samples.agent))
        kept = int(HELD_OUT * len(shuffled))
        model = _fit(samples[shuffled[kept:]], agents, config)
        judged = samples[shuffled[:kept]]
        if config.clusters is not None:
            return _sets(k_means(model.mean.detach(), config.clusters))
        return _fewest(model, judged, config.tolerance)


@torch.no_grad()
def _fewest(model: AgentModel, judged: _Samples, tolerance: float) -> list[list[int]]:
    means = model.mean

    def errors(latents: Tensor) -> Tensor:
        """Per agent and target ``[n, O+1]``; surplus targets are predicted exactly."""
        found = model.errors(judged, latents[judged.agent]) * (judged.weight > 0)
        return torch.stack([found[judged.agent == i].mean(0) for i in range(len(means))])

    allowed = (1 + tolerance) * (errors(means) + NEGLIGIBLE)
    for clusters in range(1, len(means)):
        labels = k_means(means, clusters)
        centres = torch.stack([means[labels == label].mean(0) for label in labels])
        if (errors(centres) + NEGLIGIBLE <= allowed).all():
            return _sets(labels)
    return [[i] for i in range(len(means))]


def _fit(samples: _Samples, agents: int, config: SePSConfig) -> AgentModel:
    model = AgentModel(agents, samples.inputs.shape[1], samples.targets.shape[1], config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(samples.agent)).split(config.batch_size):
            batch = samples[rows]
            mean, std = model.mean[batch.agent], model.log_std.exp()[batch.agent]
            errors = model.errors(batch, mean + std * torch.randn_like(mean))
            loss = (errors * batch.weight).sum(-1).mean() + config.kl_coef * model.divergence()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def _collate(team: Sequence[Experience]) -> _Samples:
    longest = max(one.observation.shape[1] for one in team)
    widest = max(one.action.shape[1] for one in team)

    def fill(x: Tensor, width: int) -> Tensor:
        return nn.functional.pad(x, (0, width - x.shape[1]))

    observation = torch.cat([fill(one.observation, longest) for one in team])
    change = torch.cat([fill(one.following - one.observation, longest) for one in team])
    reward = torch.cat([one.reward for one in team])
    action = torch.cat([fill(one.action, widest) for one in team])
    seen = torch.cat([fill(torch.ones_like(one.observation), longest) for one in team])
    acted = torch.cat([fill(torch.ones_like(one.action), widest) for one in team])
    agent = torch.cat([torch.full((len(one.reward),), i) for i, one in enumerate(team)])
    observation, change = (_standardise(x, seen) for x in (observation, change))
    action = _standardise(action, acted)
    reward = _standardise(reward, torch.ones_like(reward))
    weight = torch.cat([seen / seen.sum(-1, keepdim=True), torch.ones_like(reward)], dim=-1)
    inputs, targets = torch.cat([observation, action], -1), torch.cat([change, reward], -1)
    return _Samples(agent, inputs, targets, weight)


def _standardise(x: Tensor, seen: Tensor) -> Tensor:
    """Columns of ``x [N, O]`` with mean 0 and variance 1 where ``seen``, 0 elsewhere.

    Over all agents together: their differences must remain.
    """
    count = seen.sum(0).clamp(min=1)
    centred = (x - (x * seen).sum(0) / count) * seen
    std = (centred.square().sum(0) / count).sqrt()
    return centred / torch.where(std > 1e-6, std, 1.0)


def k_means(points: Tensor, clusters: int, restarts: int = 10) -> Tensor:
    """Labels ``[n]`` of points ``[n, Z]``: the best of several runs from k-means++'s centres.

    (Arthur & Vassilvitskii 2007.) Draws from torch's global generator. Fewer labels than
    ``clusters`` occur where points coincide.
    """
    best, labels = float("inf"), torch.zeros(len(points), dtype=torch.long)
    for _ in range(restarts):
        centres = points[torch.randint(len(points), (1,))]
        while len(centres) < clusters:
            away = torch.cdist(points, centres).min(1).values.square() + 1e-12
            centres = torch.cat([centres, points[torch.multinomial(away, 1)]])
        for _ in range(100):
            found = torch.cdist(points, centres).argmin(1)
            moved = torch.stack(
                [
                    points[found == k].mean(0) if (found == k).any() else centres[k]
                    for k in range(clusters)
                ]
            )
            if torch.equal(moved, centres):
                break
            centres = moved
        spread = float((points - centres[found]).square().sum())
        if spread < best:
            best, labels = spread, found
    return labels


def _sets(labels: Tensor) -> list[list[int]]:
    sets: dict[int, list[int]] = {}
    for i, label in enumerate(labels.tolist()):
        sets.setdefault(label, []).append(i)
    return list(sets.values())
