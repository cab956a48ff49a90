import torch

from regrow.streams.task import Task


def test_the_length_is_the_number_of_examples():
    assert len(Task(0, torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64))) == 5
