"""How large the weights are."""

from collections.abc import Iterable

from torch import Tensor, nn


def mean_magnitude(tensors: Iterable[Tensor]) -> float:
    """Σ|w| / number of weights, over all tensors together; 0 if there are none."""
    total, count = 0.0, 0
    for tensor in tensors:
        total += tensor.detach().abs().double().sum().item()
        count += tensor.numel()
    return total / count if count else 0.0


def weight_magnitude(model: nn.Module) -> float:
    """Mean |w| over all weight matrices and kernels of a network, without biases and the affine entries of norms:
    the article's measure for Online Permuted MNIST.
    """
    return mean_magnitude(parameter for parameter in model.parameters() if parameter.dim() >= 2)
