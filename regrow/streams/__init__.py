"""Data whose law changes: iterators of tasks, one file per stream; `sources` finds the images."""

from regrow.streams.bit_flipping import BitFlipping as BitFlipping
from regrow.streams.class_incremental import ClassIncremental as ClassIncremental
from regrow.streams.class_pairs import ClassPairs as ClassPairs
from regrow.streams.permuted_images import PermutedImages as PermutedImages
from regrow.streams.sources import ImageSet as ImageSet
from regrow.streams.sources import load as load
from regrow.streams.task import SplitTask as SplitTask
from regrow.streams.task import Task as Task
