"""Does batch norm keep every layer's activations spread? The tutorial's histograms, before and during training.

Five hidden layers of 100 units see 1,000 images: from normal weights of standard deviation 1 and 0.01, Xavier's and
He's, through sigmoid, tanh and ReLU, with and without batch norm. Batch norm uses the statistics of all these images.

The tutorial judges by the histogram of all values of a layer. Such a histogram also looks spread where each unit has
one constant value, which says nothing of the image; so the verdicts count the units that vary from image to image.
"""

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.activations import claims
from bnkit.lab.experiments.activations.claims import charts
from bnkit.lab.experiments.activations.parts import hidden_values, plan
from bnkit.lab.experiments.activations.settings import Settings, quick
from bnkit.lab.experiments.experiment import Experiment

EXPERIMENT = Experiment(
    "activations", QUESTIONS["activations"], Settings, quick, plan, claims.findings, charts, claims.arrange
)
run, findings, plot = EXPERIMENT.run, EXPERIMENT.findings, EXPERIMENT.plot
__all__ = ["EXPERIMENT", "Settings", "charts", "findings", "hidden_values", "plan", "plot", "quick", "run"]
