"""What `print(plastic)` shows."""

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow.attachment.attachment import Attachment
from regrow.units.table import WIDTH
from tests.attachment.training import batch, make_network


def attached(model: nn.Module, example: object, method: object = "cbp", **options: object) -> Attachment:
    return regrow.attach(model, torch.optim.AdamW(model.parameters()), method, example=example, **options)


def row_of(text: str, group: str) -> str:
    """The row of a group in one line, without what its cells are filled with."""
    lines = iter(text.split("\n\n")[1].splitlines())
    found = [next(line for line in lines if line.split("  ")[0] == group)]
    for line in lines:
        if line[:1].strip():
            break
        found.append(line)
    return " ".join(" ".join(found).split())


class Recurrent(nn.Module):
    """What reads its units reads a state that no module has at its input; the layer returns it in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.out = nn.RNN(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.r(x)[0])


class Transformer(nn.Module):
    """As large ones are: blocks with long names, embeddings, a head tied to them."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.token_embedding = nn.Embedding(10, 8)
        self.transformer.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True) for _ in range(depth)
        )
        self.transformer.blocks.append(nn.Linear(3, 3))
        self.transformer.last_norm = nn.LayerNorm(8)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.transformer.token_embedding(tokens)
        for block in self.transformer.blocks[:-1]:
            x = block(x)
        return self.transformer.last_norm(x) @ self.transformer.token_embedding.weight.T


def test_the_table_of_a_small_network() -> None:
    lines = str(attached(make_network(), batch(0)[0], regrow.RandomReplacement(0.1, 5))).splitlines()
    settings = "replacement_rate=0.1, maturity_threshold=5, budget='carried', moments='cleared'"
    assert lines[0] == f"regrow: RandomReplacement({settings})"
    assert lines[1:] == [
        "on Sequential with AdamW; 2 of 3 groups served, 28 units",
        "",
        "group  units  made by   read by   new weights                 status",
        "─────  ─────  ────────  ────────  ──────────────────────────  ──────  ──────────────────────────────────",
        "0      16     0.weight  2.weight  uniform in [-0.224, 0.224]  free    served",
        "2      12     2.weight  4.weight  uniform in [-0.25, 0.25]    free    served",
        "4      5      4.weight  –         –                           output  not served: the network returns it",
    ]


def test_an_activation_that_is_seen_only_nearly_is_said_to_be() -> None:
    near = "shared served; activation read nearly, at the output of r"
    assert near in row_of(str(attached(Recurrent(), torch.rand(5, 2, 3))), "r.weight_ih_l0")
    text = str(attached(Recurrent(), torch.rand(5, 2, 3), regrow.RandomReplacement()))
    assert "shared served" in row_of(text, "r.weight_ih_l0") and "nearly" not in text  # it reads none
    assert "nearly" not in str(attached(make_network(), batch(0)[0]))


@pytest.fixture(scope="module")
def large() -> Attachment:
    torch.manual_seed(0)
    return attached(Transformer(12), torch.randint(10, (2, 4)))


def test_twelve_layers_fit_on_one_screen(large: Attachment) -> None:
    text = str(large)
    assert len(text.partition("\n\nparameters of no unit:")[0].splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "24 of 37 groups served" in text
    served = row_of(text, "transformer.blocks.0–11.linear1")
    assert served.startswith(
        "transformer.blocks.0–11.linear1 12 × 12 free made by transformer.blocks.0–11.linear1.weight"
    )
    assert "read by transformer.blocks.0–11.linear2.weight new weights uniform in [-0.354, 0.354]; served" in served
    stream = row_of(text, "transformer.token_embedding")
    assert "transformer.blocks.0–11.self_attn.out_proj.weight, transformer.blocks.0–11.linear2.weight read by" in stream
    assert "native_layer_norm of transformer.blocks.0–11.norm1–2 takes statistics over several units" in stream
    assert text.endswith(
        "parameters of no unit:\n"
        "  transformer.blocks.12.weight: the example does not reach it\n"
        "  transformer.blocks.12.bias: the example does not reach it"
    )


def test_verbose_unfolds_and_leaves_nothing_out(large: Attachment) -> None:
    assert large.graph is not None
    text = large.table(verbose=True)
    served = {group.name for group in large.groups}
    for group in large.graph:
        row = row_of(text, group.name)
        assert all(name in row for name in (*group.producers, *group.consumers, *group.reasons))
        assert ("not served: " in row) == (group.name not in served)
    assert "–11" not in text and " more" not in text


def test_deviations_measured_in_each_layer_do_not_keep_layers_apart(large: Attachment) -> None:
    deviations = [law.description.split()[2] for site in large._sites() if ":2" in site.group.name for law in site.laws]
    low, high = min(deviations), max(deviations)
    assert low < high
    row = row_of(str(large), "transformer.blocks.0–11.self_attn:2")
    assert f"new weights normal, std {low} to {high} (as at attach)" in row


def test_errors_fold_what_they_list() -> None:
    with pytest.raises(regrow.RegrowError) as caught:
        attached(Transformer(3), torch.randint(10, (2, 4)), strict=True)
    assert "\n  transformer.blocks.0–2.self_attn: bmm of transformer.blocks.0–2.self_attn sums over" in str(
        caught.value
    )
