"""Does batch norm make learning less dependent on the initial weights? The tutorial's experiment over 16 scales.

Five hidden layers of 100 ReLU units are trained by SGD on 1,000 images, with and without batch norm, from normal
weights of standard deviation 1 down to 0.0001.
"""

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.experiment import Experiment
from bnkit.lab.experiments.weight_scale import claims
from bnkit.lab.experiments.weight_scale.claims import PUBLISHED, charts, final
from bnkit.lab.experiments.weight_scale.parts import plan, train
from bnkit.lab.experiments.weight_scale.settings import SCALES, Settings, quick

EXPERIMENT = Experiment("weight-scale", QUESTIONS["weight-scale"], Settings, quick, plan, claims.findings, charts)
run, findings, plot = EXPERIMENT.run, EXPERIMENT.findings, EXPERIMENT.plot
__all__ = [
    "EXPERIMENT",
    "PUBLISHED",
    "SCALES",
    "Settings",
    "charts",
    "final",
    "findings",
    "plan",
    "plot",
    "quick",
    "run",
    "train",
]
