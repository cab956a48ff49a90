"""Data whose law changes: iterators of tasks, one file per stream; `sources` finds the images."""

from regrow.streams.bit_flipping import BitFlipping as BitFlipping
from regrow.streams.permuted_images import PermutedImages as PermutedImages
from regrow.streams.sources import ImageSet as ImageSet
from regrow.streams.sources import load as load
from regrow.streams.task import Task as Task
