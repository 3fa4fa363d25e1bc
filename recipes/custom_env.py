"""An environment of your own: two unequal agents, batched, registered, checked, trained.

    python recipes/custom_env.py
    cd recipes && hetmarl train algo=happo task=custom_env/plane

A cart drives in the plane, a lift goes up and down a wall; they are to meet. The cart acts in two
dimensions and sees three numbers, the lift acts in one and sees two: two groups, nothing padded.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from hetmarl_envs import Family, check_team_env, make_env, register_family
from hetmarl_envs.errors import UnknownNameError

SPEED = {"cart": 0.2, "lift": 0.1}
"""Way per step at full action."""


class MeetingEnv(EnvBase):
    """Cart at (x, y), lift at (0, z); the team's reward is minus their distance.

    Terminates when they meet, is truncated after ``max_steps`` steps.

    Args:
        num_envs: sub-environments.
        seed: of where episodes start.
        device: where all tensors live.
        max_steps: time limit in steps.
        reach: distance at which they have met.
    """

    def __init__(
        self,
        *,
        num_envs: int = 1,
        seed: int = 0,
        device: torch.device | str | None = "cpu",
        max_steps: int = 50,
        reach: float = 0.1,
    ) -> None:
        super().__init__(device=device, batch_size=[num_envs])
        self.group_map = {"cart": ["cart"], "lift": ["lift"]}
        self.agent_names = ["cart", "lift"]  # the team's order
        self.max_steps, self.reach = max_steps, reach
        batch = torch.Size([num_envs])

        def group(**specs: Any) -> Composite:
            return Composite(specs, shape=(*batch, 1))

        self.observation_spec = Composite(
            cart=group(observation=Unbounded((*batch, 1, 3))),
            lift=group(observation=Unbounded((*batch, 1, 2))),
            state=Unbounded((*batch, 3)),
            shape=batch,
        ).to(self.device)
        self.action_spec = Composite(
            cart=group(action=Bounded(-1.0, 1.0, (*batch, 1, 2))),
            lift=group(action=Bounded(-1.0, 1.0, (*batch, 1, 1))),
            shape=batch,
        ).to(self.device)
        self.reward_spec = Unbounded((*batch, 1)).to(self.device)
        flag = Categorical(2, shape=(*batch, 1), dtype=torch.bool)
        self.done_spec = Composite(
            done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=batch
        ).to(self.device)
        self._places = torch.zeros(num_envs, 3, device=self.device)  # x, y, z
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=self.device)
        self._set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        self._random = torch.Generator(self.device).manual_seed(seed or 0)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        # TorchRL marks the finished rows; without a mark all begin anew.
        rows = torch.ones_like(self._steps, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict.keys():
            rows = tensordict.get("_reset").reshape(rows.shape)
        start = torch.rand(self._places.shape, generator=self._random, device=self.device)
        self._places = torch.where(rows, 2 * start - 1, self._places)
        self._steps = torch.where(rows, 0, self._steps)
        never = torch.zeros_like(rows)
        return self._observed({"done": never, "terminated": never, "truncated": never})

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        cart = tensordict.get(("cart", "action"))[:, 0] * SPEED["cart"]
        lift = tensordict.get(("lift", "action"))[:, 0] * SPEED["lift"]
        self._places = (self._places + torch.cat([cart, lift], dim=-1)).clamp(-1, 1)
        self._steps = self._steps + 1
        x, y, z = self._places.split(1, dim=-1)
        distance = torch.hypot(x, y - z)
        terminated = distance < self.reach
        truncated = self._steps >= self.max_steps  # a time limit is never termination
        return self._observed(
            {
                "reward": -distance,
                "done": terminated | truncated,
                "terminated": terminated,
                "truncated": truncated,
            }
        )

    def _observed(self, values: dict[str, Any]) -> TensorDictBase:
        x, y, z = self._places.split(1, dim=-1)
        seen = {"cart": torch.cat([x, y, z - y], -1), "lift": torch.cat([z, y - z], -1)}
        groups = {group: {"observation": value.unsqueeze(1)} for group, value in seen.items()}
        return TensorDict(
            {**groups, "state": self._places, **values}, self.batch_size, device=self.device
        )

    # -------------------------------------------------- optional: exact resume, and pictures
    def runtime_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on: tensors and plain values only."""
        return {
            "places": self._places.clone(),
            "steps": self._steps.clone(),
            "random": self._random.get_state(),
        }

    def load_runtime_state(self, state: dict[str, Any]) -> None:
        """Goes back to the moment of ``runtime_state``."""
        self._places = state["places"].to(self.device)
        self._steps = state["steps"].to(self.device)
        self._random.set_state(state["random"])

    def render(self, index: int = 0) -> np.ndarray:
        """Sub-environment ``index`` as ``uint8 [H, W, 3]``."""
        image = np.full((128, 128, 3), 255, dtype=np.uint8)
        x, y, z = ((self._places[index].cpu().numpy() + 1) * 60 + 4).astype(int)
        image[120 - y : 126 - y, x - 3 : x + 3] = (200, 60, 40)
        image[120 - z : 126 - z, 60:68] = (40, 60, 200)
        return image


def make(task: str = "plane", **arguments: Any) -> MeetingEnv:
    """The environment of a task of the family."""
    if task != "plane":
        raise UnknownNameError(f"meeting has no task '{task}'. Expected 'plane'.")
    return MeetingEnv(**arguments)


FAMILY = Family(name="meeting", make=make, tasks=lambda: ["plane"])


def train(total_frames: int = 40_960) -> Any:
    """Trains a team on it with HAPPO; any other algorithm goes in the same way."""
    from lightning.pytorch import Trainer

    from hetmarl.algorithms import HAPPO, HAPPOConfig
    from hetmarl.data import RolloutData, RolloutDataConfig

    register_family(FAMILY, replace=True)
    build = partial(make_env, "meeting/plane", max_steps=30)
    team = check_team_env(build(num_envs=8), steps=60)
    for agent in team.agents:
        print(f"{agent.name} sees {agent.observation_shape}, acts in {agent.action.dim} dimensions")
    data = RolloutData(
        build, num_envs=64, total_frames=total_frames, config=RolloutDataConfig(rollout_steps=32)
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        val_check_interval=data.num_iterations,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    module = HAPPO(team, HAPPOConfig(actor_lr=1e-3, critic_lr=1e-3))
    trainer.fit(module, datamodule=data)
    return module


if __name__ == "__main__":
    metrics = train().trainer.callback_metrics
    print(f"return {metrics['eval/return_mean']:.2f}; uniformly random actions get about -28")
