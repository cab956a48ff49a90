"""Makers of tensors that lie on the host and are of float32 where nothing else is said.

Training code may have set another default device or dtype (`torch.set_default_device`, `torch.set_default_dtype`,
`with torch.device(...)`). That is for its own tensors: draws, counts and what methods remember do not depend on it.
"""

from functools import partial

import torch

arange = partial(torch.arange, device="cpu")
empty = partial(torch.empty, dtype=torch.float32, device="cpu")
full = partial(torch.full, device="cpu")
linspace = partial(torch.linspace, dtype=torch.float32, device="cpu")
ones = partial(torch.ones, dtype=torch.float32, device="cpu")
rand = partial(torch.rand, dtype=torch.float32, device="cpu")
randint = partial(torch.randint, device="cpu")
randn = partial(torch.randn, dtype=torch.float32, device="cpu")
tensor = partial(torch.tensor, device="cpu")
zeros = partial(torch.zeros, dtype=torch.float32, device="cpu")
