"""What the article measures of a residual network: the activations along its main path."""

from typing import Literal

import torch
from torch import Tensor

from regrow.measures import dormant_share, mean_magnitude, ranks
from regrow.networks.resnet import ResNet
from regrow.units.example import untouched

Mode = Literal["eval", "train"]


def main_path_symptoms(network: ResNet, images: Tensor, mode: Mode = "eval") -> dict[str, float]:
    """Measure a residual network as the article does for class-incremental CIFAR-100 (Dohare et al., Nature 2024).

    Args:
        network: the network; left as it was.
        images: float32 [n, colours, height, width].
        mode: in "train" mode, as in the published code, batch norms take the statistics of these images.

    Returns:
        `dormant`: share, in [0, 1], of the units that are active in less than 1 % of the places of all images. Units
        are the channels of each convolution on the main path, after the activation that follows: those of the residual
        stream count anew after each block. Of the last convolution it is the features that count, its means over
        places (Fig. 2c).
        `article_rank`, `effective_rank`, `stable_rank`: of these features, [n, channels]; `last_rank`: the first as a
        share of their number (Fig. 2d).
        `weight_magnitude`: mean |w| over all parameters, with biases and the affine entries of norms.
    """
    with untouched(network), torch.no_grad():
        network.train(mode == "train")
        layers = network.activations(images)
    units = [layer.shape[1] for layer in layers]
    dormant = sum(dormant_share(layer.movedim(1, -1).flatten(end_dim=-2)) * layer.shape[1] for layer in layers)
    of_features = ranks(layers[-1])
    return {
        "dormant": dormant / sum(units),
        **of_features,
        "last_rank": of_features["article_rank"] / units[-1],
        "weight_magnitude": mean_magnitude(network.parameters()),
    }
