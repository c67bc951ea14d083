"""Training: `fit`, its batches, optimizers, checkpoints and callbacks."""
