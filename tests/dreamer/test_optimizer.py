"""The step size over time, and what a checkpoint keeps of it."""

import copy
import itertools

import pytest
import torch
from torch import nn

from dreamer.optimizer import Optimizer
from dreamer.settings import OptimizerSettings


def one_number(half_life: int) -> tuple[nn.Parameter, Optimizer]:
    number = nn.Parameter(torch.zeros(()))
    return number, Optimizer([number], OptimizerSettings(0.1, 1e-8, 1e9, half_life))


def steps(number: nn.Parameter, optimizer: Optimizer, count: int) -> list[float]:
    """How far each of `count` steps along the same slope goes; of Adam, each is the step size."""
    places = [number.item()]
    for _ in range(count):
        optimizer.step(-number)
        places.append(number.item())
    return [after - before for before, after in itertools.pairwise(places)]


def test_the_step_size_is_halved_or_stays():
    assert steps(*one_number(0), 4) == pytest.approx([0.1] * 4, rel=1e-4)
    assert steps(*one_number(2), 5) == pytest.approx([0.1 * 0.5 ** (k / 2) for k in range(5)])


def test_a_restored_optimizer_goes_on_where_it_was():
    number, optimizer = one_number(2)
    steps(number, optimizer, 3)
    again, restored = one_number(2)
    restored.load_state_dict(optimizer.state_dict())
    assert restored.lr() == optimizer.lr() == pytest.approx(0.1 * 0.5**1.5)
    assert steps(again, restored, 2) == pytest.approx(steps(number, optimizer, 2))
    _, constant = one_number(0)  # the settings in force decide, not those of the checkpoint
    constant.load_state_dict(optimizer.state_dict())
    assert constant.lr() == 0.1


def test_a_step_is_that_of_adam_on_clipped_gradients():
    """Also from a checkpoint of the time before the steps of all parameters were one operation."""
    slopes = [torch.tensor([3.0, -4.0]), torch.tensor([0.3])]
    own, plain = ([nn.Parameter(torch.zeros_like(x)) for x in slopes] for _ in range(2))
    optimizer = Optimizer(own, OptimizerSettings(0.1, 1e-3, 1.0, 0))
    adam = torch.optim.Adam(plain, lr=0.1, eps=1e-3)
    for k in range(4):
        if k == 2:
            optimizer.set_extra_state(copy.deepcopy(adam.state_dict()))
        size = 10.0 ** (1 - k)  # the first two are clipped
        norm = size * torch.cat(slopes).norm()
        metrics = optimizer.step(
            sum((size * x * p).sum() for x, p in zip(slopes, own, strict=True))
        )
        assert metrics["grad_norm"] == pytest.approx(norm.item())
        assert metrics["clipped"] == (norm > 1)
        for slope, parameter in zip(slopes, plain, strict=True):
            parameter.grad = size * slope / norm.clamp_min(1.0)
        adam.step()
        for found, expected in zip(own, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert optimizer.get_extra_state()["param_groups"][0]["fused"]
