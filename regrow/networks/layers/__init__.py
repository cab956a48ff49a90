"""Layers that keep a network plastic, to be put into any network by hand."""

from regrow.networks.layers.doubling import CReLU as CReLU
from regrow.networks.layers.doubling import DeepFourierFeatures as DeepFourierFeatures
from regrow.networks.layers.doubling import halved as halved
from regrow.networks.layers.dropout import Dropout as Dropout
from regrow.networks.layers.input_normalization import RunningInputNormalization as RunningInputNormalization
from regrow.networks.layers.online_normalization import OnlineNormalization as OnlineNormalization
from regrow.networks.layers.smooth_leaky_relu import RandomizedSmoothLeakyReLU as RandomizedSmoothLeakyReLU
from regrow.networks.layers.smooth_leaky_relu import SmoothLeakyReLU as SmoothLeakyReLU
