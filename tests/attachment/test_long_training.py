"""500 steps of continual backpropagation on larger networks: every replacement leaves everything else as it was."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stable_baselines3 import SAC
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import regrow
from regrow.attachment.site import Site
from regrow.methods.unit_method import Choice
from regrow.units.example import tensors_of

STEPS = 500
pytestmark = pytest.mark.slow


class Guard:
    """Compares the model before and after the replacements of a step, at every `every`-th step that has some.

    Make it before `attach`, so that its first hook runs between the optimizer's update and the replacements.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, run: Callable[[Any], Any], every: int
    ) -> None:
        self.model, self.run, self.every = model, run, every
        self.steps = self.checked = 0
        self.plastic: regrow.Attachment | None = None
        self.known = 0
        self.before: dict[str, Tensor] = {}
        optimizer.register_step_post_hook(self.keep)

    def follow(self, plastic: regrow.Attachment) -> None:
        self.plastic = plastic
        plastic.optimizer.register_step_post_hook(self.compare)

    def keep(self, *_: Any) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            self.before = {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def compare(self, *_: Any) -> None:
        events, self.known = self.plastic.events[self.known :], len(self.plastic.events)
        before, self.before = self.before, {}
        if not before or not events:
            return
        replaced = [(self.plastic.graph[event.group], event.unit) for event in events]
        assert all(group.status in ("free", "shared") for group, _ in replaced)
        silenced = {name: tensor.clone() for name, tensor in before.items()}
        touched = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in before.items()}
        for group, unit in replaced:
            for part in group.slices:
                touched[part.parameter][part.index(unit)] = True
                if part.role == "outgoing":
                    silenced[part.parameter][part.index(unit)] = 0.0
        now = self.tensors()
        for name, tensor in now.items():
            kept = (tensor == before[name]) | touched[name]
            assert kept.all(), f"{name} changed outside of what belongs to the replaced units"

        without, after = copy.deepcopy(self.model), copy.deepcopy(self.model)
        for training in (True, False):
            without.load_state_dict(silenced, strict=False)  # the second names of tied weights are missing
            after.load_state_dict(now, strict=False)
            one, other = (self.outputs(model.train(training)) for model in (without, after))
            assert len(one) == len(other) > 0
            assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True)), (
                "the output changed by more than the removal of the replaced units"
            )
        self.checked += 1

    def outputs(self, model: nn.Module) -> list[Tensor]:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            return list(tensors_of(self.run(model)))


def check_all_replaced(plastic: regrow.Attachment, guard: Guard) -> None:
    replaceable = {group.name for group in plastic.graph if group.status in ("free", "shared")}
    assert replaceable and replaceable == {event.group for event in plastic.events}
    assert guard.checked >= 5
    assert all(parameter.isfinite().all() for parameter in plastic.model.parameters())


class Reader(nn.Module):
    """Names the next letter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(16, 24), nn.LSTM(24, 32, 2, batch_first=True, dropout=0.1)
        self.out = nn.Linear(32, 16)

    def forward(self, letters: Tensor) -> Tensor:
        return self.out(self.lstm(self.embedding(letters))[0])


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, PyTorch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 48)), nn.Parameter(torch.randn(1, 17, 48) * 0.02)
        layer = nn.TransformerEncoderLayer(48, 4, 96, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(48, 16)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(patches), -1, -1), patches], 1) + self.positions
        return self.head(self.encoder(tokens)[:, 0])


class UNet(nn.Module):
    """Two scales, skips, transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self.block(3, 12), self.block(12, 16), self.block(16, 24)
        self.up2, self.up1 = nn.ConvTranspose2d(24, 16, 2, 2), nn.ConvTranspose2d(16, 12, 2, 2)
        self.join2, self.join1 = self.block(32, 16), self.block(24, 12)
        self.out = nn.Conv2d(12, 2, 1)

    @staticmethod
    def block(channels: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True),
            nn.Conv2d(out, out, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        one = self.down1(images)
        two = self.down2(F.max_pool2d(one, 2))
        three = self.bottom(F.max_pool2d(two, 2))
        two = self.join2(torch.cat([self.up2(three), two], 1))
        return self.out(self.join1(torch.cat([self.up1(two), one], 1)))


def letters(length: int, vocabulary: int) -> Tensor:
    return torch.randint(vocabulary, (4, length + 1))


def reading() -> tuple[nn.Module, Callable[[], tuple[Tensor, Tensor]]]:
    def batch() -> tuple[Tensor, Tensor]:
        text = letters(12, 16).cumsum(1) % 16
        return text[:, :-1], text[:, 1:]

    return Reader(), batch


def language() -> tuple[nn.Module, Callable[[], tuple[Tensor, Tensor]]]:
    """GPT-2 as small as people train it: 6 layers, 384 wide."""
    settings = {"n_layer": 6, "n_embd": 384, "n_head": 6, "vocab_size": 256, "n_positions": 32, "use_cache": False}
    settings |= {"bos_token_id": 0, "eos_token_id": 0}

    def batch() -> tuple[Tensor, Tensor]:
        text = letters(8, 256)
        return text[:, :-1], text[:, 1:]

    return GPT2LMHeadModel(GPT2Config(**settings)), batch


def vision() -> tuple[nn.Module, Callable[[], tuple[Tensor, Tensor]]]:
    return VisionTransformer(), lambda: (torch.randn(4, 3, 16, 16), torch.randint(16, (4,)))


def segmentation() -> tuple[nn.Module, Callable[[], tuple[Tensor, Tensor]]]:
    return UNet(), lambda: (torch.randn(4, 3, 16, 16), torch.randint(2, (4, 16, 16)))


def train(build: Callable[[], Any], rate: float, every: int) -> tuple[regrow.Attachment, Guard]:
    torch.manual_seed(0)
    model, batch = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    example = batch()[0]
    guard = Guard(model, optimizer, lambda model: model(example), every)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(rate, 10), example=example)
    guard.follow(plastic)
    for _ in range(STEPS):
        inputs, targets = batch()
        result = model(inputs)
        logits = result if isinstance(result, Tensor) else result.logits
        if logits.dim() == 3:
            logits, targets = logits.flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return plastic, guard


@pytest.mark.parametrize(
    ("build", "rate", "every"),
    [(reading, 2e-3, 1), (language, 2e-4, 20), (vision, 1e-3, 1), (segmentation, 2e-3, 1)],
    ids=["LSTM", "GPT-2, 6 x 384", "ViT", "U-Net"],
)
def test_supervised(build: Callable[[], Any], rate: float, every: int) -> None:
    check_all_replaced(*train(build, rate, every))


@pytest.mark.parametrize(
    ("part", "message"),
    [("silence", "the output changed by more than the removal"), ("redraw", "changed outside of what belongs to")],
)
def test_the_guard_notices(part: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outgoing weights that stay, and units that were not chosen."""
    real = Site.redraw
    wrong = {
        "silence": lambda site, choice, optimizer: None,
        "redraw": lambda site, choice, *rest: real(site, Choice((choice.units + 1) % site.size), *rest),
    }
    monkeypatch.setattr(Site, part, wrong[part])
    with pytest.raises(AssertionError, match=message):
        train(reading, 2e-3, 1)


def test_soft_actor_critic() -> None:
    agent = SAC(
        "MlpPolicy", "Pendulum-v1", learning_starts=50, batch_size=64, seed=0, policy_kwargs={"net_arch": [32, 32]}
    )
    observations, actions = torch.randn(8, 3), torch.rand(8, 1) * 2 - 1
    watched = []
    for part, example in (
        (agent.actor, lambda actor: actor.action_log_prob(observations)),
        (agent.critic, (observations, actions)),
    ):
        run = example if callable(example) else lambda critic: critic(observations, actions)
        guard = Guard(part, part.optimizer, run, every=1)
        plastic = regrow.attach(part, part.optimizer, regrow.ContinualBackprop(1e-3, 10), example=example)
        guard.follow(plastic)
        watched.append((plastic, guard))
    target = copy.deepcopy(agent.critic_target.state_dict())
    agent.learn(STEPS + 50)
    for plastic, guard in watched:
        assert guard.steps == STEPS
        check_all_replaced(plastic, guard)
    assert any(not torch.equal(tensor, target[name]) for name, tensor in agent.critic_target.state_dict().items())
