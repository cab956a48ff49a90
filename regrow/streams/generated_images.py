"""Images that are made, not taken: for tests and for runs of seconds, where no data is at hand."""

import numpy as np

from regrow.errors import DataError, nearest
from regrow.streams.image_files import Images
from regrow.streams.pieces import Labels
from regrow.streams.seeds import generator

CLASSES = 20
_PER_CLASS = {"train": 30, "test": 10}
_BLOCKS, _BLOCK = 4, 8  # 4×4 blocks of 8×8 pixels
_NOISE = 60


def generated_images(split: str = "train") -> tuple[Images, Labels]:
    """Make colour images of 32×32 pixels: 20 classes, 30 images of each to learn and 10 to test on, in random order.

    A class is a pattern of 4×4 blocks of random colours. Each image of it is moved by up to 3 pixels either way (what
    leaves on one side enters on the other) and has uniform noise. All of it is whole numbers, so that the bytes are the
    same everywhere.

    Returns:
        uint8 [n, 32, 32, 3], and int64 [n] from 0 to 19.

    Raises:
        DataError: `split` is neither "train" nor "test".
    """
    if split not in _PER_CLASS:
        raise DataError(f"split={split!r} is not a part of an image set: {nearest(split, _PER_CLASS)}")
    patterns = generator(0, 1).integers(40, 216, size=(CLASSES, _BLOCKS, _BLOCKS, 3))
    patterns = patterns.repeat(_BLOCK, axis=1).repeat(_BLOCK, axis=2)
    random = generator(0, 2 + list(_PER_CLASS).index(split))
    labels = random.permutation(np.repeat(np.arange(CLASSES), _PER_CLASS[split]))
    shifts = random.integers(-3, 4, size=(len(labels), 2))
    images = random.integers(-_NOISE, _NOISE + 1, size=(len(labels), *patterns.shape[1:]))
    for image, label, shift in zip(images, labels, shifts, strict=True):
        image += np.roll(patterns[label], shift, axis=(0, 1))
    return np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64)
