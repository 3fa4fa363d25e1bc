"""Advantages in the values' own precision."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from hetmarl.objectives.values import advantages


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_discount_is_as_precise_as_the_values(dtype: torch.dtype) -> None:
    never = torch.zeros(1, 1, 1, dtype=torch.bool)
    reward = torch.zeros(1, 1, 1)
    data = TensorDict({"next": {"reward": reward, "done": never, "terminated": never}}, [1, 1])
    value, following = torch.zeros(1, 1, 1, dtype=dtype), torch.ones(1, 1, 1, dtype=dtype)
    advantage, _ = advantages(data, value, following, 0.9, 0.95)
    assert advantage.dtype == dtype
    assert advantage.item() == torch.tensor(0.9, dtype=dtype).item()
