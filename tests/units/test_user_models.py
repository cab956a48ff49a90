"""Networks in the forms in which people bring them: from libraries, with control flow, partly frozen or pruned."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from regrow.units.graph import UnitGraph
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.units.hand_written import Net, Row


def proven(model: nn.Module, example: Any) -> UnitGraph:
    graph = find_units(model, example)
    verification = verify(model, example, graph, units_per_group=2)
    assert verification.ok, str(verification)
    return graph


def rows(graph: UnitGraph) -> list[Row]:
    return [
        (group.name, group.size, group.status, " ".join(group.producers), " ".join(group.consumers)) for group in graph
    ]


def chain(prefix: str, *layers: tuple[str, int]) -> list[Row]:
    """Rows of layers that follow each other, the last one an output."""
    found: list[Row] = []
    for number, (name, size) in enumerate(layers):
        last = number == len(layers) - 1
        reader = "" if last else f"{prefix}{layers[number + 1][0]}.weight"
        found.append((prefix + name, size, "output" if last else "free", f"{prefix}{name}.weight", reader))
    return found


OBSERVATIONS = torch.linspace(-1, 1, 20).view(4, 5)
ACTIONS = torch.linspace(-0.9, 0.9, 8).view(4, 2)


def policy(kind: str, *spaces: Any, **settings: Any) -> Any:
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy
    from stable_baselines3.sac.policies import SACPolicy

    torch.manual_seed(0)
    kinds = {"ppo": ActorCriticPolicy, "sac": SACPolicy, "dqn": DQNPolicy, "dqn cnn": CnnPolicy}
    return kinds[kind](*spaces, lambda progress: 1e-3, **settings)


def box(*shape: int) -> Any:
    from gymnasium import spaces

    return spaces.Box(-1, 1, shape, np.float32)


def discrete(count: int) -> Any:
    from gymnasium import spaces

    return spaces.Discrete(count)


@pytest.mark.parametrize("continuous", [True, False])
def test_ppo(continuous: bool) -> None:
    """The loss reads values, log-probabilities and entropies of actions that were taken."""
    model = policy("ppo", box(5), box(2) if continuous else discrete(3), net_arch={"pi": [6, 7], "vf": [8, 9]})
    actions = ACTIONS if continuous else torch.tensor([0, 1, 2, 0])
    graph = proven(model, lambda policy: policy.evaluate_actions(OBSERVATIONS, actions))
    inner = "mlp_extractor"
    assert rows(graph) == [
        (f"{inner}.policy_net.0", 6, "free", f"{inner}.policy_net.0.weight", f"{inner}.policy_net.2.weight"),
        (f"{inner}.policy_net.2", 7, "free", f"{inner}.policy_net.2.weight", "action_net.weight"),
        (f"{inner}.value_net.0", 8, "free", f"{inner}.value_net.0.weight", f"{inner}.value_net.2.weight"),
        (f"{inner}.value_net.2", 9, "free", f"{inner}.value_net.2.weight", "value_net.weight"),
        ("action_net", 2 if continuous else 3, "output", "action_net.weight", ""),
        ("value_net", 1, "output", "value_net.weight", ""),
    ]
    assert not graph.unclaimed  # the deviation is a gain of the action that it belongs to


def test_sac() -> None:
    """One hidden layer is read by mean and deviation; the twin critics are two networks, and so are their targets."""
    model = policy("sac", box(5), box(2), net_arch=[6, 7])
    graph = proven(
        model, lambda policy: (policy.actor.action_log_prob(OBSERVATIONS), policy.critic(OBSERVATIONS, ACTIONS))
    )
    hidden = "actor.latent_pi"
    assert rows(graph) == [
        (f"{hidden}.0", 6, "free", f"{hidden}.0.weight", f"{hidden}.2.weight"),
        (f"{hidden}.2", 7, "free", f"{hidden}.2.weight", "actor.mu.weight actor.log_std.weight"),
        ("actor.mu", 2, "output", "actor.mu.weight actor.log_std.weight", ""),
        *chain("critic.qf0.", ("0", 6), ("2", 7), ("4", 1)),
        *chain("critic.qf1.", ("0", 6), ("2", 7), ("4", 1)),
    ]
    assert {name.partition(".")[0] for name in graph.unclaimed} == {"critic_target"}
    assert rows(proven(model.critic, (OBSERVATIONS, ACTIONS)))[:3] == chain("qf0.", ("0", 6), ("2", 7), ("4", 1))


def test_dqn() -> None:
    model = policy("dqn", box(5), discrete(3), net_arch=[6, 7])
    assert rows(proven(model.q_net, OBSERVATIONS)) == chain("q_net.", ("0", 6), ("2", 7), ("4", 3))


def test_dqn_on_images() -> None:
    from gymnasium import spaces

    images = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    settings = {"features_extractor_kwargs": {"features_dim": 10}, "net_arch": [6]}
    model = policy("dqn cnn", images, discrete(3), **settings)
    graph = proven(model.q_net, torch.randint(255, (3, 4, 36, 36), dtype=torch.uint8))
    trunk = "features_extractor."
    assert rows(graph) == [
        *chain(trunk, ("cnn.0", 32), ("cnn.2", 64), ("cnn.4", 64), ("linear.0", 10))[:3],
        (f"{trunk}linear.0", 10, "free", f"{trunk}linear.0.weight", "q_net.0.weight"),
        *chain("q_net.", ("0", 6), ("2", 3)),
    ]


@pytest.mark.slow
def test_a_lightning_module_with_its_training_step_as_example() -> None:
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, value: Tensor) -> Tensor:
            return self.out(F.relu(self.hidden(value)))

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(self(batch[0]), batch[1])}

    batch = OBSERVATIONS, torch.tensor([0, 1, 2, 0])
    expected = chain("", ("hidden", 6), ("out", 3))
    assert rows(proven(Classifier(), lambda model: model.training_step(batch, 0))) == expected
    assert rows(proven(Classifier(), OBSERVATIONS)) == expected


# Control flow


def by_value(m: Net, x: Tensor) -> Tensor:
    h = F.relu(m.a(x))
    for _ in range(int(x.sum() > 0) + 2):
        h = F.relu(m.again(h))
    return m.left(h) if x.mean() > 0 else m.right(h)


@pytest.mark.parametrize(("sign", "taken", "other"), [(1, "left", "right"), (-1, "right", "left")])
def test_control_flow_on_values_and_branches_that_are_not_taken(sign: int, taken: str, other: str) -> None:
    torch.manual_seed(0)
    model = Net(by_value, a=nn.Linear(5, 6), again=nn.Linear(6, 6), left=nn.Linear(6, 2), right=nn.Linear(6, 2))
    graph = proven(model, sign * torch.rand(4, 5))
    assert rows(graph) == [
        ("a", 6, "shared", "a.weight again.weight", f"again.weight {taken}.weight"),
        (taken, 2, "output", f"{taken}.weight", ""),
    ]
    assert graph.unclaimed == dict.fromkeys((f"{other}.weight", f"{other}.bias"), "the example does not reach it")


@pytest.mark.parametrize("source", ["python", "numpy", "torch"])
def test_layers_that_are_dropped_at_random_are_found_all_the_same(source: str) -> None:
    draw = {"python": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand([])}[source]

    def forward(m: Net, x: Tensor) -> Tensor:
        h = F.relu(m.a(x))
        return m.b(h) if draw() < 0.5 else m.c(h)

    for seed in range(2):
        for begin in (random.seed, np.random.seed, torch.manual_seed):
            begin(seed)
        model = Net(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 2), c=nn.Linear(6, 2), d=nn.Linear(6, 2))
        graph = proven(model, OBSERVATIONS)
        assert (graph["a"].status, set(graph["a"].consumers)) == ("free", {"b.weight", "c.weight"})
        reason = "no run of the example reached it, and random numbers may choose what runs"
        assert graph.unclaimed == dict.fromkeys(("d.weight", "d.bias"), reason)


# Inputs and outputs


@dataclasses.dataclass
class Result:
    logits: Tensor
    other: dict[str, Any]


def returned(form: str, logits: Tensor) -> Any:
    if form == "data class":
        return Result(logits, {"loss": [logits.sum()]})
    if form == "model output":
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=logits)
    return {"dict": {"logits": logits}, "tuple": (logits, None, 3)}[form]


@pytest.mark.parametrize("form", ["dict", "tuple", "data class", "model output"])
def test_several_inputs_by_keyword_and_outputs_of_any_form(form: str) -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(5, 6), nn.Linear(2, 6), nn.Linear(6, 3)

        def forward(self, image: Tensor, *, action: Tensor, scale: float = 1.0) -> Any:
            return returned(form, self.out(F.relu(self.a(image) + scale * self.b(action))))

    torch.manual_seed(0)
    model = TwoInputs()
    expected = [
        ("a", 6, "shared", "a.weight b.weight", "out.weight"),
        ("out", 3, "output", "out.weight", ""),
    ]
    assert rows(proven(model, {"image": OBSERVATIONS, "action": ACTIONS, "scale": 2.0})) == expected
    assert rows(proven(model, lambda model: model(OBSERVATIONS, action=ACTIONS))) == expected


# Frozen and pruned weights


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))


@pytest.mark.parametrize(
    ("frozen", "blocked"),
    [("0", {"0": "0"}), ("2", {"0": "2", "2": "2"}), ("4", {"2": "4"})],
    ids=lambda value: str(value),
)
def test_frozen_layers_block_what_they_make_and_read(frozen: str, blocked: dict[str, str]) -> None:
    model = mlp()
    model.get_submodule(frozen).requires_grad_(False)
    for group in list(proven(model, OBSERVATIONS))[:2]:
        if group.name in blocked:
            assert group.status == "blocked"
            assert f"{blocked[group.name]}.weight does not require grad" in group.reasons
        else:
            assert group.status == "free"


def pruned(prepare: Callable[[nn.Module], Any]) -> nn.Module:
    model = mlp()
    prepare(model[2])
    return model


@pytest.mark.parametrize(
    "prepare",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
        lambda layer: prune.ln_structured(layer, "weight", 0.3, n=2, dim=0),
        lambda layer: (prune.random_unstructured(layer, "weight", 3), prune.random_unstructured(layer, "weight", 3)),
    ],
    ids=["elements", "rows", "twice"],
)
def test_a_pruned_weight_is_the_original_under_its_mask(prepare: Callable[[nn.Module], Any]) -> None:
    graph = proven(pruned(prepare), OBSERVATIONS)
    assert rows(graph) == [
        ("0", 6, "free", "0.weight", "2.weight_orig"),
        ("2", 7, "free", "2.weight_orig", "4.weight"),
        ("4", 2, "output", "4.weight", ""),
    ]


def test_a_pruned_bias_and_a_mask_that_was_made_permanent() -> None:
    model = pruned(lambda layer: prune.random_unstructured(layer, "bias", 3))
    assert [(part.parameter, part.role) for part in proven(model, OBSERVATIONS)["2"].having("bias")] == [
        ("2.bias_orig", "bias")
    ]
    prune.remove(model[2], "bias")
    assert rows(proven(model, OBSERVATIONS)) == chain("", ("0", 6), ("2", 7), ("4", 2))


def test_lazy_layers_once_they_have_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(2))
    model(OBSERVATIONS)
    assert rows(proven(model, OBSERVATIONS)) == chain("", ("0", 6), ("2", 2))


# Adapters


class Adapted(nn.Module):
    """A frozen layer with two matrices in a row beside it."""

    def __init__(self, base: nn.Linear, between: Callable[[Tensor], Tensor] = lambda value: value) -> None:
        super().__init__()
        self.base, self.between = base.requires_grad_(False), between
        self.down, self.up = nn.Linear(base.in_features, 3, bias=False), nn.Linear(3, base.out_features, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        return self.base(value) + 0.5 * self.up(self.between(self.down(F.dropout(value, 0.1, self.training))))


def test_the_rank_of_a_low_rank_adapter_is_no_unit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Adapted(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), Adapted(nn.Linear(7, 2)))
    graph = proven(model, OBSERVATIONS)
    assert [(group.name, group.status) for group in graph] == [
        ("0.base", "blocked"),
        ("2", "blocked"),
        ("4.base", "output"),
    ]
    for name in ("0", "4"):
        assert graph.unclaimed[f"{name}.down.weight"] == (
            f"{name}.down.weight and {name}.up.weight adapt {name}.base.weight, which does not require grad: what lies "
            "between them is no unit"
        )


@pytest.mark.parametrize("change", ["nonlinear", "trained base", "read elsewhere"])
def test_what_only_resembles_a_low_rank_adapter_has_units(change: str) -> None:
    torch.manual_seed(0)
    layer = Adapted(nn.Linear(5, 6), torch.tanh if change == "nonlinear" else lambda value: value)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(6, 2))
    example: Any = OBSERVATIONS
    if change == "trained base":
        layer.base.requires_grad_(True)
    if change == "read elsewhere":
        example = lambda model: (model(OBSERVATIONS), layer.up(torch.tanh(layer.down(OBSERVATIONS))))  # noqa: E731
    group = proven(model, example)["0.down"]
    assert (group.size, group.status, group.consumers) == (3, "free", ("0.up.weight",))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_adapters_of_peft() -> None:
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=17, use_cache=False, **sizes))
    settings = peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj", "up_proj"], lora_dropout=0.1)
    model = peft.get_peft_model(base, settings)
    graph = proven(model, lambda model: model(input_ids=torch.arange(10).view(2, 5)).logits)
    assert {group.status for group in graph} == {"blocked", "output"}
    adapted = [name for name in graph.unclaimed if ".lora_A." in name]
    assert len(adapted) == 6
    assert all("what lies between them is no unit" in graph.unclaimed[name] for name in adapted)
    assert not any("lora_A" in producer for group in graph for producer in group.producers)
