"""What `attach` costs on a normal training step: python -m benchmarks.overhead [--json FILE]

Each network is trained by the same loop with and without continual backpropagation, in turn; the row "bare again" is
the bare loop against itself and shows the noise.
"""

from collections.abc import Callable

import torch
from torch import nn

import regrow
from benchmarks.interleave import compare, parse, report
from regrow.networks.resnet import resnet18

BATCH = 32


def mlp() -> tuple[nn.Module, torch.Tensor]:
    hidden = [layer for width in (784, 2000, 2000) for layer in (nn.Linear(width, 2000), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(2000, 10)), torch.rand(BATCH, 784)


def resnet() -> tuple[nn.Module, torch.Tensor]:
    return resnet18(classes=10), torch.rand(BATCH, 3, 32, 32)


def loop(build: Callable[[], tuple[nn.Module, torch.Tensor]], method: regrow.methods.Method | None, steps: int):
    torch.manual_seed(0)
    model, inputs = build()
    labels = torch.randint(10, (BATCH,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if method is not None:
        regrow.attach(model, optimizer, method, example=inputs)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return train


def main() -> None:
    options = parse(__doc__)
    methods = {
        "bare": None,
        "bare again": None,
        "cbp, sums when due (the default)": regrow.ContinualBackprop(),
        "cbp, sums at each step": regrow.ContinualBackprop(weight_sums="each_step"),
    }
    sections = {}
    for title, build, steps in (
        (f"MLP 784–2000–2000–2000–10, batch {BATCH}", mlp, 10),
        (f"ResNet-18 on 32×32, batch {BATCH}", resnet, 1),
    ):
        cases = {name: loop(build, method, steps) for name, method in methods.items()}
        sections[title] = compare(cases, baseline="bare", rounds=3 if options.quick else 20)
    report(sections, options)


if __name__ == "__main__":
    main()
