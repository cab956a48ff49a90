"""Networks for images and other places, with the groups that a person finds in them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.units.hand_written import Case, Net, images, weight


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def dense(m: Net, x: Tensor) -> Tensor:
    h = m.stem(x)
    h = torch.cat([h, m.conv1(F.relu(m.norm1(h)))], 1)
    h = torch.cat([h, m.conv2(F.relu(m.norm2(h)))], 1)
    h = F.avg_pool2d(m.shrink(F.relu(m.norm3(h))), 2)
    h = torch.cat([h, m.conv4(F.relu(m.norm4(h)))], 1)
    return m.out(F.relu(m.norm5(h)).mean((2, 3)))


def u_net(m: Net, x: Tensor) -> Tensor:
    a = F.relu(m.norm1(m.down1(x)))
    b = F.relu(m.down2(F.max_pool2d(a, 2)))
    c = F.relu(m.bottom(F.max_pool2d(b, 2)))
    d = F.relu(m.join2(torch.cat([m.up2(c), b], 1)))
    e = F.relu(m.norm2(m.join1(torch.cat([m.up1(d), a], 1))))
    return m.out(e)


def gated_residual(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.stem(x))
    r = m.norm2(m.conv2(F.relu(m.norm1(m.conv1(h)))))
    gate = torch.sigmoid(m.excite(F.relu(m.squeeze(r.mean((2, 3))))))
    return m.out(F.relu(h + r * gate[:, :, None, None]).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expand, each channel by itself, project: with a skip where shapes allow."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int, excite: int = 0, survival: float = 1):
        super().__init__()
        self.skip, self.survival = inputs == outputs and stride == 1, survival
        self.expand, self.norm1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.depthwise = conv(hidden, hidden, groups=hidden, stride=stride, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        if excite:
            self.squeeze, self.excite = nn.Conv2d(hidden, excite, 1), nn.Conv2d(excite, hidden, 1)
        self.project, self.norm3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self.norm2(self.depthwise(F.relu6(self.norm1(self.expand(x))))))
        if hasattr(self, "squeeze"):
            h = h * torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(h, 1)))))
        h = self.norm3(self.project(h))
        if self.training and self.survival < 1:  # of each image's branch
            h = h / self.survival * torch.empty(len(x), 1, 1, 1).bernoulli_(self.survival)
        return x + h if self.skip else h


def stages(m: Net, x: Tensor) -> Tensor:
    return m.out(m.blocks(m.stem(x)).mean((2, 3)))


def resnext(m: Net, x: Tensor) -> Tensor:
    h = m.stem(x)
    h = h + m.restore(F.relu(m.norm2(m.grouped(F.relu(m.norm1(m.reduce(h)))))))
    return m.out(F.relu(h).mean((2, 3)))


class Bottleneck(nn.Module):
    """Three convolutions and a skip; norms and activations before or after them."""

    def __init__(self, inputs: int, outputs: int, norms_first: bool) -> None:
        super().__init__()
        self.reduce, self.middle, self.restore = nn.Conv2d(inputs, 2, 1), conv(2, 3), nn.Conv2d(3, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.norms_first, widths = norms_first, (inputs, 2, 3) if norms_first else (2, 3, outputs)
        self.norm1, self.norm2, self.norm3 = map(nn.BatchNorm2d, widths)

    def forward(self, x: Tensor) -> Tensor:
        if self.norms_first:
            h = self.middle(F.relu(self.norm2(self.reduce(F.relu(self.norm1(x))))))
            return self.shortcut(x) + self.restore(F.relu(self.norm3(h)))
        h = F.relu(self.norm2(self.middle(F.relu(self.norm1(self.reduce(x))))))
        return F.relu(self.norm3(self.restore(h)) + self.shortcut(x))


def generator(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.norm1(m.fc(x).view(-1, 4, 2, 2)))
    return torch.tanh(m.up2(F.relu(m.norm2(m.up1(h)))))


def shuffled_pixels(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.norm(F.pixel_shuffle(m.a(F.pixel_unshuffle(x, 2)), 2)))
    h = F.relu(m.b(h))
    return F.pixel_shuffle(m.d(F.relu(m.c(F.pixel_unshuffle(h, 2)))), 2)


def convnext(m: Net, x: Tensor) -> Tensor:
    h = m.stem(x)
    r = m.norm(m.depthwise(h).permute(0, 2, 3, 1))
    r = m.scale * m.fc2(F.gelu(m.fc1(r)))
    return m.out((h + r.permute(0, 3, 1, 2)).mean((2, 3)))


def temporal(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    r = F.relu(m.norm(m.b(F.pad(h, (2, 0)))))
    h = F.relu(h + m.c(F.pad(r, (4, 0))))
    return m.out(h[..., -1])


def channel_shuffle(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.stem(x))
    for first, depthwise, second in ((m.conv1, m.depthwise1, m.conv2), (m.conv3, m.depthwise2, m.conv4)):
        left, right = h.chunk(2, 1)
        right = F.relu(second(depthwise(F.relu(first(right)))))
        h = torch.cat([left, right], 1).view(-1, 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
    return m.out(h.mean((2, 3)))


def film(m: Net, x: Tensor, condition: Tensor) -> Tensor:
    h = m.norm(m.conv(x))
    scale, shift = m.film(F.relu(m.embed(condition)))[..., None, None].chunk(2, 1)
    return m.out(F.relu((1 + scale) * h + shift).mean((2, 3)))


def class_norm(m: Net, x: Tensor, classes: Tensor) -> Tensor:
    h = m.norm(m.conv(x))
    return m.out(F.relu(m.scale(classes)[..., None, None] * h + m.shift(classes)[..., None, None]).mean((2, 3)))


def both_pools(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.conv(x))
    return m.out(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))


def decoder(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.a(x))
    h = F.relu(m.b(F.interpolate(h, scale_factor=2)))
    h = F.relu(m.c(F.interpolate(h, scale_factor=2, mode="bilinear", antialias=True)))
    h = F.relu(m.d(F.interpolate(h, size=5, mode="bicubic", align_corners=True)))
    h = F.relu(m.e(F.interpolate(h, size=7, mode="area")))
    return m.out(F.interpolate(h, size=9, mode="nearest-exact"))


def spatial_attention(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.conv(x))
    return m.out((h * torch.sigmoid(m.score(h))).mean((2, 3)))


def pooled_spatial_attention(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.conv(x))
    pooled = torch.cat([h.mean(1, keepdim=True), h.amax(1, keepdim=True)], 1)
    return m.out((h * torch.sigmoid(m.score(pooled))).mean((2, 3)))


class Mixer(nn.Module):
    """Two layers across places, two across channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.token1, self.token2 = nn.Linear(4, 5), nn.Linear(5, 4)
        self.channel1, self.channel2 = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token2(F.gelu(self.token1(self.norm1(x).mT))).mT
        return x + self.channel2(F.gelu(self.channel1(self.norm2(x))))


def mixer(m: Net, x: Tensor) -> Tensor:
    return m.out(m.norm(m.blocks(m.patch(x).flatten(2).mT)).mean(1))


def mixer_of_convolutions(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    h = h + m.token2(F.gelu(m.token1(h)))
    return m.out(h.mean(1))


def spatial_gate(m: Net, x: Tensor) -> Tensor:
    value, gate = F.gelu(m.a(x)).chunk(2, 2)
    return m.out(value * m.token(m.norm(gate)))


def unpooling(m: Net, x: Tensor) -> Tensor:
    h, places = F.max_pool2d(F.relu(m.a(x)), 2, return_indices=True)
    h = F.relu(m.c(F.relu(m.b(h))))
    return m.out(F.max_unpool2d(h, places, 2))


def transformer_of_places(m: Net, x: Tensor) -> Tensor:
    bend = m.bend(F.relu(m.look(x)).mean((2, 3))).view(-1, 2, 3)
    h = F.relu(m.a(x))
    return m.out(F.grid_sample(h, F.affine_grid(bend, h.shape, align_corners=False), align_corners=False))


def overlapping_patches(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.a(F.unfold(x, 3, stride=2).mT))
    return m.out(F.relu(F.fold(m.b(h).mT, (7, 7), 3, stride=2)))


def bottlenecks(norms_first: bool) -> Case:
    return Case(
        f"bottleneck resnet{', norms first' if norms_first else ''}",
        lambda: Net(
            stages, stem=conv(3, 4), blocks=nn.Sequential(Bottleneck(4, 8, norms_first), Bottleneck(8, 8, norms_first)),
            out=nn.Linear(8, 2)), images(3), [
            ("stem", 4, "free", "stem.weight", "blocks.0.reduce.weight blocks.0.shortcut.weight"),
            ("blocks.0.reduce", 2, "free", "blocks.0.reduce.weight", "blocks.0.middle.weight"),
            ("blocks.0.middle", 3, "free", "blocks.0.middle.weight", "blocks.0.restore.weight"),
            *[(f"blocks.0.{first}", 8, "shared",
               f"blocks.0.{first}.weight blocks.0.{second}.weight blocks.1.restore.weight",
               "blocks.1.reduce.weight out.weight")
              for first, second in [("shortcut", "restore") if norms_first else ("restore", "shortcut")]],
            ("blocks.1.reduce", 2, "free", "blocks.1.reduce.weight", "blocks.1.middle.weight"),
            ("blocks.1.middle", 3, "free", "blocks.1.middle.weight", "blocks.1.restore.weight"),
            ("out", 2, "output", "out.weight", ""),
        ])  # fmt: skip


IMAGE_NETWORKS = [
    Case("densenet", lambda: Net(
        dense, stem=conv(3, 4), norm1=nn.BatchNorm2d(4), conv1=conv(4, 3), norm2=nn.BatchNorm2d(7), conv2=conv(7, 3),
        norm3=nn.BatchNorm2d(10), shrink=conv(10, 5, 1), norm4=nn.BatchNorm2d(5), conv4=conv(5, 3),
        norm5=nn.BatchNorm2d(8), out=nn.Linear(8, 2)), images(3), [
        ("stem", 4, "free", "stem.weight", "conv1.weight conv2.weight shrink.weight"),
        ("conv1", 3, "free", "conv1.weight", "conv2.weight shrink.weight"),
        ("conv2", 3, "free", "conv2.weight", "shrink.weight"),
        ("shrink", 5, "free", "shrink.weight", "conv4.weight out.weight"),
        ("conv4", 3, "free", "conv4.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("u-net", lambda: Net(
        u_net, down1=conv(3, 4), norm1=nn.BatchNorm2d(4), down2=conv(4, 6), bottom=conv(6, 8),
        up2=nn.ConvTranspose2d(8, 5, 2, 2), join2=conv(11, 6), up1=nn.ConvTranspose2d(6, 3, 2, 2), join1=conv(7, 4),
        norm2=nn.BatchNorm2d(4), out=conv(4, 2, 1)), images(3), [
        ("down1", 4, "free", "down1.weight", "down2.weight join1.weight"),
        ("down2", 6, "free", "down2.weight", "bottom.weight join2.weight"),
        ("bottom", 8, "free", "bottom.weight", "up2.weight"),
        ("up2", 5, "free", "up2.weight", "join2.weight"),
        ("join2", 6, "free", "join2.weight", "up1.weight"),
        ("up1", 3, "free", "up1.weight", "join1.weight"),
        ("join1", 4, "free", "join1.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("squeeze and excitation in a residual block", lambda: Net(
        gated_residual, stem=conv(3, 4), conv1=conv(4, 5), norm1=nn.BatchNorm2d(5), conv2=conv(5, 4),
        norm2=nn.BatchNorm2d(4), squeeze=nn.Linear(4, 2), excite=nn.Linear(2, 4), out=nn.Linear(4, 2)), images(3), [
        ("stem", 4, "shared", "stem.weight conv2.weight excite.weight", "conv1.weight squeeze.weight out.weight"),
        ("conv1", 5, "free", "conv1.weight", "conv2.weight"),
        ("squeeze", 2, "free", "squeeze.weight", "excite.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("inverted residuals", lambda: Net(
        stages, stem=conv(3, 4), blocks=nn.Sequential(InvertedResidual(4, 12, 4, 1), InvertedResidual(4, 8, 6, 2)),
        out=nn.Linear(6, 2)), images(3), [
        ("stem", 4, "shared", "stem.weight blocks.0.project.weight", "blocks.0.expand.weight blocks.1.expand.weight"),
        ("blocks.0.expand", 12, "free", "blocks.0.expand.weight", "blocks.0.project.weight"),
        ("blocks.1.expand", 8, "free", "blocks.1.expand.weight", "blocks.1.project.weight"),
        ("blocks.1.project", 6, "free", "blocks.1.project.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("efficientnet", lambda: Net(
        stages, stem=conv(3, 4), blocks=nn.Sequential(InvertedResidual(4, 8, 4, 1, 2, 0.5)), out=nn.Linear(4, 2)),
        images(3), [
        ("stem", 4, "shared", "stem.weight blocks.0.project.weight", "blocks.0.expand.weight out.weight"),
        ("blocks.0.expand", 8, "shared", "blocks.0.expand.weight blocks.0.excite.weight",
         "blocks.0.squeeze.weight blocks.0.project.weight"),
        ("blocks.0.squeeze", 2, "free", "blocks.0.squeeze.weight", "blocks.0.excite.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("resnext", lambda: Net(
        resnext, stem=conv(3, 4), reduce=conv(4, 6, 1), norm1=nn.BatchNorm2d(6), grouped=conv(6, 6, groups=3),
        norm2=nn.BatchNorm2d(6), restore=conv(6, 4, 1), out=nn.Linear(4, 2)), images(3), [
        ("stem", 4, "shared", "stem.weight restore.weight", "reduce.weight out.weight"),
        ("reduce", 6, "free", "reduce.weight", "grouped.weight"),
        ("grouped", 6, "free", "grouped.weight", "restore.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    bottlenecks(norms_first=False),
    bottlenecks(norms_first=True),
    Case("generator", lambda: Net(
        generator, fc=nn.Linear(5, 16), norm1=nn.BatchNorm2d(4), up1=nn.ConvTranspose2d(4, 6, 2, 2, groups=2),
        norm2=nn.BatchNorm2d(6), up2=nn.ConvTranspose2d(6, 3, 2, 2)), lambda: torch.randn(4, 5), [
        ("fc", 4, "free", "fc.weight", "up1.weight"),
        ("up1", 6, "free", "up1.weight", "up2.weight"),
        ("up2", 3, "output", "up2.weight", ""),
    ]),
    Case("pixel shuffle and unshuffle", lambda: Net(
        shuffled_pixels, a=conv(12, 8, 1), norm=nn.BatchNorm2d(2), b=conv(2, 6), c=conv(24, 5, 1), d=conv(5, 12)),
        images(3), [
        ("a", 2, "free", "a.weight", "b.weight"),
        ("b", 6, "free", "b.weight", "c.weight"),
        ("c", 5, "free", "c.weight", "d.weight"),
        ("d", 12, "output", "d.weight", ""),
    ]),
    Case("convnext", lambda: Net(
        convnext, stem=nn.Conv2d(3, 4, 2, 2), depthwise=conv(4, 4, groups=4), norm=nn.LayerNorm(4), fc1=nn.Linear(4, 8),
        fc2=nn.Linear(8, 4), scale=weight(4), out=nn.Linear(4, 2)), images(3), [
        ("stem", 4, "coupled", "stem.weight fc2.weight", "fc1.weight out.weight"),
        ("fc1", 8, "free", "fc1.weight", "fc2.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("temporal convolutions", lambda: Net(
        temporal, a=nn.Conv1d(3, 4, 1), b=nn.Conv1d(4, 5, 3), norm=nn.BatchNorm1d(5), c=nn.Conv1d(5, 4, 3, dilation=2),
        out=nn.Linear(4, 2)), lambda: torch.randn(4, 3, 10), [
        ("a", 4, "shared", "a.weight c.weight", "b.weight out.weight"),
        ("b", 5, "free", "b.weight", "c.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("conv3d", lambda: nn.Sequential(
        nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.ConvTranspose3d(4, 5, 2),
        nn.Dropout3d(0.2), nn.Upsample(scale_factor=2, mode="trilinear"), nn.Conv3d(5, 6, 3),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 2)), lambda: torch.randn(3, 2, 5, 5, 5), [
        ("0", 4, "free", "0.weight", "4.weight"),
        ("4", 5, "free", "4.weight", "7.weight"),
        ("7", 6, "free", "7.weight", "10.weight"),
        ("10", 2, "output", "10.weight", ""),
    ]),
    # Of the first layer's channels, two pass both blocks, two are read by the second and four by the first.
    Case("channel shuffle", lambda: Net(
        channel_shuffle, stem=conv(3, 8), conv1=conv(4, 4, 1), depthwise1=conv(4, 4, groups=4), conv2=conv(4, 4, 1),
        conv3=conv(4, 4, 1), depthwise2=conv(4, 4, groups=4), conv4=conv(4, 4, 1), out=nn.Linear(8, 2)), images(3), [
        ("stem", 2, "free", "stem.weight", "out.weight"),
        ("stem:2", 2, "free", "stem.weight", "conv3.weight"),
        ("stem:3", 4, "free", "stem.weight", "conv1.weight"),
        ("conv1", 4, "free", "conv1.weight", "conv2.weight"),
        ("conv2", 2, "free", "conv2.weight", "out.weight"),
        ("conv2:2", 2, "free", "conv2.weight", "conv3.weight"),
        ("conv3", 4, "free", "conv3.weight", "conv4.weight"),
        ("conv4", 4, "free", "conv4.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("feature-wise modulation", lambda: Net(
        film, conv=conv(3, 4), norm=nn.BatchNorm2d(4, affine=False), embed=nn.Linear(5, 6), film=nn.Linear(6, 8),
        out=nn.Linear(4, 2)), lambda: (torch.randn(4, 3, 8, 8), torch.randn(4, 5)), [
        ("conv", 4, "shared", "conv.weight film.weight", "out.weight"),
        ("embed", 6, "free", "embed.weight", "film.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("conditional batch norm", lambda: Net(
        class_norm, conv=conv(3, 4), norm=nn.BatchNorm2d(4, affine=False), scale=nn.Embedding(3, 4),
        shift=nn.Embedding(3, 4), out=nn.Linear(4, 2)),
        lambda: (torch.randn(4, 3, 8, 8), torch.tensor([0, 2, 1, 2])), [
        ("conv", 4, "shared", "conv.weight scale.weight shift.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("mean and maximum over places", lambda: Net(both_pools, conv=conv(3, 6), out=nn.Linear(12, 2)), images(3), [
        ("conv", 6, "free", "conv.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("interpolation", lambda: Net(
        decoder, a=conv(3, 4), b=conv(4, 5), c=conv(5, 6), d=conv(6, 5), e=conv(5, 4), out=conv(4, 2, 1)),
        images(3, 2), [
        ("a", 4, "free", "a.weight", "b.weight"),
        ("b", 5, "free", "b.weight", "c.weight"),
        ("c", 6, "free", "c.weight", "d.weight"),
        ("d", 5, "free", "d.weight", "e.weight"),
        ("e", 4, "free", "e.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    # A gate for all channels of a place has no weights of its own that read it.
    Case("spatial attention", lambda: Net(
        spatial_attention, conv=conv(3, 6), score=conv(6, 1), out=nn.Linear(6, 2)), images(3), [
        ("conv", 6, "free", "conv.weight", "score.weight out.weight"),
        ("score", 1, "blocked", "score.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    # The mean and the maximum over channels read every channel with no weight.
    Case("spatial attention, channels pooled", lambda: Net(
        pooled_spatial_attention, conv=conv(3, 6), score=conv(2, 1), out=nn.Linear(6, 2)), images(3), [
        ("conv", 6, "blocked", "conv.weight", "out.weight"),
        ("score", 1, "blocked", "score.weight", ""),
        ("out", 2, "output", "out.weight", ""),
    ]),
    # A hidden unit of the layers across places exists once for all channels, which pass these layers. What the second
    # of these makes are the places of the stream.
    Case("mlp-mixer", lambda: Net(
        mixer, patch=nn.Conv2d(3, 6, 4, 4), blocks=nn.Sequential(Mixer()), norm=nn.LayerNorm(6), out=nn.Linear(6, 2)),
        images(3), [
        ("patch", 6, "coupled", "patch.weight blocks.0.channel2.weight", "blocks.0.channel1.weight out.weight"),
        ("blocks.0.channel1", 8, "free", "blocks.0.channel1.weight", "blocks.0.channel2.weight"),
        ("out", 2, "output", "out.weight", ""),
        ("blocks.0.token1", 5, "free", "blocks.0.token1.weight", "blocks.0.token2.weight"),
        ("blocks.0.token2", 4, "blocked", "blocks.0.token2.weight", ""),
    ]),
    Case("mixer of convolutions", lambda: Net(
        mixer_of_convolutions, a=nn.Linear(3, 6), token1=nn.Conv1d(4, 5, 1), token2=nn.Conv1d(5, 4, 1),
        out=nn.Linear(6, 2)), lambda: torch.randn(3, 4, 3), [
        ("a", 6, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
        ("token1", 5, "free", "token1.weight", "token2.weight"),
        ("token2", 4, "blocked", "token2.weight", ""),
    ]),
    # Each channel of one half scales one of the other, which has a norm; places are those of the output.
    Case("spatial gate", lambda: Net(
        spatial_gate, a=nn.Linear(3, 8), norm=nn.LayerNorm(4), token=nn.Conv1d(5, 5, 1), out=nn.Linear(4, 2)),
        lambda: torch.randn(3, 5, 3), [
        ("a", 4, "coupled", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
        ("token", 5, "output", "token.weight", ""),
    ]),
    # Where a channel's maxima were says where the values of another go.
    Case("unpooling", lambda: Net(
        unpooling, a=conv(3, 4), b=conv(4, 5), c=conv(5, 4), out=conv(4, 2)), images(3), [
        ("a", 4, "shared", "a.weight c.weight", "b.weight out.weight"),
        ("b", 5, "free", "b.weight", "c.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("spatial transformer", lambda: Net(
        transformer_of_places, look=conv(3, 5), bend=nn.Linear(5, 6), a=conv(3, 4), out=conv(4, 2)), images(3), [
        ("look", 5, "free", "look.weight", "bend.weight"),
        ("bend", 6, "blocked", "bend.weight", ""),
        ("a", 4, "free", "a.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
    Case("overlapping patches", lambda: Net(
        overlapping_patches, a=nn.Linear(27, 6), b=nn.Linear(6, 36), out=conv(4, 2)), images(3, 7), [
        ("a", 6, "free", "a.weight", "b.weight"),
        ("b", 4, "free", "b.weight", "out.weight"),
        ("out", 2, "output", "out.weight", ""),
    ]),
]  # fmt: skip
