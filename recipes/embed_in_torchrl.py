"""HASAC's parts in a plain TorchRL loop: neither Lightning nor Hydra is imported.

    python recipes/embed_in_torchrl.py

Every part can be exchanged: the environments and the policy run in TorchRL's collectors (see
torchrl_collector.py), the engine takes any object with the methods of ``OffPolicyLoss``.
"""

import argparse
import sys
import time

import torch

from hetmarl.data import Replay, TeamCollector, evaluate
from hetmarl.engines import GradientStep, OffPolicyEngine, UpdateRandomness, stream
from hetmarl.networks import JointQ, NetworkConfig, TeamPolicy
from hetmarl.objectives import HASACLoss
from hetmarl_envs import TeamSpec, make_env


def train(
    task: str = "mamujoco/halfcheetah_2x3",
    *,
    total_frames: int = 40_000,
    num_envs: int = 20,
    warmup_frames: int = 5_000,
    batch_size: int = 500,
    steps_per_chunk: int = 50,
    seed: int = 0,
) -> TeamPolicy:
    """Trains on one task and prints a line per evaluation; all counts are in frames but
    ``steps_per_chunk``, vector steps between two rounds of updates."""
    torch.manual_seed(seed)
    env = make_env(task, num_envs=num_envs, seed=seed)
    eval_env = make_env(task, num_envs=10, seed=seed + 1)
    spec = TeamSpec.from_env(env)

    # One ordinary module per agent; the critic sees the state and everybody's action.
    network = NetworkConfig(hidden_sizes=[256, 256])
    policy, critic = TeamPolicy(spec, network), JointQ(spec, network)
    loss = HASACLoss(policy, critic, gamma=0.99, alpha=1.0, auto_alpha=True)

    def step(parameters: list[torch.nn.Parameter], lr: float) -> GradientStep:
        return GradientStep(parameters, torch.optim.Adam(parameters, lr=lr))

    # agents that share parameters are one unit; here each is its own
    units = [torch.nn.ModuleList(policy.actors[i] for i in unit) for unit in policy.units]

    engine = OffPolicyEngine(
        loss,
        critic_step=step(list(critic.parameters()), 1e-3),
        actor_steps=[step(list(unit.parameters()), 1e-3) for unit in units],
        temperature_step=step([*loss.log_alpha, loss.log_alpha_joint], 3e-4),
    )

    collector = TeamCollector(env, policy, seed=seed)
    replay: Replay | None = None
    started = time.perf_counter()
    chunks = -(-total_frames // (steps_per_chunk * num_envs))
    for chunk in range(chunks):
        frames = chunk * steps_per_chunk * num_envs
        data, _ = collector.collect(steps_per_chunk, chunk, random=frames < warmup_frames)
        if replay is None:
            index = getattr(env, "observation_index", None)  # observations from the state
            spare = 2 * steps_per_chunk
            replay = Replay(data, spec, 1_000_000, spare=spare, observation_index=index)
        replay.extend(data)
        if frames >= warmup_frames:
            randomness = UpdateRandomness(seed, chunk)
            drawn = stream(seed, "replay", chunk)
            for _ in range(steps_per_chunk):
                batch = replay.sample(batch_size, n_step=10, gamma=0.99, generator=drawn)
                engine.update(batch, randomness)
        if chunk % max(chunks // 8, 1) == 0 or chunk == chunks - 1:
            result = evaluate(policy, eval_env)
            speed = (frames + steps_per_chunk * num_envs) / (time.perf_counter() - started)
            print(
                f"{frames + steps_per_chunk * num_envs:>9,} frames   return "
                f"{result['return_mean']:8.1f} ± {result['return_std']:.1f}   {speed:,.0f} frames/s"
            )
    env.close()
    eval_env.close()
    return policy


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="mamujoco/halfcheetah_2x3")
    parser.add_argument("--total-frames", type=int, default=40_000)
    parser.add_argument("--num-envs", type=int, default=20)
    parser.add_argument("--warmup-frames", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(
        given.task,
        total_frames=given.total_frames,
        num_envs=given.num_envs,
        warmup_frames=given.warmup_frames,
        seed=given.seed,
    )
    loaded = {"lightning", "pytorch_lightning", "hydra", "omegaconf"} & set(sys.modules)
    assert not loaded, f"imported after all: {loaded}"


if __name__ == "__main__":
    main()
