"""HOW: one file per method. Importing one registers it."""

from regrow.methods.backprop import Backprop as Backprop
from regrow.methods.continual_backprop import ContinualBackprop as ContinualBackprop
from regrow.methods.l2 import L2 as L2
from regrow.methods.method import Method as Method
from regrow.methods.method import method_named as method_named
from regrow.methods.random_replacement import RandomReplacement as RandomReplacement
from regrow.methods.shrink_and_perturb import ShrinkAndPerturb as ShrinkAndPerturb
from regrow.methods.unit_method import PeriodicMethod as PeriodicMethod
from regrow.methods.unit_method import QuotaMethod as QuotaMethod
from regrow.methods.unit_method import UnitMethod as UnitMethod
from regrow.methods.weight_method import WeightMethod as WeightMethod
