"""A variational autoencoder of rows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mbgraph.nn.dense import linear

__all__ = ["VariationalAutoencoder", "prior_divergence"]


class VariationalAutoencoder(nn.Module):
    """Two linear layers to a normal distribution of width D / 4 and two back, ReLU between them.

    Weights start Xavier normal, biases at zero.

    Parameters
    ----------
    width : int
        D; the hidden layers have half of it.
    rng : int
        Seed of the initialisation.

    References
    ----------
    Kingma and Welling, ICLR 2014; the sizes are those of UIPL (arXiv 2507.14925).
    """

    def __init__(self, width: int, *, rng: int = 0) -> None:
        super().__init__()
        hidden, self.latent = max(1, width // 2), max(1, width // 4)
        layer = partial(linear, generator=torch.Generator().manual_seed(rng), uniform=False)
        self.hidden = layer(width, hidden)
        self.mean, self.log_variance = layer(hidden, self.latent), layer(hidden, self.latent)
        self.decoded, self.output = layer(self.latent, hidden), layer(hidden, width)

    def forward(self, rows: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and logarithm of the variance of every row, and the row decoded of a draw.

        Shapes: (.., D), standard normal noise (.., Z) -> (.., Z), (.., Z), (.., D). Without noise the mean is decoded.
        """
        hidden = torch.relu(self.hidden(rows))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        drawn = mean if noise is None else mean + noise * torch.exp(log_variance / 2)
        return mean, log_variance, self.output(torch.relu(self.decoded(drawn)))


def prior_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of normal distributions from the standard one, added up over the latent numbers.

    .. math:: -\tfrac12 \sum_z \big(1 + \log \sigma_z^2 - \mu_z^2 - \sigma_z^2\big)

    Shapes: (N, .., Z), (N, .., Z) -> (N, ..).
    """
    return -(1 + log_variance - mean.square() - log_variance.exp()).sum(-1) / 2
