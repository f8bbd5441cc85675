"""The world model: encoder, RSSM, decoder and heads, on recorded windows.

See docs/concepts/algorithm.md 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamer.functional import masked_mean, rarity_weights, symlog
from dreamer.networks import (
    BernoulliHead,
    Encoder,
    ImageDecoder,
    TwoHotHead,
    VectorDecoder,
    centred,
)
from dreamer.optimizer import Optimizer
from dreamer.rssm import RSSM, Before, Posterior, kl_losses
from dreamer.settings import WorldModelSettings
from dreamer.types import Batch, Latent, Metrics

ALL_ROWS = slice(None)
HeadMaker = Callable[[int], nn.Module]  # from the number of features F to a network on them


class Prediction(NamedTuple):
    """What the heads say about states, each (...): about arriving at, or being in, the state."""

    reward: Tensor
    cost: Tensor
    violation: Tensor  # in [0, 1], without gradient: probability that the state violates
    cont: Tensor  # in {0, 1}: does the episode go on?


class WorldModel(nn.Module):
    """Learns to predict observations, rewards and the end of an episode. It knows no cost.

    A subclass may pass further heads, and adds their losses and read-outs in `head_losses` and
    `predict_cost`.
    """

    def __init__(
        self,
        cameras: Mapping[str, tuple[int, int, int]],
        action_size: int,
        settings: WorldModelSettings,
        heads: Mapping[str, HeadMaker] | None = None,
        vectors: Mapping[str, int] | None = None,
    ):
        """`cameras` are name -> (height, width, channels); `heads` attribute name -> its maker;
        `vectors`, of observations that have some, name -> numbers.
        """
        super().__init__()
        self.settings, vectors = settings, vectors or {}
        self.encoder = Encoder(cameras, vectors, settings.cnn_depth, settings.heads)
        self.rssm = RSSM(self.encoder.size, action_size, settings.rssm)
        layers, units = settings.heads.layers, settings.heads.units
        self.feat_size = self.rssm.feat_size
        self.decoder = ImageDecoder(self.feat_size, cameras, settings.cnn_depth)
        self.reward_head = TwoHotHead(self.feat_size, layers, units, outscale=0.0)
        self.cont_head = BernoulliHead(self.feat_size, layers, units)
        for name, make in (heads or {}).items():
            self.add_module(name, make(self.feat_size))
        self.vector_decoder = (
            VectorDecoder(self.feat_size, vectors, settings.heads) if vectors else None
        )
        self.optimizer = Optimizer(self.parameters(), settings.optimizer)

    @torch.no_grad()
    def warm_up(self, batch: Batch) -> tuple[Before | None, Batch]:
        """Follow the first `context` rows of windows: the last of them, and the rows after it.

        Most windows begin amid an episode, where the recorded actions answer to what was seen
        before. Without context the model takes these actions as evidence of where things are, and
        then believes those of a policy, too (the delusions of Ortega et al., 2021). The same as the
        burn-in of R2D2 (section 3).
        """
        context = min(self.settings.context, batch.reward.shape[1] - 2)
        if context <= 0:
            return None, batch
        head, rest = batch.split(context)
        latent = self.rssm.observe(self.encoder(head.obs), head.action, head.is_first).latent
        return Before(Latent(*(x[:, -1] for x in latent)), head.action[:, -1]), rest

    @torch.no_grad()
    def follow(self, batch: Batch, before: Before | None = None) -> Latent:
        """The states (B, T) of windows after the row `before`, as a policy reads them."""
        embed = self.encoder(batch.obs)
        posterior = self.rssm.observe(embed, batch.action, batch.is_first, before)
        return self.rssm.readable(posterior.latent, posterior.post)

    def update(self, batch: Batch, before: Before | None = None) -> tuple[Latent, Metrics]:
        """One gradient step, on windows after the row `before`.

        Returns the states (B, T), as a policy reads them, and metrics.
        """
        rows = self.recon_rows(batch.reward.shape[1])
        posterior, losses, metrics = self.losses(batch, rows, before)
        total = torch.stack([loss.mean() for loss in losses.values()]).sum()
        step = self.optimizer.step(total)
        latent = self.rssm.readable(posterior.latent, posterior.post)
        return latent.detach(), {**metrics, **step}

    def recon_rows(self, length: int) -> slice:
        """Every `recon_every`-th of `length` rows from a random one on; one row at least."""
        every = min(self.settings.recon_every, length)
        return slice(int(torch.randint(every, ())) if every > 1 else 0, None, every)

    def losses(
        self, batch: Batch, reconstructed: slice = ALL_ROWS, before: Before | None = None
    ) -> tuple[Posterior, dict[str, Tensor], Metrics]:
        """Posterior states, every scaled loss and metrics, without moving anything.

        A loss is (B, T) or a mean; that of the images has the `reconstructed` rows alone.
        """
        images = self.encoder.stacked(batch.obs)  # what the encoder reads and the decoder draws
        embed = self.encoder.joined(self.encoder.embed(images), batch.obs)
        posterior = self.rssm.observe(embed, batch.action, batch.is_first, before)
        feat = posterior.latent.feat()
        dyn, rep, kl = kl_losses(posterior.post, posterior.prior, self.settings.free_nats)
        drawn = self.image_losses(feat[:, reconstructed], images[:, reconstructed])
        losses = {
            **{f"image_loss/{name}": loss for name, loss in drawn.items()},
            **self.vector_losses(feat, batch.obs),
            **self.head_losses(feat, batch),
            "dyn_loss": self.settings.dyn_scale * dyn,
            "rep_loss": self.settings.rep_scale * rep,
        }
        if self.settings.overshoot.steps:
            seen = self.rssm.readable(posterior.latent, posterior.post)
            losses |= self.overshoot_losses(seen, batch)
        metrics = {name: loss.detach().mean() for name, loss in losses.items()}
        metrics["kl"] = kl.mean()
        for name, probs in (("post_ent", posterior.post), ("prior_ent", posterior.prior)):
            metrics[name] = -(probs * probs.log()).sum((-2, -1)).detach().mean()
        return posterior, losses, metrics

    def overshoot_losses(self, latent: Latent, batch: Batch) -> dict[str, Tensor]:
        """Scaled losses of the scalar heads after steps without an image, scalars by their name.

        From some of the states (B, T), the recorded actions are followed `steps` rows on, as in
        imagination; what the heads say there is held against the record. So the dynamics learn to
        keep what reward and cost depend on for as long as a policy imagines. The idea of latent
        overshooting (PlaNet, section 4) with the losses of TD-MPC (eq. 8) in place of the KL.
        """
        settings, T = self.settings.overshoot, batch.reward.shape[1]
        steps = min(settings.steps, T - 1)
        first = int(torch.randint(min(settings.every, T - steps), ()))
        rows = torch.arange(first, T - steps, settings.every, device=batch.reward.device)  # (n,)
        state = Latent(*(x[:, rows].flatten(0, 1) for x in latent))  # (B*n, ...)
        feats = []
        for k in range(steps):
            state = self.rssm.img_step(state, batch.action[:, rows + k].flatten(0, 1))
            feats.append(state.feat())
        ahead = rows.unsqueeze(1) + torch.arange(1, steps + 1, device=rows.device)  # (n, K)
        arrived = Batch({}, *(x[:, ahead].flatten(0, 1) for x in batch[1:]))  # (B*n, K)
        same_episode = (1 - arrived.is_first).cumprod(1)
        losses = self.head_losses(torch.stack(feats, 1), arrived)
        return {
            f"overshoot/{name}": settings.scale * masked_mean(loss, same_episode)
            for name, loss in losses.items()
        }

    def image_losses(self, feat: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Weighted squared error of the images (B, T, 64, 64, C) uint8, camera -> (B, T)."""
        error = F.mse_loss(self.decoder.pixels(feat), centred(images), reduction="none")
        if self.settings.colour_rarity:
            error = error * rarity_weights(images, self.settings.colour_rarity)
        by_camera = self.decoder.by_camera(error.sum((-3, -2)))  # summed over pixels first
        return {name: channels.sum(-1) for name, channels in by_camera.items()}

    def vector_losses(self, feat: Tensor, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of each vector in symlog, summed over its numbers: name -> (B, T)."""
        if self.vector_decoder is None:
            return {}
        return {
            f"vector_loss/{name}": (decoded - symlog(obs[name])).square().sum(-1)
            for name, decoded in self.vector_decoder(feat).items()
        }

    def head_losses(self, feat: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the scalar heads, name -> (B, T)."""
        return {
            "reward_loss": self.reward_head(feat).loss(batch.reward),
            "cont_loss": self.cont_head(feat).loss(1 - batch.is_terminal),
        }

    def predict(self, feat: Tensor) -> Prediction:
        """Read-outs of the heads at states (..., F)."""
        reward, cont = self.reward_head(feat).mean(), self.cont_head(feat).mode()
        return Prediction(reward, *self.predict_cost(feat), cont)

    def predict_cost(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Cost and violation of a `Prediction` at states (..., F): here always zero."""
        nothing = torch.zeros(feat.shape[:-1], device=feat.device)
        return nothing, nothing

    @torch.no_grad()
    def open_loop(self, batch: Batch, context: int) -> dict[str, Tensor]:
        """See `context` rows, then only actions: camera -> (B, T, H, W, C) in [0, 1]."""
        obs = {name: images[:, :context] for name, images in batch.obs.items()}
        seen = Batch(obs, *(x[:, :context] for x in batch[1:]))
        latent = self.rssm.observe(self.encoder(seen.obs), seen.action, seen.is_first).latent
        state, states = Latent(*(x[:, -1] for x in latent)), [latent.feat()]
        for t in range(context, batch.action.shape[1]):
            state = self.rssm.img_step(state, batch.action[:, t - 1])
            states.append(state.feat().unsqueeze(1))
        decoded = self.decoder(torch.cat(states, 1))
        return {name: image.clamp(0, 1) for name, image in decoded.items()}
