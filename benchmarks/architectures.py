"""What is found in architectures of Hugging Face's `transformers`: `python -m benchmarks.architectures`.

Each is built from a tiny configuration with random weights (nothing is downloaded) and prints one row of a Markdown
table:

- *groups*: how many groups of units there are of each status;
- *covered*: the share of all elements of all parameters that belong, as incoming or outgoing slice, bias or gain, to a
  unit of a free, shared or coupled group. An element that makes one unit and is read by another counts once, a tied
  parameter too. Of a weight that is computed, as by weight norm, what counts are the parameters behind it. Running
  statistics are buffers and do not count;
- *verified*: whether `regrow.verify` finds every free, shared and coupled group to be as its status says, in training
  and in evaluation mode, on 2 units of each group;
- *seconds*: wall time of `regrow.find_units`, both modes, on one thread.

Names given on the command line choose some of them: `python -m benchmarks.architectures Llama BERT`.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from torch import Tensor, nn

from regrow.units.graph import UnitGraph
from regrow.units.parametrized import behind
from regrow.units.trace import find_units
from regrow.units.verify import verify

STATUSES = ("free", "shared", "coupled", "blocked", "output", "unused")
WORDS = 50


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network of `transformers`, small and random.

    Attributes:
        name: as its authors call it.
        model: name of the class in `transformers`.
        inputs: makes the keyword arguments that it is called with.
        settings: of its configuration, where they are not the defaults.
        read: what the loss reads: a field of what the network returns.
    """

    name: str
    model: str
    inputs: Callable[[], dict[str, Tensor]]
    settings: dict[str, Any] = field(default_factory=dict)
    read: str = "logits"

    def build(self) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
        """The network, and an example for `find_units`."""
        torch.manual_seed(0)
        kind = getattr(transformers, self.model)
        model = kind(kind.config_class(**self.settings))
        inputs = self.inputs()
        return model, lambda network: getattr(network(**inputs), self.read)


def words(length: int = 7, **more: Callable[[], Tensor]) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(3, WORDS, (2, length))} | {name: make() for name, make in more.items()}


def latent() -> dict[str, Tensor]:
    return {"inputs": torch.randint(WORDS, (2, 7))}


def pixels(size: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, size, size)}


def sound() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 100)}


def spectrum() -> dict[str, Tensor]:
    return {"input_features": torch.randn(2, 8, 20), **decoded()}


def decoded() -> dict[str, Tensor]:
    return {"decoder_input_ids": torch.randint(3, WORDS, (2, 5))}


def translated() -> dict[str, Tensor]:
    return words() | decoded()


def captioned() -> dict[str, Tensor]:
    return words() | pixels(8)


# The names that most configurations use.
ENCODER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **ENCODER, "vocab_size": WORDS, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
DECODER = {**TEXT, "use_cache": False}
GROUPED = {**DECODER, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
VISION = {**ENCODER, "image_size": 8, "patch_size": 4, "num_labels": 3}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": WORDS, "use_cache": False}
LISTEN = {
    **TEXT, "conv_dim": (8, 8), "conv_stride": (2, 2), "conv_kernel": (3, 3), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False, "layerdrop": 0.0,
}  # fmt: skip
TWO_SIDES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": WORDS,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "use_cache": False,
}  # fmt: skip
PYRAMID = {"hidden_sizes": [8, 12], "depths": [2, 2], "num_labels": 3}

ARCHITECTURES = [
    Architecture("GPT-2", "GPT2LMHeadModel", words, GPT),
    Architecture("GPT-J", "GPTJForCausalLM", words, GPT | {"rotary_dim": 4}),
    Architecture("GPT-NeoX", "GPTNeoXForCausalLM", words, DECODER),
    Architecture("OPT", "OPTForCausalLM", words, DECODER | {"ffn_dim": 24, "word_embed_proj_dim": 16}),
    Architecture("BLOOM", "BloomForCausalLM", words, DECODER | {"n_layer": 2, "n_head": 2}),
    Architecture("Falcon", "FalconForCausalLM", words, DECODER),
    Architecture("Phi", "PhiForCausalLM", words, DECODER),
    Architecture("Llama", "LlamaForCausalLM", words, GROUPED),
    Architecture("Qwen3", "Qwen3ForCausalLM", words, GROUPED),
    Architecture("Gemma 2", "Gemma2ForCausalLM", words, GROUPED),
    Architecture("OLMo 2", "Olmo2ForCausalLM", words, GROUPED),
    Architecture("Mixtral", "MixtralForCausalLM", words, GROUPED | {"num_local_experts": 3}),
    Architecture("GPT-OSS", "GptOssForCausalLM", words, GROUPED | {"num_local_experts": 3, "num_experts_per_tok": 2}),
    Architecture(
        "DeepSeek-V3", "DeepseekV3ForCausalLM", words,
        DECODER | {"moe_intermediate_size": 8, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
                   "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8,
                   "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4, "num_key_value_heads": 2},
    ),
    Architecture("Mamba", "MambaForCausalLM", words, DECODER | {"state_size": 4}),
    Architecture("RWKV", "RwkvForCausalLM", words, DECODER | {"attention_hidden_size": 16, "rescale_every": 0}),
    Architecture("BERT", "BertForSequenceClassification", words, TEXT),
    Architecture("BERT, masked words", "BertForMaskedLM", words, TEXT),
    Architecture("RoBERTa", "RobertaForSequenceClassification", words, TEXT),
    Architecture(
        "DistilBERT", "DistilBertForSequenceClassification", words,
        {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "vocab_size": WORDS},
    ),
    Architecture("ALBERT", "AlbertForSequenceClassification", words, TEXT | {"embedding_size": 8}),
    Architecture("ELECTRA", "ElectraForPreTraining", words, TEXT | {"embedding_size": 8}),
    Architecture(
        "DeBERTa-v2", "DebertaV2ForSequenceClassification", words,
        TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 8},
    ),
    Architecture("ModernBERT", "ModernBertForSequenceClassification", words, TEXT),
    Architecture(
        "Longformer", "LongformerForSequenceClassification", partial(words, 8), TEXT | {"attention_window": [4, 4]}
    ),
    Architecture("FNet", "FNetForSequenceClassification", words, TEXT),
    Architecture("XLNet", "XLNetForSequenceClassification", words,
        {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "vocab_size": WORDS}),
    Architecture(
        "T5", "T5ForConditionalGeneration", translated,
        {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": WORDS,
         "use_cache": False, "decoder_start_token_id": 0},
    ),
    Architecture("BART", "BartForConditionalGeneration", translated, TWO_SIDES),
    Architecture("ViT", "ViTForImageClassification", partial(pixels, 8), VISION),
    Architecture("DeiT", "DeiTForImageClassification", partial(pixels, 8), VISION),
    Architecture("DINOv2", "Dinov2ForImageClassification", partial(pixels, 8), VISION),
    Architecture("BEiT", "BeitForImageClassification", partial(pixels, 8), VISION),
    Architecture(
        "Swin", "SwinForImageClassification", partial(pixels, 16),
        {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4,
         "num_labels": 3},
    ),
    Architecture(
        "SegFormer", "SegformerForSemanticSegmentation", partial(pixels, 32),
        {"num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [8, 12],
         "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
         "decoder_hidden_size": 16, "num_labels": 3},
    ),
    Architecture(
        "ResNet", "ResNetForImageClassification", partial(pixels, 32),
        PYRAMID | {"embedding_size": 8, "layer_type": "basic"},
    ),
    Architecture("ConvNeXt", "ConvNextForImageClassification", partial(pixels, 32), PYRAMID | {"num_stages": 2}),
    Architecture("ConvNeXt V2", "ConvNextV2ForImageClassification", partial(pixels, 32), PYRAMID | {"num_stages": 2}),
    Architecture(
        "RegNet", "RegNetForImageClassification", partial(pixels, 32),
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "groups_width": 4, "num_labels": 3},
    ),
    Architecture("MobileNetV2", "MobileNetV2ForImageClassification", partial(pixels, 32),
        {"depth_multiplier": 0.25, "depth_divisible_by": 4, "min_depth": 4, "finegrained_output": False,
         "image_size": 32, "num_labels": 3}),
    Architecture(
        "Whisper", "WhisperForConditionalGeneration", spectrum,
        TWO_SIDES | {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 12},
    ),
    Architecture(
        "Perceiver", "PerceiverForSequenceClassification", latent,
        {"num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1, "num_self_attends_per_block": 2,
         "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "vocab_size": WORDS,
         "max_position_embeddings": 16},
    ),
    Architecture("Wav2Vec2", "Wav2Vec2ForCTC", sound, LISTEN),
    Architecture("HuBERT", "HubertForCTC", sound, LISTEN),
    Architecture(
        "CLIP", "CLIPModel", captioned,
        {"text_config": TEXT, "vision_config": VISION, "projection_dim": 8},
        read="logits_per_image",
    ),
]  # fmt: skip


def covered(model: nn.Module, graph: UnitGraph) -> float:
    """Share of the elements of all parameters that belong to a unit which can be replaced."""
    marked: dict[str, Tensor] = {}
    for group in graph:
        if group.status in ("free", "shared", "coupled"):
            for part in group.having("incoming", "bias", "gain", "outgoing"):
                mask = marked.setdefault(part.parameter, torch.zeros(part.shape, dtype=torch.bool))
                for unit in range(group.size):
                    mask[part.index(unit)] = True
    count = 0
    for name, mask in marked.items():
        found = behind(model, name)
        masks = [mask] if isinstance(found, Tensor) else found.owned(mask)
        count += sum(int(one.sum()) for one in masks)
    return count / sum(parameter.numel() for parameter in model.parameters())


def row(architecture: Architecture) -> list[str]:
    model, example = architecture.build()
    started = time.perf_counter()
    graph = find_units(model, example)
    seconds = time.perf_counter() - started
    statuses = [group.status for group in graph]
    counts = [str(statuses.count(status) or "–") for status in STATUSES]
    verified = "yes" if verify(model, example, graph, units_per_group=2).ok else "no"
    return [architecture.name, *counts, f"{covered(model, graph):.0%}", verified, f"{seconds:.1f}"]


def main() -> None:
    names = [architecture.name for architecture in ARCHITECTURES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; by default all: {', '.join(names)}")
    chosen = parser.parse_args().names
    if unknown := set(chosen) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    print("| architecture | " + " | ".join(STATUSES) + " | covered | verified | seconds |")
    print("|---|" + "---:|" * (len(STATUSES) + 1) + "---|---:|")
    for architecture in ARCHITECTURES:
        if not chosen or architecture.name in chosen:
            print("| " + " | ".join(row(architecture)) + " |", flush=True)


if __name__ == "__main__":
    main()
