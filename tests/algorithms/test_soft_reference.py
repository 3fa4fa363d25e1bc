"""HASAC and MASAC for a mixed team against plain loops: order, temperatures, masks, deaths."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from hetmarl.algorithms import HASAC, MASAC
from hetmarl.engines import UpdateRandomness
from hetmarl.networks import NetworkConfig
from tests.teams import MIXED, batch

GAMMA, POLYAK, LR, ALPHA, SHARE = 0.9, 0.1, 1e-2, 0.3, 0.7


def numbers(loss: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in loss.parameters()])


def plainly(module: HASAC, batches: list[TensorDict]) -> Tensor:
    """Every agent's update written out; only the actors' draws are the package's."""
    loss, team = copy.deepcopy(module.loss), range(MIXED.num_agents)
    actors, (q1, q2), (t1, t2) = (
        loss.policy.actors,
        loss.critic.values,
        loss.target_critic.values,
    )
    adam = [torch.optim.Adam(a.parameters(), LR) for a in actors]
    critic_adam = torch.optim.Adam([*q1.parameters(), *q2.parameters()], LR)
    alphas, joint_alpha = list(loss.log_alpha), loss.log_alpha_joint
    alpha_adam = torch.optim.Adam([*alphas, joint_alpha], LR)

    def expected_over_choices(i: int, data: Any, seen: list[Tensor]) -> Tensor:
        place = MIXED.agents[i]
        mask = data[place.group, "action_mask"][:, place.index]
        p = actors[i](data[place.group, "observation"][:, place.index], mask).softmax(-1)
        total: Any = 0.0
        for choice in range(place.action.choices[0]):
            hot = torch.eye(place.action.choices[0]).double()[choice].expand(len(p), -1)
            x = torch.cat([data["state"], *seen[:i], hot, *seen[i + 1 :]], -1)
            cost = alphas[i].exp().detach() * p[:, [choice]].clamp(min=1e-300).log()
            total = total + p[:, [choice]] * (cost - torch.minimum(q1(x), q2(x)))
        return total

    for iteration, data in enumerate(batches):
        randomness, following = UpdateRandomness(0, iteration), data["next"]

        def draw(part: Any, i: int, r: UpdateRandomness = randomness) -> Any:
            place = MIXED.agents[i]
            mask = None
            if place.action.choices:
                mask = part[place.group, "action_mask"][:, place.index]
            seen = part[place.group, "observation"][:, place.index]
            return actors[i].sample(seen, r.noise, mask)

        def lives(part: Any, i: int) -> Tensor:
            place = MIXED.agents[i]
            return part[place.group, "alive"][:, place.index].double()

        with torch.no_grad():
            drawn = [draw(following, i) for i in team]
            x = torch.cat([following["state"], *(s.action for s in drawn)], -1)
            entropy = -sum(s.log_prob * lives(following, i) for i, s in enumerate(drawn))
            value = torch.minimum(t1(x), t2(x)) + joint_alpha.exp() * entropy
            value = torch.where(following["terminated"], 0.0, value)
            y = following["reward"] + GAMMA ** data["steps_to_next_obs"] * value
        did = []
        for place in MIXED.agents:
            action = data[place.group, "action"][:, place.index]
            if place.action.choices:
                action = action.reshape(len(action), -1)
                columns = zip(action.unbind(-1), place.action.choices, strict=True)
                action = torch.cat([torch.eye(k).double()[c] for c, k in columns], -1)
            did.append(action)
        x = torch.cat([data["state"], *did], -1)
        critic_adam.zero_grad()
        (((q1(x) - y) ** 2).mean() + ((q2(x) - y) ** 2).mean()).backward()
        critic_adam.step()

        drawn = [draw(data, i) for i in team]
        order = randomness.order(len(actors)) if module.sequential else team
        seen = [s.action.detach() for s in drawn] if module.sequential else did
        for i in order:
            x = torch.cat([data["state"], *seen[:i], drawn[i].action, *seen[i + 1 :]], -1)
            each = alphas[i].exp().detach() * drawn[i].log_prob - torch.minimum(q1(x), q2(x))
            if loss.exact_choices and MIXED.agents[i].action.kind == "discrete":
                each = expected_over_choices(i, data, seen)
            adam[i].zero_grad()
            ((each * lives(data, i)).sum() / lives(data, i).sum()).backward()
            adam[i].step()
            if module.sequential and i != order[-1]:
                with torch.no_grad():
                    seen[i] = draw(data, i).action

        alpha_adam.zero_grad()
        total: Any = 0.0
        joint: Any = 0.0
        for i, place in enumerate(MIXED.agents):
            target: Any = -2.0
            if place.action.choices:
                mask = data[place.group, "action_mask"][:, place.index]
                counts = [
                    part.sum(-1, keepdim=True) for part in mask.split(place.action.choices, -1)
                ]
                target = SHARE * sum(c.clamp(min=1).double().log() for c in counts)
            gap = (drawn[i].log_prob.detach() + target) * lives(data, i)
            total = total - alphas[i] * gap.sum() / lives(data, i).sum()
            joint = joint + gap
        (total - joint_alpha * joint.mean()).backward()
        alpha_adam.step()
        for slow, fast in ((t1, q1), (t2, q2)):
            for p, q in zip(slow.parameters(), fast.parameters(), strict=True):
                p.data.mul_(1 - POLYAK).add_(POLYAK * q.data)
    return numbers(loss)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("algorithm", [HASAC, MASAC])
def test_a_mixed_team_learns_as_it_does_written_plainly(
    algorithm: type[HASAC], exact: bool
) -> None:
    config = {"gamma": GAMMA, "polyak": POLYAK, "actor_lr": LR, "critic_lr": LR, "alpha_lr": LR}
    config |= {"alpha": ALPHA, "target_entropy_choices": SHARE, "exact_choices": exact}
    module = algorithm(MIXED, config, NetworkConfig([8], activation="tanh")).double()
    module.optimizers_of_team()
    batches = [batch(MIXED, 16, deaths=True, masks=True, dtype=torch.float64) for _ in range(6)]
    expected, start = plainly(module, batches), numbers(module.loss)
    for iteration, data in enumerate(batches):
        given = SimpleNamespace(
            learning_steps=1, update_priority=None, sample=lambda *_, d=data, **__: d.clone()
        )
        module.learn(given, UpdateRandomness(0, iteration))
    torch.testing.assert_close(numbers(module.loss), expected, rtol=1e-5, atol=1e-6)
    assert (numbers(module.loss) - start).abs().median() > 1e-3
