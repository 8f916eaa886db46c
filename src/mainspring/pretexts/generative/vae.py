"""Variational autoencoder: restore a window of a time series from a few noisy numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mainspring.augment.audio import normal
from mainspring.clips import ClipSpec, Draw, Timeline, excerpt, span
from mainspring.encoders.encoder import Encoder
from mainspring.encoders.units import statistics
from mainspring.errors import ConfigError, unknown
from mainspring.pretexts.heads import Projection
from mainspring.pretexts.pretext import Answer, Batch, Features, Outcome, Pretext

Latent = Float[Tensor, "n latent"]

ACTIVE = 0.01
"""A unit is active if its mean varies more than this over recordings (Burda et al., ICLR 2016)."""
NARROWEST = 1e-3
"""Least deviation of the likelihood, lest a perfect restoration be infinitely likely."""
WIDEST_LOG = 12.0
"""Log variances of the posterior stay within ± this."""

ANNEALING: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda done: min(1.0, done),
    "sigmoid": lambda done: 1 / (1 + math.exp(6 - 12 * min(done, 1.0))),
    "cyclic": lambda done: min(1.0, 2 * (done % 1.0)),
}
"""The share of its final weight that the KL has, by the share of `anneal` steps that are done:
linear and sigmoid as Bowman et al. (CoNLL 2016), cyclic as Fu et al. (NAACL 2019, R = 0.5)."""


@dataclass(frozen=True)
class VaeConfig:
    """Settings of the variational autoencoder.

    Attributes:
        latent: Numbers from which a window is restored.
        hidden: Width of the decoder's two hidden layers.
        scale: Standard deviation of the Gaussian likelihood, in units of the recording; 0 takes
            the one that makes each batch most likely.
        beta: Final weight of the KL; 1 is the evidence lower bound.
        annealing: How the weight gets there: "constant", "linear", "sigmoid" or "cyclic".
        anneal: Steps that takes; of "cyclic", steps of one cycle, half of it rising.
        cycles: Of "cyclic"; after them the weight stays.
        free: Nats of KL for each latent number, on the mean of a batch, that cost nothing.
    """

    latent: int = 16
    hidden: int = 256
    scale: float = 0.0
    beta: float = 1.0
    annealing: str = "linear"
    anneal: int = 500
    cycles: int = 4
    free: float = 0.0


class Vae(Pretext):
    """What was the window, told in a few noisy numbers? The embedding gives mean and variance of a
    Gaussian, and a small network restores the window from a draw of it (Kingma & Welling, ICLR
    2014).

    The loss is the negative evidence lower bound of one draw, in nats, averaged over recordings:
    minus the log likelihood of all observed values plus beta times the KL from posterior to N(0, I)
    (Equation 10 and Appendix B). The likelihood is Gaussian with one deviation for all values. By
    default it is the maximum-likelihood one of each batch, the root of the mean squared error
    (Rybkin et al., ICML 2021): a fixed one has to be tuned, since a deviation of 1 allows all of
    a series to be noise, and the posterior to collapse. With the estimated one, bounds of different
    batches are not strictly comparable; set `scale` where they must be.

    Against collapse there are annealing of the KL (counted in optimiser steps, and part of a
    checkpoint) and free bits (Kingma et al., NeurIPS 2016: max(free, mean KL over the batch) for
    each latent number). The loss of annealed steps is no bound; the metric `elbo` always is one.

    Values are asked for in units of the recording, each channel of a window with mean and deviation
    of its observed values taken out; missing values, padding, and channels that are constant or
    never seen do not count. Recordings shorter than the window end in padding. The paper leaves
    series open: the decoder (two hidden layers with GELU), 16 latent numbers, 500 steps of linear
    annealing and windows of up to 512 steps are ours.

    Metrics: `kl` and its part `kl_00`, `kl_01`, ... for each latent number; `active_units`, how
    many means vary more than 0.01 over the batch (Burda et al., ICLR 2016); `skill`,
    1 - mse / variance. A collapsed posterior shows as a KL near 0 and no active units, and in the
    answer `recognised`: how often a window is nearer to its own restoration than to those of all
    others of the batch, by chance one over their number.
    """

    question: ClassVar[str] = "What was the window, told in a few noisy numbers?"
    citation: ClassVar[str] = (
        "Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014; annealing: Bowman et al., "
        "CoNLL 2016; free bits: Kingma et al., NeurIPS 2016; scale: Rybkin et al., ICML 2021"
    )
    accepts: ClassVar[tuple[str, ...]] = ("series",)
    whole: ClassVar[int] = 512

    Config: ClassVar[type] = VaeConfig

    config: VaeConfig
    taken: Tensor

    def __init__(
        self,
        clips: Mapping[str, ClipSpec],
        dims: Mapping[str, int],
        recordings: int,
        config: VaeConfig,
    ) -> None:
        super().__init__(clips, dims, recordings, config)
        if config.annealing not in ANNEALING:
            raise unknown("annealing", config.annealing, ANNEALING)
        for name in ("latent", "hidden", "anneal", "cycles"):
            if getattr(config, name) < 1:
                raise ConfigError(f"{name} is {getattr(config, name)}; it must be at least 1.")
        for name in ("scale", "beta", "free"):
            if getattr(config, name) < 0:
                raise ConfigError(f"{name} is {getattr(config, name)}; it must not be negative.")
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
        self.posterior = Projection(nn.Linear(self.dims["series"], 2 * config.latent))

    def needs(self, stream: str) -> int:
        """Two samples: what is shorter than the window is padded."""
        spec = self.clips[stream]
        return span(min(2, spec.length), spec.stride)

    def attach(self, encoders: Mapping[str, Encoder]) -> None:
        """Builds the decoder, which gives all values of a window at once.

        Raises:
            ConfigError: If the encoder does not say how many channels there are.
        """
        encoder, hidden = encoders["series"], self.config.hidden
        if "channels" not in encoder.settings:
            raise ConfigError(
                f"vae must know how many channels a series has, and {type(encoder).__name__} has "
                "no setting `channels`; use an encoder that has, such as dilated."
            )
        cells = self.clips["series"].length * int(encoder.settings["channels"])
        self.decoder = Projection(
            nn.Linear(self.config.latent, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, cells),
        )

    def draw(self, timeline: Timeline, rng: np.random.Generator) -> dict[str, Draw]:
        """One window anywhere in the recording; all of it and padding where it is shorter."""
        spec, extent = self.clips["series"], timeline["series"].length
        clip = excerpt(extent, spec.length, spec.stride, rng)
        return {"series": Draw(clip[None], {})}

    def encode(self, encoders: Mapping[str, Encoder], batch: Batch) -> Features:
        """Each recording's posterior, and what was restored from a draw of it."""
        samples, present = batch["series"].flat()
        embedding = encoders["series"](samples, present)
        mean, log_variance = self.posterior(embedding).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-WIDEST_LOG, WIDEST_LOG)
        noise = normal(tuple(mean.shape), mean, batch.generator)
        restored = self.decoder(reparameterise(mean, log_variance, noise))
        values, asked = target(samples, present)
        squared = torch.where(asked, (restored - values).square(), 0.0)
        return {
            "embedding": embedding,
            "mean": mean,
            "log_variance": log_variance,
            "squared": squared.sum(1),
            "restored": restored.detach(),
            "values": values,
            "asked": asked,
        }

    def ask(self, features: Features, batch: Batch) -> Outcome:
        """The bound of all recordings of which anything is known, and what it is made of."""
        asked, values, mean = features["asked"], features["values"], features["mean"]
        cells = asked.sum(1).float()
        known = (cells > 0).float()
        count = known.sum().clamp(min=1)
        mse = features["squared"].sum() / cells.sum().clamp(min=1)
        variance = self.variance(mse)
        surprise = (known * gaussian_surprise(features["squared"], cells, variance)).sum() / count
        each = (known[:, None] * kl(mean, features["log_variance"])).sum(0) / count
        weight = self.weight()
        loss = surprise + weight * each.clamp(min=self.config.free).sum()
        level = (values.square() * asked).sum() / cells.sum().clamp(min=1)
        metrics = {
            "elbo": -surprise - each.sum(),
            "surprise": surprise,
            "kl": each.sum(),
            "beta": mse.new_tensor(weight),
            "active_units": active_units(mean[cells > 0]).float(),
            "scale": variance.sqrt(),
            "mse": mse,
            "skill": 1 - mse / level.clamp(min=1e-12),
            **{f"kl_{unit:02d}": value for unit, value in enumerate(each)},
        }
        answers = {}
        if known.any():
            right = nearest(values, asked, features["restored"]) & (cells > 0)
            answers["recognised"] = Answer(right.float().sum() / count, 1 / len(mean))
        return Outcome(
            loss=loss,
            answers=answers,
            metrics={name: value.detach() for name, value in metrics.items()},
            embedding=features["embedding"].detach(),
        )

    def variance(self, mse: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Of the likelihood: as set, or where the gradient of the likelihood in it is 0."""
        if self.config.scale:
            return torch.full_like(mse, self.config.scale**2)
        return mse.detach().clamp(min=NARROWEST**2)

    def weight(self) -> float:
        """Of the KL, after the optimiser steps taken so far."""
        done = int(self.taken) / self.config.anneal
        if self.config.annealing == "cyclic" and done >= self.config.cycles:
            return self.config.beta
        return self.config.beta * ANNEALING[self.config.annealing](done)

    def after_step(self, encoders: Mapping[str, Encoder], batch: Batch, features: Features) -> None:
        """Counts steps, for the annealing."""
        self.taken += 1


def target(
    samples: Float[Tensor, "n time channel"], present: Bool[Tensor, "n time"]
) -> tuple[Float[Tensor, "n cells"], Bool[Tensor, "n cells"]]:
    """Windows in units of their recordings, flattened, and which of their values are asked for:
    observed ones of channels that are not constant. The others are 0."""
    observed = ~samples.isnan() & present[:, :, None]
    values = torch.where(observed, samples, 0.0).float()
    mean, scale = statistics(values, observed)
    highest = values.masked_fill(~observed, -torch.inf).amax(1, keepdim=True)
    lowest = values.masked_fill(~observed, torch.inf).amin(1, keepdim=True)
    asked = observed & (highest > lowest)
    return torch.where(asked, (values - mean) / scale, 0.0).flatten(1), asked.flatten(1)


def reparameterise(mean: Latent, log_variance: Latent, noise: Latent) -> Latent:
    """A draw of N(mean, variance) as a function that has gradients (Section 2.4)."""
    return mean + (0.5 * log_variance).exp() * noise


def kl(mean: Latent, log_variance: Latent) -> Latent:
    """KL from N(mean, variance) to N(0, 1), for each recording and latent number, in nats
    (Appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def gaussian_surprise(
    squared: Float[Tensor, "n"], cells: Float[Tensor, "n"], variance: Float[Tensor, ""]
) -> Float[Tensor, "n"]:
    """Minus the log likelihood of each window, in nats.

    Args:
        squared: Sum of squared errors of each window.
        cells: Number of values they are of.
        variance: Of every value.
    """
    return 0.5 * (squared / variance + cells * (2 * math.pi * variance).log())


def active_units(mean: Latent) -> Tensor:
    """How many latent numbers have a posterior mean that varies over recordings; 0 of none."""
    if len(mean) < 2:
        return mean.new_zeros(())
    return (mean.var(0) > ACTIVE).sum()


def nearest(
    values: Float[Tensor, "n cells"],
    asked: Bool[Tensor, "n cells"],
    restored: Float[Tensor, "n cells"],
) -> Bool[Tensor, "n"]:
    """Whether each window is nearer to its own restoration than to those of the others, over the
    values asked for. |x - r|² is compared without |x|², which is common to all r."""
    apart = asked.float() @ restored.square().T - 2 * values @ restored.T
    others = apart.clone().fill_diagonal_(torch.inf)
    return apart.diagonal() < others.amin(1)
