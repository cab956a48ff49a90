"""One file per study. Importing one registers it."""

from regrow.studies.ant import SlipperyAntStudy as SlipperyAntStudy
from regrow.studies.bit_flipping import BitFlippingStudy as BitFlippingStudy
from regrow.studies.changing_control import ChangingControl as ChangingControl
from regrow.studies.continual_imagenet import ContinualImageNet as ContinualImageNet
from regrow.studies.hard_and_easy import HardAndEasyStudy as HardAndEasyStudy
from regrow.studies.incremental_cifar import IncrementalCIFAR as IncrementalCIFAR
from regrow.studies.permuted_digits import PermutedDigits as PermutedDigits
from regrow.studies.permuted_mnist import PermutedMNIST as PermutedMNIST
from regrow.studies.random_labels import RandomLabelsStudy as RandomLabelsStudy
