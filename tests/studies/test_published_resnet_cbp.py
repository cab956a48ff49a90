"""What the published code does otherwise, each by itself."""

import copy

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.errors import ConfigError
from regrow.networks.resnet import ResNet
from regrow.studies.published_resnet_cbp import PublishedResNetCBP

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet(5, channels=(4, 6), blocks=(1, 2))


def at_work(rate: float, maturity: int, lr: float = 0.01) -> tuple[ResNet, torch.optim.Optimizer, PublishedResNetCBP]:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    return net, optimizer, PublishedResNetCBP(
        net, optimizer, replacement_rate=rate, maturity_threshold=maturity, seed=0
    )  # fmt: skip


def step(net: ResNet, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(IMAGES), torch.arange(6) % 5).backward()
    optimizer.step()


def activities(cbp: PublishedResNetCBP) -> list[Tensor]:
    return [layer["activity"].clone() for layer in cbp.state_dict()["layers"]]


def test_the_statistic_is_a_sum_that_a_replacement_does_not_clear() -> None:
    """D3."""
    net, optimizer, cbp = at_work(0.3, 2, lr=0.0)
    expected = [torch.zeros(conv.out_channels) for conv, _ in net.main_path()]
    for _ in range(5):
        with torch.no_grad():
            batch = copy.deepcopy(net).activations(IMAGES)
        for total, layer in zip(expected, batch, strict=True):
            total += layer.mean(dim=(0, 2, 3)) if layer.dim() == 4 else layer.mean(dim=0)
        step(net, optimizer)
    assert cbp.replacements > 0
    for total, found in zip(expected, activities(cbp), strict=True):
        torch.testing.assert_close(found, total)


def replaced_once(net: ResNet, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The weights just before a step that replaces all units, for lr 0."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step(net, optimizer)
    return before


def test_only_the_next_convolution_forgets_the_unit() -> None:
    """D4."""
    net, optimizer, cbp = at_work(1 / 6, 0, lr=0.0)
    before = replaced_once(net, optimizer)
    assert cbp.replacements == 4  # one of 6 in 4 layers; a budget of 4 / 6 is not yet one
    block = net.stages[1][0]
    assert torch.equal(before["stages.0.0.conv2.weight"], net.stages[0][0].conv2.weight)  # of 4 units: none yet
    # A unit of the stream after the first block of the second stage: read by the next conv1, and by the skip path.
    zeroed = (net.stages[1][1].conv1.weight == 0).all(dim=(2, 3)).sum(dim=0)
    (unit,) = (zeroed >= 5).nonzero().flatten().tolist()  # of 6 rows, one of which is that of a new unit
    changed = (block.conv2.weight != before["stages.1.0.conv2.weight"]).flatten(1).float().mean(dim=1) > 0.5
    assert changed.nonzero().flatten().tolist() == [unit]
    assert torch.equal(before["stages.1.0.shortcut.0.weight"], block.shortcut[0].weight)
    net.eval()
    with torch.no_grad():
        assert block(torch.randn(2, 4, 8, 8))[:, unit].any()  # the shortcut still makes it


@pytest.mark.parametrize("published", [False, True])
def test_a_new_unit_acts_at_once_where_the_article_s_does_not(published: bool) -> None:
    """D4: the skip path carries it to what reads the stream later on."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    if published:
        PublishedResNetCBP(net, optimizer, replacement_rate=0.2, maturity_threshold=1, seed=0)
    else:
        regrow.attach(net, optimizer, regrow.ContinualBackprop(0.2, 1), example=IMAGES)
    before = net.stages[1][0].conv2.weight.clone()
    step(net, optimizer)
    step(net, optimizer)
    changed = (net.stages[1][0].conv2.weight != before).all(dim=(1, 2, 3)).nonzero().flatten()
    assert len(changed) >= 1
    settled = logits(net)
    with torch.no_grad():
        net.stages[1][0].norm2.bias[changed] += 3
    assert torch.equal(logits(net), settled) == (not published)


def logits(net: ResNet) -> Tensor:
    with torch.no_grad():
        found: Tensor = net.eval()(IMAGES)
    net.train()
    return found


def test_momentum_of_what_was_zeroed_is_left() -> None:
    """D4."""
    net, optimizer, _ = at_work(1 / 6, 2)
    for _ in range(3):
        step(net, optimizer)
    (unit,) = (net.output.weight == 0).all(dim=0).nonzero().flatten().tolist()
    momentum = optimizer.state[net.output.weight]["momentum_buffer"]
    assert momentum[:, unit].any()


def test_the_budget_counts_all_units_and_replaces_at_one() -> None:
    """D6: ρ·n from the first eligible unit on, though only new ones are not eligible; one or more at c ≥ 1."""
    net, optimizer, cbp = at_work(0.25, 3)  # 4 units: exactly 1 a step; 6 units: 1, 2, 1, 2, ...
    counts = []
    for _ in range(5):
        before = cbp.replacements
        step(net, optimizer)
        counts.append(cbp.replacements - before)
    assert counts == [0, 0, 0, 3 * 1 + 4 * 1, 3 * 1 + 4 * 2]


def test_a_new_unit_begins_anew() -> None:
    net, optimizer, _ = at_work(1.0, 0)
    step(net, optimizer)
    for conv, norm in net.main_path():
        assert not conv.bias.any() and not norm.bias.any() and not norm.running_mean.any()
        assert (norm.weight == 1).all() and (norm.running_var == 1).all()
    assert not net.output.weight.any()


def test_it_goes_on_with_the_same_bits() -> None:
    net, optimizer, cbp = at_work(0.3, 1)
    for _ in range(3):
        step(net, optimizer)
    saved = copy.deepcopy([net.state_dict(), optimizer.state_dict(), cbp.state_dict()])
    other = at_work(0.3, 1)
    for part, state in zip(other, saved, strict=True):
        part.load_state_dict(state)
    for _ in range(4):
        step(net, optimizer)
        step(other[0], other[1])
    assert other[2].replacements == cbp.replacements > 0
    assert all(torch.equal(value, other[0].state_dict()[name]) for name, value in net.state_dict().items())


def test_evaluation_does_not_count() -> None:
    net, _, cbp = at_work(0.3, 1)
    with torch.no_grad():
        net(IMAGES)
    net.eval()(IMAGES)
    assert not any(found.any() for found in activities(cbp))


@pytest.mark.parametrize(
    ("rate", "maturity", "text"),
    [(1.5, 1, r"replacement_rate is a share and must lie in \[0, 1\], but is 1.5"), (0.1, -1, "at least 0, but is -1")],
)
def test_what_is_out_of_range_is_refused(rate: float, maturity: int, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        at_work(rate, maturity)
