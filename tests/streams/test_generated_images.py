import hashlib

import numpy as np
import pytest

from regrow.errors import DataError
from regrow.streams import sources
from regrow.streams.generated_images import CLASSES, generated_images


def test_they_are_the_same_bytes_everywhere():
    sums = {"train": "e124612127397d43", "test": "6409f791616d00de"}
    for split, expected in sums.items():
        images, labels = generated_images(split)
        assert hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:16] == expected


def test_sizes():
    for split, each in (("train", 30), ("test", 10)):
        images, labels = generated_images(split)
        assert images.shape == (CLASSES * each, 32, 32, 3) and images.dtype == np.uint8
        assert labels.dtype == np.int64 and np.bincount(labels).tolist() == [each] * CLASSES
        assert (np.diff(labels) < 0).any(), "classes are mixed"


def test_the_test_images_can_be_told_by_the_means_of_the_training_images():
    (images, labels), (tested, expected) = generated_images("train"), generated_images("test")
    means = np.stack([images[labels == name].mean(axis=0) for name in range(CLASSES)])
    distance = ((tested[:, None].astype(float) - means) ** 2).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == expected).mean() > 0.95
    assert not any((image == tested).all(axis=(1, 2, 3)).any() for image in images)


def test_their_origin_says_that_they_are_generated():
    found = sources.load("generated-images", split="test")
    assert found.origin == (
        "200 images of 32×32 pixels in colour, 20 classes, from regrow itself: they are generated, not real"
    )
    assert found.white == 255
    assert sources.load("generated-images", size=8).images.shape == (600, 8, 8, 3)
    with pytest.raises(DataError, match="split='valid' is not a part"):
        generated_images("valid")
