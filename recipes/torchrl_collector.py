"""HASAC's environments, policy and loss with TorchRL's own collector and replay buffer.

    python recipes/torchrl_collector.py

The loss is called as any LossModule: all agents at once. The sequential update is the engine's, see
embed_in_torchrl.py.
"""

import torch
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss
from hetmarl_envs import TeamSpec, make_env


def train(
    task: str = "vmas/navigation", *, total_frames: int = 6_400, num_envs: int = 32
) -> list[float]:
    """Trains for ``total_frames`` frames and returns the critic's loss after each chunk."""
    torch.manual_seed(0)
    env = make_env(task, num_envs=num_envs, seed=0)
    spec = TeamSpec.from_env(env)
    policy, critic = TeamPolicy(spec, NetworkConfig()), JointQ(spec, NetworkConfig())
    loss = HASACLoss(policy, critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100_000), batch_size=256)
    collector = Collector(
        env,
        policy,
        frames_per_batch=10 * num_envs,
        total_frames=total_frames,
        trust_policy=True,  # a plain TensorDict module: nothing to wrap
        track_traj_ids=False,
        auto_register_policy_transforms=False,  # True carries the states of recurrent policies
    )
    losses = []
    for chunk in collector:
        buffer.extend(chunk.reshape(-1))
        for _ in range(5):
            values = loss(buffer.sample())
            total = torch.stack([values[name] for name in loss.out_keys]).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(
                    loss.target_critic.parameters(), critic.parameters(), strict=True
                ):
                    slow.lerp_(fast, 0.005)
        losses.append(values["loss_qvalue"].item())
    collector.shutdown()
    return losses


if __name__ == "__main__":
    losses = train()
    print(f"critic's loss {losses[0]:.4f} → {losses[-1]:.4f} in {len(losses)} chunks")
