"""What do small batches cost batch norm, and do ghost batches or shared statistics help?

A network of two hidden layers sees as many rows at every batch size from 2 to 512, with the learning rate in proportion
to the batch, so that the noise of the gradient stays about the same and the noise of the statistics changes. It is
trained plain and with batch norm; with the largest batch, cut into ghost batches of each smaller size, which change the
noise of the statistics alone; and by two ranks of half a batch each, which share their statistics (`reduce=`) or keep
separate ones.

Batch norm of two rows lets through only which row has the larger value. A batch of two loses the rest, whatever the
statistics used in inference.

The noise of the statistics is measured on the trained network, over draws of as many rows as each statistic has: how
far the mean strays in standard deviations, and the variance in variances, of all rows.
"""

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.batch_size import claims
from bnkit.lab.experiments.batch_size.claims import charts
from bnkit.lab.experiments.batch_size.parts import plan
from bnkit.lab.experiments.batch_size.settings import Settings, quick
from bnkit.lab.experiments.experiment import Experiment

EXPERIMENT = Experiment("batch-size", QUESTIONS["batch-size"], Settings, quick, plan, claims.findings, charts)
run, findings, plot = EXPERIMENT.run, EXPERIMENT.findings, EXPERIMENT.plot
__all__ = ["EXPERIMENT", "Settings", "charts", "findings", "plan", "plot", "quick", "run"]
