"""Dormant units: units that hardly ever fire."""

from torch import Tensor


def activity(activations: Tensor) -> Tensor:
    """Share of the observations in which each unit fires, that is, is not exactly 0.

    Args:
        activations: h of shape (observations, units), after the nonlinearity.

    Returns:
        Tensor of shape (units,), in [0, 1].
    """
    return (activations != 0).float().mean(dim=0)


def dormant_share(activations: Tensor, threshold: float = 0.01) -> float:
    """Share of units that fire in less than `threshold` of the observations.

    The article's definition for CIFAR-100 and PPO (1 %, over 1,000 samples and all places of a channel). With
    `threshold=0` it counts the dead units of Online Permuted MNIST: those that never fire.

    Args:
        activations: h of shape (observations, units), after the nonlinearity.
        threshold: share of observations.
    """
    active = activity(activations)
    return ((active < threshold) | (active == 0)).float().mean().item()
