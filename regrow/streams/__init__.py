"""Data whose law changes: tasks one after another, one file per stream; `sources` finds the images."""

from regrow.streams.bit_flipping import BitFlipping as BitFlipping
from regrow.streams.class_incremental import ClassIncremental as ClassIncremental
from regrow.streams.class_pairs import ClassPairs as ClassPairs
from regrow.streams.hard_and_easy import HardAndEasy as HardAndEasy
from regrow.streams.options import Gradual as Gradual
from regrow.streams.options import GradualSplit as GradualSplit
from regrow.streams.options import NoisyLabels as NoisyLabels
from regrow.streams.permuted_images import PermutedImages as PermutedImages
from regrow.streams.random_labels import RandomLabels as RandomLabels
from regrow.streams.sources import ImageSet as ImageSet
from regrow.streams.sources import load as load
from regrow.streams.task import Examples as Examples
from regrow.streams.task import SplitTask as SplitTask
from regrow.streams.task import Task as Task
