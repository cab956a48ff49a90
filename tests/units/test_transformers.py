"""Architectures of Hugging Face: found and proven, and for nine of them with the groups that a person finds."""

from collections import Counter
from functools import cache
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import nn

import regrow
from benchmarks.architectures import ARCHITECTURES, Architecture
from regrow.units.graph import UnitGraph
from regrow.units.trace import find_units
from regrow.units.verify import verify
from tests.attachment.test_networks import train_and_check

pytestmark = pytest.mark.slow

Group = tuple[str, int, str, frozenset[str], frozenset[str]]  # name, size, status, producers, consumers


def groups(text: str, **layers: tuple[str, ...]) -> set[Group]:
    """Read lines of `name size status: producers > consumers`; indented further, they go on. Without producers, the
    name is the only one.

    A letter before the first dot stands for layers: a line that begins with it is read once for each, and in other
    lines a word that begins with it becomes one word for each.
    """
    found = set()
    for line in dedent(text).strip().replace("\n    ", " ").splitlines():
        letter = line.partition(".")[0]
        for own in [{letter: (layer,)} for layer in layers[letter]] if letter in layers else [{}]:
            head, _, consumers = _spelled_out(line, layers | own).partition(" > ")
            head, _, producers = head.partition(": ")
            name, size, status = head.split()
            made_by = frozenset(producers.split() or [name.partition(":")[0]])
            found.add((name, int(size), status, made_by, frozenset(consumers.split())))
    return found


def _spelled_out(line: str, layers: dict[str, tuple[str, ...]]) -> str:
    words = []
    for word in line.split():
        letter, _, rest = word.partition(".")
        words += [f"{layer}.{rest}" for layer in layers[letter]] if letter in layers else [word]
    return " ".join(words)


def numbered(name: str, count: int = 2) -> tuple[str, ...]:
    return tuple(f"{name}.{number}" for number in range(count))


BY_HAND = {
    "GPT-2": groups(
        """
        transformer.wte 16 blocked: transformer.wte transformer.wpe L.attn.c_proj L.mlp.c_proj > L.attn.c_attn
            L.mlp.c_fc transformer.wte
        L.attn.c_attn 32 blocked
        L.attn.c_attn:2 16 free > L.attn.c_proj
        L.mlp.c_fc 64 free > L.mlp.c_proj
        """,
        L=numbered("transformer.h"),
    ),
    "Llama": groups(
        """
        model.embed_tokens 16 coupled: model.embed_tokens L.self_attn.o_proj L.mlp.down_proj > L.self_attn.q_proj
            L.self_attn.k_proj L.self_attn.v_proj L.mlp.gate_proj L.mlp.up_proj lm_head
        L.self_attn.q_proj 8 blocked
        L.self_attn.k_proj 4 blocked
        L.self_attn.v_proj 8 free > L.self_attn.o_proj
        L.mlp.gate_proj 24 shared: L.mlp.gate_proj L.mlp.up_proj > L.mlp.down_proj
        lm_head 50 output
        """,
        L=numbered("model.layers"),
    ),
    "Mixtral": groups(
        """
        model.embed_tokens 16 coupled: model.embed_tokens L.self_attn.o_proj L.mlp.experts.down_proj >
            L.self_attn.q_proj L.self_attn.k_proj L.self_attn.v_proj L.mlp.gate L.mlp.experts.gate_up_proj lm_head
        L.self_attn.q_proj 8 blocked
        L.self_attn.k_proj 4 blocked
        L.self_attn.v_proj 8 free > L.self_attn.o_proj
        L.mlp.gate 3 blocked
        L.mlp.experts.gate_up_proj 72 free > L.mlp.experts.down_proj
        lm_head 50 output
        """,
        L=numbered("model.layers"),
    ),
    "BERT": groups(
        """
        bert.embeddings.word_embeddings 16 coupled: bert.embeddings.word_embeddings
            bert.embeddings.token_type_embeddings bert.embeddings.position_embeddings L.attention.output.dense
            L.output.dense > L.attention.self.query L.attention.self.key L.attention.self.value L.intermediate.dense
            bert.pooler.dense
        L.attention.self.query 16 blocked
        L.attention.self.key 16 blocked
        L.attention.self.value 16 free > L.attention.output.dense
        L.intermediate.dense 24 free > L.output.dense
        bert.pooler.dense 16 free > classifier
        classifier 2 output
        """,
        L=numbered("bert.encoder.layer"),
    ),
    "T5": groups(
        """
        shared 16 blocked: shared E.0.SelfAttention.o E.1.DenseReluDense.wo D.0.SelfAttention.o
            D.1.EncDecAttention.o D.2.DenseReluDense.wo > E.0.SelfAttention.q E.0.SelfAttention.k E.0.SelfAttention.v
            E.1.DenseReluDense.wi D.0.SelfAttention.q D.0.SelfAttention.k D.0.SelfAttention.v D.1.EncDecAttention.q
            D.1.EncDecAttention.k D.1.EncDecAttention.v D.2.DenseReluDense.wi shared
        encoder.block.0.layer.0.SelfAttention.relative_attention_bias 2 blocked
        decoder.block.0.layer.0.SelfAttention.relative_attention_bias 2 blocked
        E.0.SelfAttention.q 16 blocked
        E.0.SelfAttention.k 16 blocked
        E.0.SelfAttention.v 16 free > E.0.SelfAttention.o
        E.1.DenseReluDense.wi 24 free > E.1.DenseReluDense.wo
        D.0.SelfAttention.q 16 blocked
        D.0.SelfAttention.k 16 blocked
        D.0.SelfAttention.v 16 free > D.0.SelfAttention.o
        D.1.EncDecAttention.q 16 blocked
        D.1.EncDecAttention.k 16 blocked
        D.1.EncDecAttention.v 16 free > D.1.EncDecAttention.o
        D.2.DenseReluDense.wi 24 free > D.2.DenseReluDense.wo
        """,
        E=tuple(f"{block}.layer" for block in numbered("encoder.block")),
        D=tuple(f"{block}.layer" for block in numbered("decoder.block")),
    ),
    "ViT": groups(
        """
        vit.embeddings.patch_embeddings.projection 16 coupled: vit.embeddings.patch_embeddings.projection
            vit.embeddings.cls_token vit.embeddings.position_embeddings L.attention.o_proj L.mlp.fc2 >
            L.attention.q_proj L.attention.k_proj L.attention.v_proj L.mlp.fc1 classifier
        L.attention.q_proj 16 blocked
        L.attention.k_proj 16 blocked
        L.attention.v_proj 16 free > L.attention.o_proj
        L.mlp.fc1 24 free > L.mlp.fc2
        classifier 3 output
        """,
        L=numbered("vit.layers"),
    ),
    "ResNet": groups(
        """
        resnet.embedder.embedder.convolution 8 shared: resnet.embedder.embedder.convolution A.layer.1.convolution
            > A.layer.0.convolution B.0.layer.0.convolution B.0.shortcut.convolution
        A.layer.0.convolution 8 free > A.layer.1.convolution
        B.0.layer.0.convolution 12 free > B.0.layer.1.convolution
        B.0.layer.1.convolution 12 shared: B.0.layer.1.convolution B.0.shortcut.convolution
            B.1.layer.1.convolution > B.1.layer.0.convolution classifier.1
        B.1.layer.0.convolution 12 free > B.1.layer.1.convolution
        classifier.1 3 output
        """,
        A=numbered("resnet.encoder.stages.0.layers"),
        B=("resnet.encoder.stages.1.layers",),
    ),
    "ConvNeXt": groups(
        """
        convnext.embeddings.patch_embeddings 8 coupled: convnext.embeddings.patch_embeddings A.pwconv2 > A.pwconv1
            convnext.encoder.stages.1.downsampling_layer.1
        A.pwconv1 32 free > A.pwconv2
        convnext.encoder.stages.1.downsampling_layer.1 12 coupled: convnext.encoder.stages.1.downsampling_layer.1
            B.pwconv2 > B.pwconv1 classifier
        B.pwconv1 48 free > B.pwconv2
        classifier 3 output
        """,
        A=numbered("convnext.encoder.stages.0.layers"),
        B=numbered("convnext.encoder.stages.1.layers"),
    ),
    "Whisper": groups(
        """
        model.encoder.conv1 16 free > model.encoder.conv2
        model.encoder.conv2 16 coupled: model.encoder.conv2 E.self_attn.out_proj E.fc2 > E.self_attn.q_proj
            E.self_attn.k_proj E.self_attn.v_proj E.fc1 D.encoder_attn.k_proj D.encoder_attn.v_proj
        model.decoder.embed_tokens 16 blocked: model.decoder.embed_tokens model.decoder.embed_positions
            D.self_attn.out_proj D.encoder_attn.out_proj D.fc2 > D.self_attn.q_proj D.self_attn.k_proj
            D.self_attn.v_proj D.encoder_attn.q_proj D.fc1 model.decoder.embed_tokens
        model.decoder.embed_tokens:2 1 output
        E.self_attn.q_proj 16 blocked
        E.self_attn.k_proj 16 blocked
        E.self_attn.v_proj 16 free > E.self_attn.out_proj
        E.fc1 24 free > E.fc2
        D.self_attn.q_proj 16 blocked
        D.self_attn.k_proj 16 blocked
        D.self_attn.v_proj 16 free > D.self_attn.out_proj
        D.encoder_attn.q_proj 16 blocked
        D.encoder_attn.k_proj 16 blocked
        D.encoder_attn.v_proj 16 free > D.encoder_attn.out_proj
        D.fc1 24 free > D.fc2
        """,
        E=numbered("model.encoder.layers"),
        D=numbered("model.decoder.layers"),
    ),
}

# For the others: how many groups of each status, and which layers make units of feed-forward blocks and values.
COUNTED = {
    "GPT-J": ("4 free, 1 coupled, 8 blocked, 1 output", "v_proj fc_in"),
    "GPT-NeoX": ("4 free, 1 coupled, 4 blocked, 1 output", "query_key_value dense_h_to_4h"),
    "OPT": ("4 free, 5 blocked, 1 output", "v_proj fc1"),
    "BLOOM": ("4 free, 3 blocked", "query_key_value dense_h_to_4h"),
    "Falcon": ("4 free, 3 blocked", "query_key_value dense_h_to_4h"),
    "Phi": ("4 free, 1 coupled, 8 blocked, 1 output", "v_proj fc1"),
    "Qwen3": ("2 free, 2 shared, 1 coupled, 2 blocked, 1 output", "v_proj gate_proj up_proj"),
    "Gemma 2": ("2 free, 2 shared, 5 blocked, 1 output", "v_proj gate_proj up_proj"),
    "OLMo 2": ("2 free, 2 shared, 1 coupled, 4 blocked, 1 output", "v_proj gate_proj up_proj"),
    "GPT-OSS": ("4 free, 1 coupled, 6 blocked, 1 output", "v_proj gate_up_proj"),
    "DeepSeek-V3": (
        "3 free, 2 shared, 5 coupled, 9 blocked, 1 output",
        "kv_b_proj gate_proj up_proj gate_up_proj",
    ),
    "Mamba": ("2 free, 2 shared, 5 blocked", "in_proj dt_proj"),
    "RWKV": ("2 free, 2 shared, 1 coupled, 1 output", "attention.value feed_forward.key"),
    "BERT, masked words": ("4 free, 1 coupled, 5 blocked, 2 output", "value intermediate.dense"),
    "RoBERTa": ("5 free, 1 coupled, 4 blocked, 1 output", "value intermediate.dense classifier.dense"),
    "DistilBERT": ("5 free, 1 coupled, 4 blocked, 1 output", "v_lin lin1 pre_classifier"),
    "ALBERT": ("3 free, 2 coupled, 2 blocked, 1 output", "value ffn pooler"),
    "ELECTRA": ("5 free, 2 coupled, 4 blocked, 1 output", "value intermediate.dense discriminator_predictions.dense"),
    "DeBERTa-v2": ("6 free, 1 coupled, 8 blocked, 1 output", "value_proj intermediate.dense rel_embeddings"),
    "ModernBERT": ("4 free, 2 coupled, 2 blocked, 1 output", "Wqkv Wi"),
    "Longformer": ("3 free, 2 shared, 1 coupled, 8 blocked, 1 output", "value value_global intermediate.dense"),
    "FNet": ("3 free, 1 coupled, 1 blocked, 1 output", "intermediate.dense pooler.dense"),
    "XLNet": ("5 free, 1 coupled, 6 blocked, 1 output", "rel_attn.v layer_1 summary"),
    "BART": ("10 free, 13 blocked, 1 output", "v_proj fc1"),
    "DeiT": ("4 free, 1 coupled, 4 blocked, 1 output", "v_proj fc1"),
    "DINOv2": ("4 free, 1 coupled, 4 blocked, 1 output", "v_proj fc1"),
    "BEiT": ("4 free, 1 coupled, 4 blocked, 1 output", "v_proj fc1"),
    "Swin": ("8 free, 2 coupled, 8 blocked, 1 output", "v_proj fc1"),
    "SegFormer": ("11 free, 4 coupled, 8 blocked, 1 output", "v_proj fc1 linear_fuse"),
    "ConvNeXt V2": ("6 coupled, 1 output", ""),  # hidden units meet in a norm by hand
    "RegNet": ("7 free, 5 shared, 1 output", "layer.0.convolution layer.1.convolution attention.0 attention.2"),
    "MobileNetV2": ("20 free, 5 shared, 1 output", "expand_1x1.convolution reduce_1x1.convolution"),
    "Perceiver": ("8 free, 3 coupled, 8 blocked, 1 output", "value dense1"),
    "Wav2Vec2": ("5 free, 2 coupled, 4 blocked, 1 output", "v_proj intermediate_dense conv_layers.0.conv"),
    "HuBERT": ("5 free, 2 coupled, 4 blocked, 1 output", "v_proj intermediate_dense conv_layers.0.conv"),
    "CLIP": ("8 free, 2 coupled, 8 blocked, 2 output", "v_proj fc1"),
}


@cache
def found(architecture: Architecture) -> tuple[nn.Module, Any, UnitGraph]:
    model, example = architecture.build()
    return model, example, find_units(model, example)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_groups_are_those_found_by_hand(architecture: Architecture) -> None:
    model, _, graph = found(architecture)
    assert not [reason for group in graph for reason in group.reasons if "rule" in reason]
    if architecture.name in BY_HAND:
        assert {
            (
                group.name,
                group.size,
                group.status,
                frozenset(name.removesuffix(".weight") for name in group.producers),
                frozenset(name.removesuffix(".weight") for name in group.consumers),
            )
            for group in graph
        } == BY_HAND[architecture.name]
        return
    counts, layers = COUNTED[architecture.name]
    statuses = Counter(group.status for group in graph)
    assert dict(statuses) == {status: int(number) for number, status in map(str.split, counts.split(", "))}
    served = {name for group in graph if group.status in ("free", "shared") for name in group.producers}
    for layer in layers.split():
        makers = [
            name for name, _ in model.named_parameters() if f".{name}".removesuffix(".weight").endswith(f".{layer}")
        ]
        assert makers and served.issuperset(makers)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_groups_are_proven(architecture: Architecture) -> None:
    verification = verify(*found(architecture), units_per_group=2)
    assert verification.ok, str(verification)
    assert verification.modes == ("training", "evaluation")
    assert len(verification.checks) > 3


TRAINED = ("GPT-2", "Llama", "BERT", "ViT", "T5", "Mixtral")


@pytest.mark.parametrize(
    "architecture",
    [architecture for architecture in ARCHITECTURES if architecture.name in TRAINED],
    ids=lambda architecture: architecture.name,
)
def test_replacements_are_clean(architecture: Architecture) -> None:
    model, example = architecture.build()
    first, *others = architecture.inputs().values()
    positions = (first, None, *others) if others else first  # between what T5 encodes and decodes is a mask
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    plastic = regrow.attach(model, optimizer, regrow.ContinualBackprop(0.1, 1), example=example)
    train_and_check(plastic, positions, steps=8)
