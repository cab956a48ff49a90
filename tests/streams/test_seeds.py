import numpy as np
import pytest

from regrow.errors import ConfigError
from regrow.streams.seeds import generator, whole_number


def test_a_generator_belongs_to_its_key():
    draws = {key: tuple(generator(*key).integers(1 << 40, size=4)) for key in [(1, 2), (2, 1), (1, 3), (12,)]}
    assert len(set(draws.values())) == 4
    assert draws[1, 2] == tuple(generator(1, 2).integers(1 << 40, size=4))


def test_whole_numbers():
    assert whole_number("n", np.int64(3), least=0) == 3
    with pytest.raises(ConfigError, match="n=2 is too small: it must be at least 3"):
        whole_number("n", 2, least=3)
    with pytest.raises(ConfigError, match=r"n=2.0 is not a whole number: pass an int of at least 3"):
        whole_number("n", 2.0, least=3)
