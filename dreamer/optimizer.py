"""From a loss to a step: gradient, clip, Adam, and what happened as metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dreamer import distributed
from dreamer.errors import UserError
from dreamer.settings import OptimizerSettings
from dreamer.types import Metrics


class Optimizer(nn.Module):
    """Adam on a fixed list of parameters, with the global gradient norm clipped first.

    `step` asks autograd for the gradients of exactly these parameters, so a loss moves nothing
    else, whatever networks it runs through. Several processes move alike, by the mean of their
    gradients. The state of Adam is part of the module's `state_dict`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: OptimizerSettings):
        super().__init__()
        self._parameters_to_move = list(parameters)
        self._clip, self._lr, self._half_life = settings.clip, settings.lr, settings.half_life
        self._steps = 0
        self._adam = torch.optim.Adam(
            self._parameters_to_move, lr=settings.lr, eps=settings.eps, fused=True
        )

    def step(self, loss: Tensor) -> Metrics:
        """Move the parameters down the gradient of a scalar loss; one it does not use stays.

        Returns `loss`, `grad_norm` (before clipping) and `clipped` (1 where the norm was cut).
        """
        with torch.autocast(loss.device.type, enabled=False):  # backward keeps the forward's types
            grads = torch.autograd.grad(loss, self._parameters_to_move, allow_unused=True)
        shared = distributed.mean(grads)
        for parameter, grad in zip(self._parameters_to_move, shared, strict=True):
            parameter.grad = grad
        norm = self._clip_()
        self._adam.param_groups[0]["lr"] = self.lr()
        self._adam.step()
        self._steps += 1
        self._adam.zero_grad(set_to_none=True)
        clipped = (norm > self._clip).float()
        return {"loss": loss.detach(), "grad_norm": norm.detach(), "clipped": clipped}

    def _clip_(self) -> Tensor:
        """Scale the gradients down to the largest norm allowed; returns the norm before."""
        grads = [x.grad for x in self._parameters_to_move if x.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        if norm.is_cuda or norm > self._clip:  # a GPU would have to be waited for
            nn.utils.clip_grads_with_norm_(self._parameters_to_move, self._clip, norm)
        return norm

    def lr(self) -> float:
        """Step size of the next step: halved every `half_life` steps, or constant if that is 0."""
        return self._lr * 0.5 ** (self._steps / self._half_life) if self._half_life else self._lr

    def get_extra_state(self) -> dict[str, Any]:
        """State of Adam, saved with the module's parameters."""
        return self._adam.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the moments of Adam; step size and constants in force stay the configured ones.

        A state of other parameters, or none at all, is a `UserError`.
        """
        self._check(state)
        self._adam.load_state_dict({**self._adam.state_dict(), "state": state["state"]})
        self._steps = max((int(x["step"]) for x in self._adam.state.values()), default=0)

    def _check(self, state: Any) -> None:
        """The parts of Adam's state, and the shape of each moment."""
        wanted = self._adam.state_dict()["param_groups"][0]["params"]
        parts = state if isinstance(state, dict) else {}
        groups, moments = parts.get("param_groups"), parts.get("state")
        good = (
            isinstance(groups, list)
            and len(groups) == 1
            and isinstance(groups[0], dict)
            and groups[0].get("params") == wanted
            and isinstance(moments, dict)
            and all(_fits(moments.get(k), x) for k, x in enumerate(self._parameters_to_move))
            and moments.keys() <= set(wanted)
        )
        if not good:
            raise UserError("the state of an optimiser does not fit its network")


def _fits(moments: Any, parameter: nn.Parameter) -> bool:
    """Are these the moments of Adam for a parameter? None: it has not moved yet."""
    if moments is None:
        return True
    shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    return (
        isinstance(moments, dict)
        and moments.keys() == shapes.keys()
        and all(isinstance(x, Tensor) and x.is_floating_point() for x in moments.values())
        and all(moments[name].shape == shape for name, shape in shapes.items())
        and bool(torch.isfinite(moments["step"]))
    )
