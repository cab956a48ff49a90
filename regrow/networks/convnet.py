"""The convolutional network of Continual ImageNet."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class ConvNet(nn.Sequential):
    """Convolutions with ReLU and max-pooling, then linear layers with ReLU. Without any of them, a linear classifier.

    Pooling comes before the ReLU, where it has a quarter of the values left to do: outputs and gradients are the same
    to the bit in either order.

    The defaults are the network of Continual ImageNet (Dohare et al., Nature 632, 2024, Fig. 1): 3×32×32 images,
    kernels 5, 3, 3 without padding, 512 features after the flatten, 177,218 parameters. Initial law: PyTorch's
    default, U(±1/√fan_in) for weights and biases.

    Args:
        classes: number of outputs.
        channels: of each convolution.
        kernels: width of each convolution's kernel.
        widths: number of units of each hidden linear layer.
        size: height and width of the images.
        colours: channels of the images.

    Shape:
        [batch, colours, size, size] to [batch, classes].
    """

    def __init__(
        self,
        classes: int = 2,
        channels: Sequence[int] = (32, 64, 128),
        kernels: Sequence[int] = (5, 3, 3),
        widths: Sequence[int] = (128, 128),
        size: int = 32,
        colours: int = 3,
    ) -> None:
        layers: list[nn.Module] = []
        for (before, after), kernel in zip(pairwise((colours, *channels)), kernels, strict=True):
            layers += [nn.Conv2d(before, after, kernel), nn.MaxPool2d(2), nn.ReLU()]
            size = (size - kernel + 1) // 2
        layers.append(nn.Flatten())
        features = (colours, *channels)[-1] * size * size
        for before, after in pairwise((features, *widths)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear((features, *widths)[-1], classes))
