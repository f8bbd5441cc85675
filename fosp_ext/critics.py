"""The in-sample critic of one signal, reward or cost, after IQL (docs/concepts/algorithm.md 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.actor_critic import frozen_copy
from dreamer.distributions import TwoHot
from dreamer.functional import lambda_return, masked_mean, polyak_
from dreamer.moments import Moments
from dreamer.networks import TwoHotHead
from dreamer.optimizer import Optimizer
from dreamer.settings import ImaginationSettings, OptimizerSettings
from dreamer.types import Metrics, Trajectory
from fosp_ext.settings import InSampleCriticSettings
from fosp_ext.targets import expectile_weight, real_q_target
from fosp_ext.transitions import RealTransitions


class InSampleCritic(nn.Module):
    """Q(s, a) with its target network, and V(s), of one signal in its raw units: two of each.

    `value` and `q` belong to the current policy: they learn in imagination alone. `in_sample_value`
    is the expectile of `in_sample_target_q` over recorded actions (IQL, eq. 5), the value of the
    best action that the data support, hence the upper expectile for reward and the lower one for
    cost: both learn from recorded rows alone. Without `split_value` there is one V and one Q, which
    learn from both.
    """

    def __init__(
        self,
        feat_size: int,
        action_size: int,
        settings: InSampleCriticSettings,
        imagination: ImaginationSettings,
        sign: int,
    ):
        """`sign` is +1 for a signal to be maximised (reward), -1 for one to be minimised (cost)."""
        super().__init__()
        self.settings, self.imagination, self.sign = settings, imagination, sign
        net = settings.net

        def head(inputs: int) -> TwoHotHead:
            return TwoHotHead(inputs, net.layers, net.units, outscale=0.0)

        self.value_net, self.q_net = head(feat_size), head(feat_size + action_size)
        self.target_q_net = frozen_copy(self.q_net)
        self.optimizer = _optimizer(self.value_net, self.q_net, settings.optimizer)
        self.in_sample_net, self.in_sample_q_net = self.value_net, self.q_net
        self.in_sample_target_q_net = self.target_q_net
        if settings.split_value:
            self.in_sample_net, self.in_sample_q_net = (
                head(feat_size),
                head(feat_size + action_size),
            )
            self.in_sample_target_q_net = frozen_copy(self.in_sample_q_net)
            # Of its own, so that neither part's gradient counts in the norm that clips the other's.
            self.in_sample_optimizer = _optimizer(
                self.in_sample_net, self.in_sample_q_net, settings.optimizer
            )
        self.moments = Moments()

    def value(self, feat: Tensor) -> Tensor:
        """Value V^pi under the current policy: (..., F) -> (...)."""
        return self.value_net(feat).mean()

    def in_sample_value(self, feat: Tensor) -> Tensor:
        """In-sample value V*, of the best supported action: (..., F) -> (...)."""
        return self.in_sample_net(feat).mean()

    def q(self, feat: Tensor, action: Tensor) -> Tensor:
        """Q^pi, the policy's after this action: (..., F) and (..., A) -> (...)."""
        return self.q_net(with_action(feat, action)).mean()

    @torch.no_grad()
    def target_q(self, feat: Tensor, action: Tensor) -> Tensor:
        """Q^pi of the target network: (..., F) and (..., A) -> (...), without gradient."""
        return self.target_q_net(with_action(feat, action)).mean()

    @torch.no_grad()
    def in_sample_target_q(self, feat: Tensor, action: Tensor) -> Tensor:
        """Q*, that of the best supported actions afterwards, of its target network, likewise."""
        return self.in_sample_target_q_net(with_action(feat, action)).mean()

    def update(
        self, traj: Trajectory, signal: Tensor, real: RealTransitions, real_signal: Tensor
    ) -> Metrics:
        """One step on imagined (N, H) and recorded (B, T-1) transitions, both detached.

        With `real_weight` 0, as in the online phase, the recorded ones are left alone; in-sample
        networks of their own then stay as they are.
        """
        imagined = self.imagined_losses(traj, signal)
        loss, recorded = imagined["v_loss"] + imagined["q_loss"], {}
        if self.settings.real_weight:
            recorded = self.real_losses(real, real_signal)
            real_loss = self.settings.real_weight * (recorded["v_loss"] + recorded["q_loss"])
            if self.settings.split_value:
                recorded |= self.in_sample_optimizer.step(real_loss)
                polyak_(self.in_sample_target_q_net, self.in_sample_q_net, self.settings.tau)
            else:
                loss = loss + real_loss
        step = self.optimizer.step(loss)
        polyak_(self.target_q_net, self.q_net, self.settings.tau)
        return {
            **step,
            "return": imagined["return"],
            **{f"imag_{name}": imagined[name].detach() for name in ("v_loss", "q_loss", "q", "v")},
            **{f"real_{name}": value.detach() for name, value in recorded.items()},
        }

    def imagined_losses(self, traj: Trajectory, signal: Tensor) -> dict[str, Tensor]:
        """Losses and means, scalars: V^pi towards target Q^pi of its actions, Q^pi towards (1)."""
        feat, im = traj.feat[:, :-1], self.imagination
        dist = self.value_net(traj.feat)  # over (N, H+1)
        value = dist.mean().detach()
        returns = lambda_return(signal, traj.cont, value, im.gamma, im.lam)
        target_q = self.target_q(feat, traj.action)
        here = TwoHot(dist.logits[:, :-1], dist.bins)  # at the states acted in, (N, H)
        expectile = self.settings.imagined_expectile
        v_loss = self._expectile_loss(here, value[:, :-1], target_q, expectile)
        q_loss = self._q_loss(self.q_net(with_action(feat, traj.action)), returns, target_q)
        return {
            "v_loss": (traj.weight * v_loss).mean(),
            "q_loss": (traj.weight * q_loss).mean(),
            "q": target_q.mean(),
            "v": value.mean(),
            "return": returns.mean(),
        }

    def real_losses(self, real: RealTransitions, signal: Tensor) -> dict[str, Tensor]:
        """IQL on recorded actions, scalars: V* towards target Q* (eq. 5), Q* towards eq. 6."""
        dist = self.in_sample_net(real.feat)
        value = dist.mean().detach()
        target_q = self.in_sample_target_q(real.feat, real.action)
        v_loss = self._expectile_loss(dist, value, target_q, self.settings.expectile)
        target = self.real_target(real, signal)
        q_dist = self.in_sample_q_net(with_action(real.feat, real.action))
        q_loss = self._q_loss(q_dist, target, target_q)
        return {
            "v_loss": masked_mean(v_loss, real.mask),
            "q_loss": masked_mean(q_loss, real.mask),
            "q": masked_mean(target_q, real.mask),
            "v": masked_mean(value, real.mask),
            "td_error": masked_mean((target - target_q).abs(), real.mask),
            "q_above_v": masked_mean((target_q > value).float(), real.mask),
        }

    @torch.no_grad()
    def real_target(self, real: RealTransitions, signal: Tensor) -> Tensor:
        """Target of Q* at recorded pairs (IQL, eq. 6), (B, T-1)."""
        value_next = self.in_sample_value(real.feat_next)
        return real_q_target(signal, real.cont, value_next, self.imagination.gamma)

    def _expectile_loss(self, dist: TwoHot, value: Tensor, q: Tensor, expectile: float) -> Tensor:
        return expectile_weight(self.sign * (q - value), expectile) * dist.loss(q)

    def _q_loss(self, dist: TwoHot, target: Tensor, target_q: Tensor) -> Tensor:
        return dist.loss(target) + self.settings.target_weight * dist.loss(target_q)


def with_action(feat: Tensor, action: Tensor) -> Tensor:
    """What Q reads: (..., F) and (..., A) -> (..., F + A), in the type of the features."""
    return torch.cat([feat, action.to(feat.dtype)], -1)


def _optimizer(value_net: nn.Module, q_net: nn.Module, settings: OptimizerSettings) -> Optimizer:
    return Optimizer([*value_net.parameters(), *q_net.parameters()], settings)
