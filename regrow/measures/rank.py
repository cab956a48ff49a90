"""How many directions a representation uses.

Three measures, of which two are called "stable rank" elsewhere; here every one has its own name. All take
activations of shape (samples, units), not centred, and are 0 for a matrix of zeros and NaN where activations
are not finite.
"""

import torch
from torch import Tensor

from regrow.units import host


def singular_values(activations: Tensor) -> Tensor:
    """Singular values, largest first; all NaN where an activation is not finite."""
    if not activations.isfinite().all():
        return host.full((min(activations.shape),), float("nan"), dtype=torch.float32)
    sigma: Tensor = torch.linalg.svdvals(activations.float())
    return sigma


def effective_rank(activations: Tensor) -> float:
    r"""$\exp(-\sum_k p_k \ln p_k)$ with $p_k = \sigma_k / \sum_j \sigma_j$ (Roy & Vetterli 2007)."""
    return _effective_rank(singular_values(activations))


def article_rank(activations: Tensor, share: float = 0.99) -> float:
    r"""Smallest k with $\sum_{i \le k}\sigma_i > 0.99 \sum_j \sigma_j$: what Dohare et al. 2024 call stable rank.

    Elsewhere srank with δ = 0.01 (Kumar et al. 2021). Not the textbook's stable rank.
    """
    return _article_rank(singular_values(activations), share)


def stable_rank(activations: Tensor) -> float:
    r"""$\|H\|_F^2 / \sigma_1^2$: the stable rank of the textbooks. Not the article's."""
    return _stable_rank(singular_values(activations))


def ranks(activations: Tensor) -> dict[str, float]:
    """All three by name, from one decomposition."""
    sigma = singular_values(activations)
    return {
        "effective_rank": _effective_rank(sigma),
        "article_rank": _article_rank(sigma, 0.99),
        "stable_rank": _stable_rank(sigma),
    }


def _effective_rank(sigma: Tensor) -> float:
    total = sigma.sum()
    if total == 0:
        return 0.0
    share = sigma / total
    return torch.exp(torch.special.entr(share).sum()).item()


def _article_rank(sigma: Tensor, share: float) -> float:
    total = sigma.double().sum()
    if total == 0 or total.isnan():
        return total.item()
    return float((sigma.double().cumsum(dim=0) <= share * total).sum().item() + 1)


def _stable_rank(sigma: Tensor) -> float:
    largest = sigma[0]
    return 0.0 if largest == 0 else ((sigma / largest) ** 2).sum().item()
