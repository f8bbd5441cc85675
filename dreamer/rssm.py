"""The recurrent state-space model: what is remembered, what is drawn.

See docs/concepts/algorithm.md 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer.distributions import (
    categorical_kl,
    draw_noise,
    mode_one_hot,
    sample_one_hot,
    uniform,
    unimix_probs,
)
from dreamer.networks import (
    NORM_EPS,
    NormSiLU,
    StepLinear,
    hidden_linear,
    init_hidden_,
    init_output_,
    output_linear,
)
from dreamer.settings import RSSMSettings
from dreamer.types import Latent
from dreamer.utils import compiled


class Posterior(NamedTuple):
    """What `observe` returns: sampled states and the two distributions they were judged by."""

    latent: Latent  # (B, T)
    post: Tensor  # (B, T, S, K) probabilities after seeing the image
    prior: Tensor  # (M, B, T, S, K) probabilities before, by each of the M prior heads


class Before(NamedTuple):
    """The row before a window."""

    latent: Latent  # (B,), sampled
    action: Tensor  # (B, A), chosen there


class Imagined(NamedTuple):
    """What the M prior heads, the members, expect after a step, and the state that came of it."""

    latent: Latent  # (N,), of one member, drawn anew for each row and step
    prior: Tensor  # (M, N, S, K) probabilities
    noise: Tensor | None  # (N, S, 1) in [0, 1): what drew z from that member's; None: not drawn

    def members(self) -> Latent:
        """The state (M, N) that each member makes of the same noise: equal where they agree."""
        deter = self.latent.deter.expand(len(self.prior), *self.latent.deter.shape)
        return Latent(deter, drawn_or_whole(self.prior, self.noise))


class NormGRUCell(nn.Module):
    """A GRU cell with one layer norm over all three gates."""

    def __init__(self, inputs: int, deter: int):
        super().__init__()
        self.linear = hidden_linear(deter + inputs, 3 * deter)
        self.norm = nn.LayerNorm(3 * deter, eps=NORM_EPS)

    def forward(self, deter: Tensor, x: Tensor) -> Tensor:  # (N, D), (N, inputs) -> (N, D)
        reset, cand, update = self.norm(self.linear(torch.cat([deter, x], -1))).float().chunk(3, -1)
        cand = torch.tanh(reset.sigmoid() * cand)
        update = torch.sigmoid(update - 1)
        return torch.lerp(deter, cand, update)


class PriorHead(nn.Sequential):
    """One prior head: (..., D) -> logits (1, ..., S*K)."""

    def __init__(self, deter: int, hidden: int, flat: int):
        super().__init__(
            hidden_linear(deter, hidden), NormSiLU(hidden), output_linear(hidden, flat)
        )

    def forward(self, deter: Tensor) -> Tensor:
        return super().forward(deter).unsqueeze(0)


class PriorEnsemble(nn.Module):
    """M heads of the shape of `PriorHead`, asked together: (..., D) -> logits (M, ..., S*K).

    They differ by their first weights alone, as in V-D4RL and ActSafe.
    """

    def __init__(self, members: int, deter: int, hidden: int, flat: int):
        super().__init__()
        self.hidden = nn.Parameter(torch.empty(members, hidden, deter))
        self.scale = nn.Parameter(torch.ones(members, hidden))
        self.shift = nn.Parameter(torch.zeros(members, hidden))
        self.output = nn.Parameter(torch.empty(members, hidden, flat))
        self.bias = nn.Parameter(torch.zeros(members, 1, flat))
        init_hidden_(self.hidden, deter, hidden)
        init_output_(self.output, hidden, flat, 1.0)

    def forward(self, deter: Tensor) -> Tensor:
        x = F.linear(deter.flatten(0, -2), self.hidden.flatten(0, 1))  # all read the same
        x = F.layer_norm(x.unflatten(-1, self.scale.shape), self.scale.shape[1:], eps=NORM_EPS)
        x = F.silu(x * self.scale + self.shift).transpose(0, 1)  # (M, N, hidden)
        return torch.baddbmm(self.bias, x, self.output).unflatten(1, deter.shape[:-1])


class RSSM(nn.Module):
    """Deterministic GRU state and S categoricals of K classes."""

    def __init__(self, embed_size: int, action_size: int, settings: RSSMSettings):
        super().__init__()
        self.stoch, self.classes, self.unimix = settings.stoch, settings.classes, settings.unimix
        D, hidden, flat = settings.deter, settings.hidden, settings.stoch * settings.classes
        self.feat_size = D + flat  # F
        self.reads_probabilities = settings.read == "probabilities"
        self.imagines_probabilities = settings.imagine == "probabilities"
        self._compiled = False
        self.initial_deter = nn.Parameter(torch.zeros(D))
        self.inputs = nn.Sequential(hidden_linear(flat + action_size, hidden), NormSiLU(hidden))
        self.cell = NormGRUCell(hidden, D)
        self.prior_net = (
            PriorHead(D, hidden, flat)
            if settings.priors == 1
            else PriorEnsemble(settings.priors, D, hidden, flat)
        )
        # One layer on [deter, embed], kept as two: the embeddings of all steps go through at once.
        self.post_deter = hidden_linear(D, hidden, fan_in=D + embed_size)
        self.post_embed = hidden_linear(embed_size, hidden, fan_in=D + embed_size)
        self.post_net = nn.Sequential(NormSiLU(hidden), output_linear(hidden, flat))

    def compile_steps(self) -> None:
        """Have the two steps that an update repeats compiled, when it first takes them."""
        self._compiled = True
        for name in ("_follow", "imagine_step"):
            setattr(self, name, compiled(getattr(self, name)))

    def initial(self, count: int) -> Latent:
        """The learned first state, (count, ...): z is the mode of the priors' mean."""
        deter = torch.tanh(self.initial_deter).unsqueeze(0)  # (1, D)
        stoch = mode_one_hot(self.prior(deter).mean(0))
        return Latent(deter.expand(count, -1), stoch.expand(count, -1, -1))

    def observe(
        self, embed: Tensor, action: Tensor, is_first: Tensor, before: Before | None = None
    ) -> Posterior:
        """Follow recorded windows: embed (B, T, E), action (B, T, A), is_first (B, T).

        Row t's state follows from row t-1's state and action, and from the image of row t. Where
        is_first is 1, the previous state is the learned initial one and the previous action zero.
        `before` is the row before the first; without one the window begins like an episode.
        """
        B, T, _ = embed.shape
        assert action.shape[:2] == is_first.shape == (B, T), (embed.shape, action.shape)
        embed = self.post_embed(embed)  # (B, T, hidden)
        noise = torch.rand(T, B, self.stoch, 1, device=embed.device)
        initial, steps, dists = self.initial(B), [], []
        state, last = before or Before(initial, torch.zeros_like(action[:, 0]))
        led = torch.cat([last.unsqueeze(1), action[:, :-1]], 1)  # the action that led to each row
        led = within_bounds(led) * (1 - is_first).unsqueeze(-1)
        begins = some_begin(is_first)
        with self._repeated():
            for t in range(T):
                if begins[t]:
                    state = state_or(initial, is_first[:, t], state)
                state, post = self._follow(state, led[:, t], embed[:, t], noise[t])
                steps.append(state)
                dists.append(post)
        latent = Latent(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))
        return Posterior(latent, torch.stack(dists, 1), self.prior(latent.deter))

    @contextmanager
    def _repeated(self) -> Iterator[None]:
        """A block that takes many steps: see `StepLinear`. A compiled step has its own way."""
        with ExitStack() as stack:
            for module in () if self._compiled else self._step_modules():
                stack.enter_context(module.repeated())
            yield

    def _step_modules(self) -> list[StepLinear]:
        """The linear layers of `_follow`."""
        parts = (self.inputs, self.cell, self.post_deter, self.post_net)
        modules = chain.from_iterable(part.modules() for part in parts)
        return [module for module in modules if isinstance(module, StepLinear)]

    def obs_step(self, state: Latent, action: Tensor, embed: Tensor, is_first: Tensor) -> Latent:
        """One step of `observe`, for acting: action (N, A) led to the image embed (N, E).

        The state goes on as the policy reads it (`readable`): with probabilities, without chance.
        """
        return self.readable(*self.sampled_step(state, action, embed, is_first))

    def sampled_step(
        self, state: Latent, action: Tensor, embed: Tensor, is_first: Tensor
    ) -> tuple[Latent, Tensor]:
        """The same as training takes it: the sampled state, and the posterior (N, S, K)."""
        state, action = self._led_by(state, action, is_first)
        noise = uniform((len(action), self.stoch, 1), action.device)
        return self._follow(state, action, self.post_embed(embed), noise)

    def posterior_step(
        self, state: Latent, action: Tensor, embed: Tensor, is_first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same without a sample: the deterministic state (N, D) and the posterior."""
        state, action = self._led_by(state, action, is_first)
        return self._posterior(state, action, self.post_embed(embed))

    def _led_by(self, state: Latent, action: Tensor, is_first: Tensor) -> tuple[Latent, Tensor]:
        """State and action (N,) as `_follow` takes them: those of a beginning where one is."""
        state = state_or(self.initial(len(action)), is_first, state)
        return state, within_bounds(action) * (1 - is_first).unsqueeze(-1)

    def readable(self, latent: Latent, post: Tensor) -> Latent:
        """What policy and critics read of states and of the posterior (..., S, K) they came from.

        The probabilities know more than one sample of them does. The model itself learns from
        samples.
        """
        return Latent(latent.deter, post) if self.reads_probabilities else latent

    def _follow(
        self, state: Latent, action: Tensor, embed: Tensor, noise: Tensor
    ) -> tuple[Latent, Tensor]:
        deter, post = self._posterior(state, action, embed)
        return Latent(deter, sample_one_hot(post, noise)), post

    def _posterior(self, state: Latent, action: Tensor, embed: Tensor) -> tuple[Tensor, Tensor]:
        deter = self._advance(state, action)
        return deter, self._probs(self.post_net(self.post_deter(deter) + embed))

    def img_step(self, state: Latent, action: Tensor) -> Latent:
        """Imagine one step: state (N,), action (N, A) -> state (N,), by one of the priors.

        Where probabilities are imagined, z is what the model believes, and nobody can act on what
        it happened to draw; else z is drawn.
        """
        return self.imagine_step(state, action).latent

    def imagine_step(self, state: Latent, action: Tensor) -> Imagined:
        """The same, with what every prior head expected."""
        deter = self._advance(state, within_bounds(action))
        prior = self.prior(deter)
        probs = prior[0] if len(prior) == 1 else one_of(prior)
        noise = None if self.imagines_probabilities else draw_noise(probs)
        return Imagined(Latent(deter, drawn_or_whole(probs, noise)), prior, noise)

    def prior_step(self, state: Latent, action: Tensor) -> Latent:
        """Imagine without chance: state and action (..., A) -> state whose z is probabilities.

        Those of several priors are averaged.
        """
        deter = self._advance(state, within_bounds(action))
        return Latent(deter, self.prior(deter).mean(0))

    def prior(self, deter: Tensor) -> Tensor:
        """Probabilities of the next z before any image, by M heads: (..., D) -> (M, ..., S, K)."""
        return self._probs(self.prior_net(deter))

    def _advance(self, state: Latent, action: Tensor) -> Tensor:
        return self.cell(state.deter, self.inputs(torch.cat([state.stoch.flatten(-2), action], -1)))

    def _probs(self, logits: Tensor) -> Tensor:
        return unimix_probs(logits.unflatten(-1, (self.stoch, self.classes)), self.unimix)


def within_bounds(action: Tensor) -> Tensor:
    """Actions (..., A) with what lies beyond [-1, 1] scaled onto the bound."""
    return action / action.detach().abs().clamp_min(1.0)


def state_or(initial: Latent, is_first: Tensor, state: Latent) -> Latent:
    """The initial state where an episode begins, else the state; all (N,)."""
    first = is_first.bool().unsqueeze(-1)  # (N, 1)
    return Latent(
        torch.where(first, initial.deter, state.deter),
        torch.where(first.unsqueeze(-1), initial.stoch, state.stoch),
    )


def some_begin(is_first: Tensor) -> list[bool]:
    """For each of T rows of (B, T): does an episode begin in any window? A GPU is not asked."""
    if is_first.device.type != "cpu":
        return [True] * is_first.shape[1]
    return is_first.bool().any(0).tolist()


def drawn_or_whole(probs: Tensor, noise: Tensor | None) -> Tensor:
    """z of probabilities (..., S, K): drawn with this noise, or without any the probabilities."""
    return probs if noise is None else sample_one_hot(probs, noise)


def one_of(members: Tensor) -> Tensor:
    """For each of N rows one of M members, drawn evenly: (M, N, S, K) -> (N, S, K)."""
    M, N = members.shape[:2]
    chosen = torch.randint(M, (1, N, 1, 1), device=members.device)
    return torch.take_along_dim(members, chosen, 0).squeeze(0)


def kl_losses(post: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of KL balancing, and the plain KL.

    See docs/concepts/algorithm.md 2.3 and DreamerV3, eq. 5.

    Shapes: post (B, T, S, K), prior (M, B, T, S, K) probabilities -> dyn, rep, kl, each (B, T) in
    nats, means over the M prior heads. `dyn` moves only the priors, `rep` only the posterior; where
    a head's KL is below `free_nats`, its part of both is constant.
    """
    dyn = categorical_kl(post.detach(), prior)
    rep = categorical_kl(post, prior.detach())
    return (
        dyn.clamp_min(free_nats).mean(0),
        rep.clamp_min(free_nats).mean(0),
        dyn.detach().mean(0),
    )
