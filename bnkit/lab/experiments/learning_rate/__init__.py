"""Does batch norm allow larger learning rates, and so faster learning? Udacity's batch-norm lesson, and the paper.

Three hidden layers of 100 units are trained on MNIST by plain gradient descent, at three learning rates, from good and
from bad initial weights, with ReLU and with sigmoid, each with and without batch norm from the same weights and on the
same batches; and the networks of the paper's figure 1 besides.
"""

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.experiment import Experiment
from bnkit.lab.experiments.learning_rate import claims
from bnkit.lab.experiments.learning_rate.claims import charts
from bnkit.lab.experiments.learning_rate.parts import plan
from bnkit.lab.experiments.learning_rate.settings import PAPER, PUBLISHED, Settings, quick

EXPERIMENT = Experiment("learning-rate", QUESTIONS["learning-rate"], Settings, quick, plan, claims.findings, charts)
run, findings, plot = EXPERIMENT.run, EXPERIMENT.findings, EXPERIMENT.plot
__all__ = ["EXPERIMENT", "PAPER", "PUBLISHED", "Settings", "charts", "findings", "plan", "plot", "quick", "run"]
