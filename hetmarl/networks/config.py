"""Settings of the actor and critic networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from torch import nn

from hetmarl.typed import build, convert
from hetmarl_envs.contract import AgentSpec, TeamSpec
from hetmarl_envs.errors import ConfigError, UnknownNameError, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}
MEMORIES = ("none", "gru", "lstm")
SHARINGS = ("none", "full", "seps")


@dataclass
class SePSConfig:
    """How ``network.sharing=seps`` finds out which agents are alike; see ``networks.seps``."""

    clusters: int | None = None
    """Number of sets; null: the fewest that predict nearly as well as one set per agent."""
    tolerance: float = 0.25
    """How much worse those few may predict, relatively; .1 to .5."""
    frames: int = 10_000
    """Frames of random actions to learn from, 2e3 to 1e5."""
    epochs: int = 20
    """Passes over them, 5 to 100."""
    batch_size: int = 256
    """Samples per gradient step, 64 to 1024."""
    learning_rate: float = 3e-3
    """Adam's, 1e-3 to 1e-2."""
    latent_size: int = 4
    """Numbers that describe an agent, 2 to 16."""
    hidden_sizes: list[int] = field(default_factory=lambda: [64, 64])
    """Units of the decoder's hidden layers."""
    kl_coef: float = 1e-3
    """Weight of the latents' divergence from a standard normal; 1e-4 to 1e-2. It is what draws
    agents together whose difference predicts nothing."""
    sets: list[list[str]] | None = None
    """What was found. Written when a run begins; set it to skip the search."""

    def __post_init__(self) -> None:
        for name in ("frames", "epochs", "batch_size", "latent_size", "learning_rate", "clusters"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"network.seps.{name}={value}: expected more than 0.")
        for name in ("tolerance", "kl_coef"):
            if getattr(self, name) < 0:
                raise ConfigError(f"network.seps.{name}={getattr(self, name)}: expected 0 or more.")
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"network.seps.hidden_sizes={self.hidden_sizes}: expected sizes of 1 or more."
            )


@dataclass
class NetworkConfig:
    """Sizes of the actor and critic networks; defaults are HARL's for off-policy learning."""

    hidden_sizes: list[int] = field(default_factory=lambda: [256, 256])
    """Units of each hidden layer, typically 64 to 512."""
    activation: str = "relu"
    """Between layers: relu, tanh, elu, selu, gelu, silu or leaky_relu."""
    actor_last_activation: str | None = "tanh"
    """After the actor's last hidden layer; null: as elsewhere (HARL bounds it with tanh)."""
    memory: str = "none"
    """Recurrent layer after the hidden ones: none, gru or lstm; off policy in actors only."""
    memory_size: int = 64
    """Units of the recurrent layer, 32 to 256."""
    memory_layers: int = 1
    """Recurrent layers on top of each other, 1 or 2."""
    sharing: str | list[list[str]] = "none"
    """Agents with common parameters: none, full, seps, or sets such as [[leg_0,leg_1],[body]]. It
    holds for actors and for the critics of IPPO and IA2C; other critics are one for all."""
    agent_id: bool = True
    """Networks that are shared read which agent they work for, as a one-hot vector."""
    entities: bool = False
    """Read what the environment lists as entities (other units, in battles) alike, wherever in the
    list they stand, and choose among them by what each of them is; see ``networks.entities``."""
    entity_size: int = 64
    """Features of each entity, 32 to 128."""
    seps: SePSConfig = field(default_factory=SePSConfig)
    """How sharing=seps finds its sets."""

    def __post_init__(self) -> None:
        self.hidden_sizes = [int(size) for size in self.hidden_sizes]
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ConfigError(
                f"network.hidden_sizes={self.hidden_sizes}: expected at least one size, each 1 or "
                "more, such as [256, 256]."
            )
        _choice("activation", self.activation, ACTIVATIONS)
        if self.actor_last_activation is not None:
            _choice("actor_last_activation", self.actor_last_activation, ACTIVATIONS)
        _choice("memory", self.memory, MEMORIES)
        for name in ("memory_size", "memory_layers", "entity_size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"network.{name}={getattr(self, name)}: expected more than 0.")
        if isinstance(self.seps, dict):  # out of a checkpoint
            self.seps = build(SePSConfig, self.seps, "network.seps")
        if isinstance(self.sharing, str):
            _choice("sharing", self.sharing, SHARINGS)
        elif not all(names and not isinstance(names, str) for names in self.sharing):
            raise ConfigError(
                f"network.sharing={self.sharing}: expected {', '.join(SHARINGS)} or a list of sets "
                "of agents such as [[leg_0,leg_1],[body]]."
            )
        else:
            self.sharing = [list(names) for names in self.sharing]

    def make_actors(self, spec: TeamSpec) -> list[nn.Module]:
        """The team's actors, in team order; what ``TeamPolicy`` acts with.

        Those that share parameters share networks.

        Raises:
            ConfigError: an agent's spaces have no such actor, or ``sharing`` does not fit the team.
        """
        from hetmarl.networks.sharing import make_off_policy_actors  # which needs this config

        return make_off_policy_actors(spec, self, self.make_actor)

    def make_actor(self, agent: AgentSpec) -> Any:
        """An agent's actor with networks of its own."""
        from hetmarl.networks.actors import make_actor

        return make_actor(agent, self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for checkpoints."""
        return asdict(self)


@dataclass
class DeterministicNetworkConfig(NetworkConfig):
    """The networks of deterministic policies and their critics; defaults are HARL's."""

    hidden_sizes: list[int] = field(default_factory=lambda: [128, 128])
    """Units of each hidden layer, typically 64 to 512."""
    exploration_noise: float = 0.1
    """σ of the noise on real-valued actions, in half widths of the bounds; .05 to .3. Choices
    explore by Gumbel noise, which has no such size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exploration_noise >= 0:
            raise ConfigError(
                f"network.exploration_noise={self.exploration_noise}: expected 0 or more."
            )

    def make_actor(self, agent: AgentSpec) -> Any:
        """An agent's actor with networks of its own."""
        from hetmarl.networks.deterministic import make_deterministic_actor

        return make_deterministic_actor(agent, self)


@dataclass
class GreedyNetworkConfig(NetworkConfig):
    """The networks of agents that are greedy in a Q-function of their own (HAD3QN)."""

    hidden_sizes: list[int] = field(default_factory=lambda: [128, 128, 128])
    """Units of each hidden layer; the actors' last one is that of each of two streams."""
    actor_last_activation: str | None = None
    """After the actor's last hidden layer; null: as elsewhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entities:
            raise ConfigError(
                "network.entities=true: agents that are greedy in a Q-function of their own have "
                "one value per combination of choices, which is about no entity. Take algo=hasac."
            )

    def make_actor(self, agent: AgentSpec) -> Any:
        """An agent's actor with networks of its own."""
        from hetmarl.networks.dueling import DuelingActor

        return DuelingActor(agent, self)


# Settings of the team, which no single network can have for itself.
_OF_THE_TEAM = ("agents", "critic", "sharing", "agent_id", "seps", "compile")


@dataclass
class OnPolicyNetworkConfig(NetworkConfig):
    """The networks of on-policy learning; defaults are HARL's."""

    hidden_sizes: list[int] = field(default_factory=lambda: [128, 128])
    """Units of each hidden layer, typically 64 to 256."""
    actor_last_activation: str | None = None
    """After the actor's last hidden layer; null: as elsewhere."""
    layer_norm: bool = True
    """Normalise the input and every hidden layer's output (Ba et al. 2016, arXiv 1607.06450)."""
    orthogonal: bool = True
    """Orthogonal initial weights and zero biases; otherwise PyTorch's own."""
    actor_gain: float = 0.01
    """Scale of the actor's orthogonal output weights; .01 starts every choice equally likely."""
    std_scale: float = 0.5
    """A Gaussian's σ = std_scale·sigmoid(w), in half widths of the bounds; .5 (HARL) to 2."""
    std_init: float = 1.0
    """Initial w; 1 gives σ = .73·std_scale."""
    channels: list[int] = field(default_factory=lambda: [32, 64])
    """Output channels of the convolutions (3×3, stride 2) that image observations go through."""
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of single actors, such as {agent_1: {memory: gru}}."""
    critic: dict[str, Any] = field(default_factory=dict)
    """Settings of the critic where they differ, such as {hidden_sizes: [512, 512]}."""
    compile: bool = False
    """Compile actors and critic when training starts (torch.compile): faster updates after a minute
    (docs/explanation/speed.md). Needs a C++ compiler. Not for trust regions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("std_scale", "actor_gain"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"network.{name}={getattr(self, name)}: expected more than 0.")
        if not self.channels or min(self.channels) < 1:
            raise ConfigError(f"network.channels={self.channels}: expected sizes of 1 or more.")
        for name in self.agents:  # their errors now, not when the networks are made
            self.for_agent(name)
        self.for_critic()

    def for_agent(self, name: str) -> OnPolicyNetworkConfig:
        """The settings of one actor."""
        return self._with(self.agents.get(name, {}), f"network.agents.{name}", ())

    def for_critic(self) -> OnPolicyNetworkConfig:
        """The settings of the critic."""
        return self._with(self.critic, "network.critic", ("actor_", "std_"))

    def _with(
        self, own: dict[str, Any], where: str, without: tuple[str, ...]
    ) -> OnPolicyNetworkConfig:
        """These settings with ``own`` ones, types and ranges checked."""
        if not own:
            return self
        known = [f.name for f in fields(self) if f.name not in _OF_THE_TEAM]
        known = [name for name in known if not name.startswith(without)]
        for key in own:
            if key not in known:
                raise UnknownNameError(
                    f"unknown key '{where}.{key}'.{did_you_mean(key, known)} "
                    f"Known: {', '.join(known)}."
                )
        hints = get_type_hints(type(self))
        own = {key: convert(value, hints[key], f"{where}.{key}") for key, value in own.items()}
        try:
            return replace(self, **({"agents": {}, "critic": {}} | own))
        except ConfigError as error:
            raise ConfigError(str(error).replace("network.", f"{where}.", 1)) from error

    def make_actors(self, spec: TeamSpec) -> list[nn.Module]:
        """The team's actors, in team order; those that share parameters share a module.

        Raises:
            ConfigError: an agent's spaces have no such actor, or ``sharing`` or ``agents`` name
                agents that the team has not.
        """
        from hetmarl.networks.sharing import make_actors  # which is made from this config

        return make_actors(spec, self)


def _choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"network.{name}='{value}' is unknown.{did_you_mean(str(value), choices)} "
            f"Choose one of {', '.join(choices)}."
        )
