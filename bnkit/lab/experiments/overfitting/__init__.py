"""Does batch norm suppress overfitting? The tutorial's demonstrations of it, with batch norm among them.

Six hidden layers of 100 ReLU units learn 300 images by heart: plain, with dropout, with weight decay, with batch norm.

Two parts of batch norm's effect are measured separately. The error of the running statistics: test accuracy with
statistics estimated anew over all 300 images, or from one batch. The noise of the batch's statistics: networks that
take them from all 300 images at each update, for the gradient of the same batch. And a grid of learning rates, initial
weights and batch sizes shows where the claim may hold.

The tutorial's dropout multiplies by the share that it keeps in inference, and does not divide by it in training. With
bnkit's dropout, the tutorial's dropout networks would learn far faster than published; `training.tutorial_dropout`
makes up for that.
"""

from bnkit.lab.experiments import QUESTIONS
from bnkit.lab.experiments.experiment import Experiment
from bnkit.lab.experiments.overfitting import claims
from bnkit.lab.experiments.overfitting.claims import charts
from bnkit.lab.experiments.overfitting.parts import plan
from bnkit.lab.experiments.overfitting.settings import Settings, quick

EXPERIMENT = Experiment("overfitting", QUESTIONS["overfitting"], Settings, quick, plan, claims.findings, charts)
run, findings, plot = EXPERIMENT.run, EXPERIMENT.findings, EXPERIMENT.plot
__all__ = ["EXPERIMENT", "Settings", "charts", "findings", "plan", "plot", "quick", "run"]
