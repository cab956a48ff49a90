"""How large the weights are."""

from collections.abc import Iterable

from torch import Tensor, nn

from regrow.units.example import untouched
from regrow.units.parametrized import parametrizations


def mean_magnitude(tensors: Iterable[Tensor]) -> float:
    """Σ|w| / number of weights, over all tensors together; 0 if there are none."""
    total, count = 0.0, 0
    for tensor in tensors:
        total += tensor.detach().abs().double().sum().item()
        count += tensor.numel()
    return total / count if count else 0.0


def weight_magnitude(model: nn.Module) -> float:
    """Mean |w| over all weight matrices and kernels of a network, without biases and the affine entries of norms:
    the article's measure for Online Permuted MNIST. Behind a parametrization it is the computed weight that counts.
    """
    with untouched(model):  # computing a weight may change buffers, as spectral norm's
        computed = [held for module in model.modules() for held in parametrizations(module).values()]
        originals = {id(original) for held in computed for original in held.originals.values()}
        weights: list[Tensor] = [parameter for parameter in model.parameters() if id(parameter) not in originals]
        weights += [held.value() for held in computed]
    return mean_magnitude(weight for weight in weights if weight.dim() >= 2)
