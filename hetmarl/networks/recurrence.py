"""A recurrent layer over whole sequences, episode ends in them respected, in one fused call."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recurrence(nn.Module):
    """GRU or LSTM; its state is one flat vector, which is zero where an episode begins.

    A sequence with episodes beginning in it is cut there into pieces, which go side by side through
    one call of PyTorch's fused kernel. (A loop over time with the state multiplied by a mask, the
    usual form, costs one call per step.)

    Args:
        kind: ``"gru"`` or ``"lstm"``.
        inputs: width of the input.
        size: units of each layer.
        layers: on top of each other.
    """

    def __init__(self, kind: str, inputs: int, size: int, layers: int = 1) -> None:
        super().__init__()
        self.kind, self.size, self.layers = kind, size, layers
        make = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.net = make(inputs, size, layers, batch_first=True)

    @property
    def state_size(self) -> int:
        """Numbers H of the flat state: layers × units, twice for an LSTM."""
        return self.layers * self.size * (2 if self.kind == "lstm" else 1)

    def make_orthogonal(self) -> None:
        """Orthogonal weights and zero biases."""
        for name, parameter in self.net.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor]:
        """Runs through time.

        Args:
            x: inputs ``[N, T, F]``.
            hidden: state before the first step ``[N, H]``.
            is_init: first steps of episodes ``[N, T, 1]``.

        Returns:
            Outputs ``[N, T, size]`` and the state after the last step ``[N, H]``.
        """
        # collected in another precision or on another device
        hidden, is_init = hidden.to(self.net.weight_ih_l0), is_init.to(x.device)
        first = is_init[:, 0]
        hidden = torch.where(first, torch.zeros_like(hidden), hidden)
        starts = is_init.squeeze(-1).clone()
        starts[:, 0] = True
        if x.shape[1] == 1 or not starts[:, 1:].any():
            return self._run(x, hidden)
        # pieces, in the order of sequences and time: which one, and where in it, each step is
        length = x.shape[1]
        piece = starts.flatten().cumsum(0).view_as(starts) - 1
        time = torch.arange(length, device=x.device).expand_as(starts)
        begin = torch.where(starts, time, 0).cummax(dim=1).values
        place = time - begin
        count, longest = int(piece[-1, -1]) + 1, int(place.max()) + 1
        padded = x.new_zeros(count, longest, x.shape[-1]).index_put((piece, place), x)
        state = hidden.new_zeros(count, hidden.shape[-1]).index_put((piece[:, 0],), hidden)
        lengths = torch.bincount(piece.flatten()).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            padded, lengths, batch_first=True, enforce_sorted=False
        )
        output, final = self.net(packed, self._unpack(state))
        output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        return output[piece, place], self._pack(final)[piece[:, -1]]

    def states(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> Tensor:
        """The state after every step ``[N, T, H]``; arguments are ``forward``'s."""
        if self.kind == "gru" and self.layers == 1:
            return self(x, hidden, is_init)[0]  # which is what it puts out
        found = []
        for t in range(x.shape[1]):
            _, hidden = self(x[:, t : t + 1], hidden, is_init[:, t : t + 1])
            found.append(hidden)
        return torch.stack(found, dim=1)

    def _run(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        output, final = self.net(x.contiguous(), self._unpack(hidden))
        return output, self._pack(final)

    def _unpack(self, hidden: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Flat ``[N, H]`` to what the kernel takes, ``[layers, N, size]`` each."""
        shape = (hidden.shape[0], -1, self.layers, self.size)
        parts = hidden.view(shape).permute(1, 2, 0, 3).contiguous()
        return parts[0] if self.kind == "gru" else (parts[0], parts[1])

    def _pack(self, state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        parts = torch.stack((state,) if isinstance(state, Tensor) else state)
        return parts.permute(2, 0, 1, 3).flatten(1)
