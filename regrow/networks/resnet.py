"""The residual network of class-incremental CIFAR-100."""

from collections.abc import Sequence

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, added to what came in; a 1×1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, value: Tensor) -> Tensor:
        """[batch, before, height, width] to [batch, after, height / stride, width / stride]."""
        return self.after(value, self.inner(value))

    def inner(self, value: Tensor) -> Tensor:
        """What the first convolution makes of the input, after its activation."""
        result: Tensor = self.relu(self.norm1(self.conv1(value)))
        return result

    def after(self, value: Tensor, inner: Tensor) -> Tensor:
        """What the block makes of its input and of `inner`, after the second activation."""
        result: Tensor = self.relu(self.norm2(self.conv2(inner)) + self.shortcut(value))
        return result


class ResNet(nn.Module):
    """A residual network for small images.

    As in class-incremental CIFAR-100 (Dohare et al., Nature 632, 2024, Fig. 2): a 3×3 stem of stride 1 and no
    max-pooling; biases in all convolutions. Initial law: convolutions kaiming-normal with fan-in and gain √2, the
    output layer with gain 1, biases 0, batch norms 1 and 0.

    Args:
        classes: number of outputs.
        channels: of each stage. The first keeps the size of the image, each further one halves it.
        blocks: residual blocks in each stage.
        colours: channels of the images.

    Shape:
        [batch, colours, height, width] to [batch, classes].
    """

    def __init__(
        self,
        classes: int = 100,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (2, 2, 2, 2),
        colours: int = 3,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1)
        self.norm = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU()
        self.stages = nn.Sequential()
        before = channels[0]
        for stage, (after, count) in enumerate(zip(channels, blocks, strict=True)):
            stride = 1 if stage == 0 else 2
            first = ResidualBlock(before, after, stride)
            self.stages.append(nn.Sequential(first, *(ResidualBlock(after, after, 1) for _ in range(count - 1))))
            before = after
        self.output = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if module is not self.output else "linear")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def main_path(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """The convolutions without those of the shortcuts, each with its batch norm, front to back.

        What the units of one do is the input of the next; of the last, of the output layer, as the mean over places.
        """
        found = [(self.stem, self.norm)]
        for block in self._blocks():
            found += [(block.conv1, block.norm1), (block.conv2, block.norm2)]
        return found

    def activations(self, images: Tensor) -> list[Tensor]:
        """Return what each convolution of the main path leads to, after the activation: [batch, channels, height,
        width]; of the last its mean over places, [batch, channels], the features that the output layer reads.
        """
        value = self.relu(self.norm(self.stem(images)))
        found = [value]
        for block in self._blocks():
            inner = block.inner(value)
            value = block.after(value, inner)
            found += [inner, value]
        return [*found[:-1], value.mean(dim=(2, 3))]

    def _blocks(self) -> list[ResidualBlock]:
        return [module for module in self.stages.modules() if isinstance(module, ResidualBlock)]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        value = self.stages(self.relu(self.norm(self.stem(images))))
        logits: Tensor = self.output(value.mean(dim=(2, 3)))
        return logits


def resnet18(classes: int = 100) -> ResNet:
    """Make the network of the article, of 17 convolutions on the main path."""
    return ResNet(classes)
