"""A tree of tensors and plain values in one safetensors file.

The tensors and the tree that names them lie in the same file, so the two can never disagree, with a digest of both, so
that no changed bit is taken for a state; reading it executes nothing. The same tree gives the same bytes.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from regrow.errors import StateError, StoreError


def encode(tree: Any) -> bytes:
    """Turn a tree into the bytes of a safetensors file.

    Args:
        tree: dicts (keys str or int), lists and tuples of tensors, int, float, str, bool and None.

    Raises:
        StateError: something else is in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(_fold(tree, "state", tensors), separators=(",", ":"))
    # In one entry, since safetensors writes several in any order.
    return save(tensors, metadata={"tree": f"{_digest(skeleton, tensors)} {skeleton}"})


def decode(path: Path) -> Any:
    """Read a tree back, tensors on the host.

    Raises:
        StoreError: the file is damaged or was not written by `encode`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            digest, _, skeleton = file.metadata()["tree"].partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(skeleton, tensors) != digest:
            raise ValueError("its content is not what was written")
        return _unfold(json.loads(skeleton), tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(
            f"{path} is damaged and cannot be resumed from ({error}): delete the folder {path.parent} to run it again."
        ) from error


# A dict becomes {"d": [[key, value], ...]}, which keeps int keys and their order; a list {"l": [...]}, a tuple
# {"u": [...]}, a tensor {"t": its name in the file}; plain values stand for themselves.
def _fold(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"{len(tensors)} {place}"  # numbered, for a key may hold a dot
        # A copy, since safetensors refuses two tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"t": name}
    if isinstance(value, dict):
        for key in value:
            if type(key) not in (str, int):
                raise StateError(f"{place} has the key {key!r}: a checkpoint holds keys of type str and int only.")
        return {"d": [[key, _fold(item, f"{place}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "l" if isinstance(value, list) else "u"
        return {kind: [_fold(item, f"{place}.{index}", tensors) for index, item in enumerate(value)]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise StateError(
        f"{place} is a {type(value).__name__}: a checkpoint holds tensors, numbers, str, bool, None, dicts and lists."
    )


def _digest(skeleton: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(skeleton.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unfold(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "t":
        return tensors[content]
    if kind == "d":
        return {key: _unfold(item, tensors) for key, item in content}
    items = [_unfold(item, tensors) for item in content]
    return items if kind == "l" else tuple(items)
