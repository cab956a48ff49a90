"""How much the replacement of a unit that a norm couples disturbs the other units.

Printed is the leak that `regrow.verify` finds: how far the output moves when a unit's incoming weights are drawn anew
while its outgoing weights are 0, as a share of how far the output moves when the unit is removed. For free and shared
units it is exactly 0. The largest of 8 units and of training and evaluation mode.
"""

import torch
from torch import nn

import regrow


def perceptron(width: int) -> tuple[nn.Module, torch.Tensor]:
    """Two hidden layers, each followed by a layer norm."""
    layers = [nn.Linear(64, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(width, 10)), torch.randn(32, 64)


def convnet(width: int) -> tuple[nn.Module, torch.Tensor]:
    """A convolution with group norm, 8 channels in a group."""
    layers = [nn.Conv2d(3, width, 3), nn.GroupNorm(width // 8, width), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width * 36, 10)), torch.randn(8, 3, 8, 8)


def transformer(width: int, norm_first: bool) -> tuple[nn.Module, torch.Tensor]:
    """Two encoder layers between linear ones; the residual stream is coupled."""
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(16, width), encoder, nn.Linear(width, 10)), torch.randn(4, 8, 16)


NETWORKS = {
    "perceptron with layer norm": perceptron,
    "convolution with group norm": convnet,
    "transformer stream, norms first": lambda width: transformer(width, True),
    "transformer stream, norms last": lambda width: transformer(width, False),
}


def main(widths: tuple[int, ...] = (32, 128, 512)) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    print("| network | " + " | ".join(f"width {width}" for width in widths) + " |\n|---|" + "---|" * len(widths))
    for name, build in NETWORKS.items():
        leaks = []
        for width in widths:
            torch.manual_seed(0)
            model, example = build(width)
            graph = regrow.find_units(model, example)
            coupled = regrow.UnitGraph(tuple(group for group in graph if group.status == "coupled"))
            found = regrow.verify(model, example, coupled, units_per_group=8)
            leaks.append(f"{max(check.leak for check in found.checks):.2f}")
        print(f"| {name} | {' | '.join(leaks)} |", flush=True)


if __name__ == "__main__":
    main()
