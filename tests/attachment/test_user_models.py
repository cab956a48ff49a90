"""Replacement in networks as people bring them: from libraries, wrapped, pruned, partly frozen."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import regrow
from regrow.units.example import run, tensors_of
from tests.attachment.test_networks import replaced
from tests.units.test_user_models import ACTIONS, OBSERVATIONS, Adapted, box, discrete, mlp, policy

OFTEN = regrow.ContinualBackprop(0.1, 1)


def train_and_check(plastic: regrow.Attachment, example: Any, model: nn.Module | None = None) -> None:
    """Train the model or its wrapper; outgoing weights of newborns must be 0, and all served groups must have some."""
    for step in range(1, 9):
        plastic.optimizer.zero_grad()
        sum(output.square().mean() for output in tensors_of(run(model or plastic.model, example))).backward()
        plastic.optimizer.step()
        events = [event for event in plastic.events if event.step == step]
        drawn = replaced(plastic, events, "incoming")
        for name, (tensor, silent) in replaced(plastic, events, "outgoing").items():
            redrawn = drawn[name][1] if name in drawn else torch.zeros_like(silent)
            assert not tensor[silent & ~redrawn].any(), f"an outgoing weight in {name} is not exactly 0"
    assert {event.group for event in plastic.events} == {group.name for group in plastic.groups}


# Stable-Baselines3


def test_ppo() -> None:
    model = policy("ppo", box(5), box(2), net_arch={"pi": [16, 16], "vf": [16, 16]})

    def example(model: Any) -> Any:
        return model.evaluate_actions(OBSERVATIONS, ACTIONS)

    model.set_training_mode(True)
    plastic = regrow.attach(model, model.optimizer, OFTEN, example=example)
    assert len(plastic.groups) == 4
    train_and_check(plastic, example)


def test_sac_has_two_optimizers_and_a_target_that_nothing_touches() -> None:
    model = policy("sac", box(5), box(2), net_arch=[16, 16])
    model.set_training_mode(True)
    target = [parameter.clone() for parameter in model.critic_target.parameters()]
    examples = {"actor": lambda actor: actor.action_log_prob(OBSERVATIONS), "critic": (OBSERVATIONS, ACTIONS)}
    expected = {"actor": ["latent_pi.0", "latent_pi.2"], "critic": ["qf0.0", "qf0.2", "qf1.0", "qf1.2"]}
    for name, example in examples.items():
        part = getattr(model, name)
        plastic = regrow.attach(part, part.optimizer, OFTEN, example=example)
        assert [group.name for group in plastic.groups] == expected[name]
        train_and_check(plastic, example)
    assert all(torch.equal(*pair) for pair in zip(target, model.critic_target.parameters(), strict=True))


def test_dqn_without_an_example() -> None:
    model = policy("dqn", box(5), discrete(3), net_arch=[16, 16])
    model.set_training_mode(True)
    plastic = regrow.attach(model.q_net, model.optimizer, OFTEN)
    model.q_net(OBSERVATIONS)
    assert len(plastic.groups) == 2
    train_and_check(plastic, OBSERVATIONS)


# Lightning


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and loggers
def test_a_lightning_module_within_its_trainer(tmp_path: Any) -> None:
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            loss = F.cross_entropy(self.layers(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

        def on_fit_start(self) -> None:
            batch = next(iter(data))
            self.plastic = regrow.attach(self, self.optimizers(), OFTEN, example=lambda model: model.layers(batch[0]))

    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(40, 5), torch.randint(3, (40,))), batch_size=4
    )
    torch.manual_seed(0)
    model = Classifier()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet).fit(model, data)
    assert model.plastic.metrics()["steps"] == 10
    assert len(model.plastic.events) > 10
    last = [event.unit for event in model.plastic.events if event.step == 10]
    assert last and not model.layers[2].weight[:, last].any()


# Masks, frozen parts, adapters


def test_a_pruning_mask_stays_when_units_are_replaced() -> None:
    model = mlp()
    for layer in (model[0], model[2]):
        prune.random_unstructured(layer, "weight", 0.4)
    masks = {name: mask.clone() for name, mask in model.named_buffers()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, OFTEN, example=OBSERVATIONS)
    train_and_check(plastic, OBSERVATIONS)
    assert plastic.graph["2"].producers == ("2.weight_orig",)
    for name, mask in model.named_buffers():
        assert torch.equal(mask, masks[name])
    model(OBSERVATIONS)  # a pruned weight is computed in each forward
    for layer in (model[0], model[2]):
        assert not layer.weight[layer.weight_mask == 0].any()


def test_frozen_parts_and_adapters_are_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Adapted(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    plastic = regrow.attach(model, optimizer, OFTEN, example=OBSERVATIONS)
    assert [group.name for group in plastic.groups] == ["2"]
    assert "0.down.weight and 0.up.weight adapt 0.base.weight, which does not require grad: what lies" in str(plastic)
    train_and_check(plastic, OBSERVATIONS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_network_of_which_only_adapters_learn() -> None:
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=17, use_cache=False, **sizes))
    model = peft.get_peft_model(base, peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with pytest.raises(regrow.RegrowError, match="lora_A.default.weight and .*: what lies between them is no unit"):
        regrow.attach(model, optimizer, "cbp", example={"input_ids": torch.arange(10).view(2, 5)})


# Wrappers


@contextlib.contextmanager
def distributed(model: nn.Module) -> Iterator[nn.Module]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield nn.parallel.DistributedDataParallel(model)
    finally:
        dist.destroy_process_group()


def compiled(model: nn.Module) -> Any:
    torch.compiler.reset()
    return contextlib.nullcontext(torch.compile(model, backend="eager"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("wrapped", [distributed, compiled])
def test_a_wrapped_network_is_served_as_it_was_written(wrapped: Callable[[nn.Module], Any], lazy: bool) -> None:
    model = mlp()
    with wrapped(model) as wrapper:
        optimizer = torch.optim.AdamW(wrapper.parameters(), lr=0.01)
        plastic = regrow.attach(wrapper, optimizer, OFTEN, example=None if lazy else OBSERVATIONS)
        assert plastic.model is model
        train_and_check(plastic, OBSERVATIONS, wrapper)
        assert [group.name for group in plastic.groups] == ["0", "2"]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_network_is_ranked_by_gradients() -> None:
    model = torch.jit.script(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with pytest.raises(
        regrow.RegrowError, match=r"takes no hooks, so its first forward cannot be seen\. Give example="
    ):
        regrow.attach(model, optimizer, OFTEN)
    plastic = regrow.attach(model, optimizer, OFTEN, example=OBSERVATIONS)
    for _ in range(8):
        optimizer.zero_grad()
        model(OBSERVATIONS).square().mean().backward()
        optimizer.step()
    assert {event.group for event in plastic.events} == {"0", "2"}
    last = [event.unit for event in plastic.events if event.group == "2" and event.step == 8]
    weights = dict(model.named_parameters())
    assert not weights["4.weight"][:, last].any()


def test_networks_in_bf16() -> None:
    model, example = mlp().bfloat16(), OBSERVATIONS.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    plastic = regrow.attach(model, optimizer, OFTEN, example=example)
    train_and_check(plastic, example)
