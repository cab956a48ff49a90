"""SHOW: numbers that say something about plasticity."""

from regrow.measures.dormancy import activity as activity
from regrow.measures.dormancy import dormant_share as dormant_share
from regrow.measures.magnitude import mean_magnitude as mean_magnitude
from regrow.measures.magnitude import weight_magnitude as weight_magnitude
from regrow.measures.measurement import Measurements as Measurements
from regrow.measures.measurement import measure as measure
from regrow.measures.rank import article_rank as article_rank
from regrow.measures.rank import effective_rank as effective_rank
from regrow.measures.rank import ranks as ranks
from regrow.measures.rank import singular_values as singular_values
from regrow.measures.rank import stable_rank as stable_rank
