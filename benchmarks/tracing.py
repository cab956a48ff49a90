"""What `find_units` costs, over depth and on networks as people use them: `python -m benchmarks.tracing`.

Large networks are each traced in a fresh process, with random weights. Its memory is the highest that the process ever
had in memory (`ru_maxrss`) less what it had with the model built and one plain training forward made and dropped, right
before `find_units`.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.interleave import AGAIN, compare, environment, parse
from regrow.networks.mlp import MLP
from regrow.units.trace import find_units

Network = tuple[nn.Module, Any]  # with its example

DEPTHS = (3, 6, 12, 24, 48)


def mlp(depth: int) -> Network:
    return MLP(16, [64] * depth, 10), torch.randn(4, 16)


def transformer(depth: int) -> Network:
    layers = [nn.TransformerEncoderLayer(64, 4, 256, norm_first=True, batch_first=True) for _ in range(depth)]
    return nn.Sequential(nn.Linear(16, 64), *layers, nn.Linear(64, 10)), torch.randn(2, 8, 16)


class Block(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, value: Tensor) -> Tensor:
        """The value, changed."""
        hidden = torch.relu(self.norms[0](self.convolutions[0](value)))
        return torch.relu(value + self.norms[1](self.convolutions[1](hidden)))


def resnet(depth: int) -> Network:
    ends = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(nn.Conv2d(3, 16, 3), *[Block(16) for _ in range(depth)], ends), torch.randn(2, 3, 8, 8)


def gpt2(*shape: int) -> Network:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(use_cache=False)), {"input_ids": torch.randint(1, 50000, shape)}


def bert(*shape: int) -> Network:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig()), {"input_ids": torch.randint(1, 30000, shape)}


def resnet50() -> Network:
    from transformers import ResNetConfig, ResNetModel

    return ResNetModel(ResNetConfig()), {"pixel_values": torch.randn(2, 3, 224, 224)}


DEEP: dict[str, Callable[[int], Network]] = {
    "MLP, width 64": mlp,
    "pre-norm transformer, width 64": transformer,
    "ResNet, width 16, layers of 2 convolutions": resnet,
}

LARGE: dict[str, Callable[[], Network]] = {
    "GPT-2, 1×8 tokens": lambda: gpt2(1, 8),
    "GPT-2, 2×128 tokens": lambda: gpt2(2, 128),
    "BERT-base, 1×8 tokens": lambda: bert(1, 8),
    "BERT-base, 2×128 tokens": lambda: bert(2, 128),
    "ResNet-50, 2×3×224×224": resnet50,
}


def main() -> None:
    options = parse(__doc__.splitlines()[0])
    found = {
        "depth": [row for name in DEEP for row in over_depth(name, DEPTHS, rounds=2 if options.quick else 5)],
        "large": weigh_all(list(LARGE)[-1:] if options.quick else list(LARGE), 1 if options.quick else 3),
        "environment": environment(),
    }
    print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def over_depth(name: str, depths: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Time at each depth, in CPU seconds of one thread, compared with the first depth within each round."""
    torch.manual_seed(0)
    cases = {}
    for depth in depths:
        model, example = DEEP[name](depth)
        cases[f"{name}, {depth} layers"] = lambda model=model, example=example: find_units(model, example)
    rows = [row for row in compare(cases, next(iter(cases)), rounds) if not row.case.endswith(AGAIN)]
    return [
        {
            "network": name,
            "layers": depth,
            "seconds": row.milliseconds / 1000,
            "milliseconds per layer": row.milliseconds / depth,
            "ratio per layer": row.ratio * depths[0] / depth,
        }
        for depth, row in zip(depths, rows, strict=True)
    ]


def weigh_all(names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Time and memory on some of the large networks: the median and the highest of several fresh processes."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            code = (
                f"import json; from benchmarks.tracing import LARGE, weigh; print(json.dumps(weigh(LARGE[{name!r}])))"
            )
            done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    return [
        {
            "network": name,
            "parameters": found[0]["parameters"],
            "groups": found[0]["groups"],
            "seconds": statistics.median(run["seconds"] for run in found),
            "CPU seconds": statistics.median(run["CPU seconds"] for run in found),
            "MiB above the model": max(run["MiB above the model"] for run in found),
        }
        for name, found in runs.items()
    ]


def weigh(build: Callable[[], Network]) -> dict[str, float]:
    """Time and memory of one `find_units` in this process, on two threads."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model, example = build()
    model(**example)
    before = resident()
    wall, cpu = time.perf_counter(), time.process_time()
    graph = find_units(model, example)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "groups": len(graph.groups),
        "seconds": wall,
        "CPU seconds": cpu,
        "MiB above the model": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
    }


def resident() -> float:
    """Memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def table(found: dict[str, Any]) -> str:
    """What was found, as text."""
    lines = ["Seconds of find_units over depth (CPU time of one thread; medians of interleaved rounds)", ""]
    lines.append(f"{'network':44}  {'layers':>6}  {'seconds':>7}  {'ms a layer':>10}  {'x first depth':>13}")
    for row in found["depth"]:
        lines.append(
            f"{row['network']:44}  {row['layers']:6}  {row['seconds']:7.3f}  {row['milliseconds per layer']:10.2f}  "
            f"{row['ratio per layer']:13.2f}"
        )
    lines += ["", "Large networks (fresh processes, two threads; median time, highest memory)", ""]
    lines.append(f"{'network':44}  {'parameters':>10}  {'groups':>6}  {'seconds':>7}  {'CPU s':>5}  {'MiB above':>9}")
    for row in found["large"]:
        lines.append(
            f"{row['network']:44}  {row['parameters'] / 1e6:9.1f}M  {row['groups']:6}  {row['seconds']:7.2f}  "
            f"{row['CPU seconds']:5.2f}  {row['MiB above the model']:9.0f}"
        )
    return "\n".join([*lines, "", *(f"{key}: {value}" for key, value in found["environment"].items())])


if __name__ == "__main__":
    main()
