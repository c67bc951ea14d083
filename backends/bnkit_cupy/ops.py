"""A backend's ops by the kernels, and by the reference where they have none: under a mask, and without elements."""

import functools
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend
from bnkit.reference import (
    BackwardArguments,
    BatchNormBackward,
    BatchNormTrain,
    GradientSumsArguments,
    InferenceArguments,
    Moments,
    MomentsArguments,
    StepArguments,
    TrainArguments,
    pack_bits,
)

from . import batch_norm, flags, optimizer
from .launch import STORED, Launcher, blocks_for
from .plan import THREADS, WARP

_MOST_BLOCKS = 2**31 - 1  # of a grid
_WARPS = THREADS // WARP
_DRAWN_AT_ONCE = 4


class KernelOps(Backend):
    """A backend whose arrays the kernels take; a subclass makes the `launcher`."""

    @functools.cached_property
    def launcher(self) -> Launcher:
        raise NotImplementedError

    def batch_norm_moments(self, args: MomentsArguments) -> Moments:
        if args.mask is not None or not self._fuses(args.x):
            return super().batch_norm_moments(args)
        return batch_norm.moments(self.launcher, args)

    def batch_norm_train(self, args: TrainArguments) -> BatchNormTrain:
        if args.mask is not None or not self._fuses(args.x):
            return super().batch_norm_train(args)
        return batch_norm.train(self.launcher, args)

    def batch_norm_inference(self, args: InferenceArguments) -> tuple[Array, Array | None]:
        if not self._fuses(args.x):
            return super().batch_norm_inference(args)
        return batch_norm.inference(self.launcher, args)

    def batch_norm_gradient_sums(self, args: GradientSumsArguments) -> tuple[Array, Array]:
        if args.mask is not None or not self._fuses(args.x, args.active):
            return super().batch_norm_gradient_sums(args._replace(active=self._reference_bits(args.active, args.x)))
        return batch_norm.gradient_sums(self.launcher, args)

    def batch_norm_backward(self, args: BackwardArguments) -> BatchNormBackward:
        if args.mask is not None or not self._fuses(args.x, args.active):
            return super().batch_norm_backward(args._replace(active=self._reference_bits(args.active, args.x)))
        return batch_norm.backward(self.launcher, args)

    def softmax_cross_entropy(self, logits: Array, target: Array) -> tuple[Array, Array]:
        kind, xp = target.dtype.kind, self.xp
        if not self._fuses(logits) or not (kind in "iu" or target.dtype.name in ("float32", "float64")):
            return super().softmax_cross_entropy(logits, target)
        dtype, labels = logits.dtype.name, kind in "iu"
        wide = np.int64 if labels else np.float64 if dtype == "float64" else np.float32
        *leading, rows, classes = logits.shape
        entries = int(np.prod(leading, dtype=np.int64))
        shared = target.ndim == (1 if labels else 2)
        z = self.launcher.argument("logits", xp.ascontiguousarray(logits), dtype, logits.shape)
        target_shape = (*([] if shared else leading), rows, *([] if labels else [classes]))
        t = xp.ascontiguousarray(target, dtype=wide)
        t = self.launcher.argument("target", t, np.dtype(wide).name, target_shape)
        gradient = self.launcher.empty(logits.shape, logits.dtype)
        row_losses = self.launcher.empty((entries * rows,), np.float64)
        losses = self.launcher.empty(leading, np.float64)
        sizes = map(np.int64, (entries, rows, classes))
        arguments = (z, t if labels else None, None if labels else t, gradient, row_losses, *sizes, np.int32(shared))
        name = f"bnkit::softmax<{STORED[dtype]}>"
        self.launcher(name, blocks_for(entries * rows, _WARPS), arguments, dtype=dtype)
        mean = (row_losses, losses, np.int64(rows))
        self.launcher("bnkit::mean_loss", entries, mean, dtype=dtype, file="softmax")
        return losses, gradient

    def optimizer_step(self, args: StepArguments) -> None:
        if optimizer.takes(args):
            optimizer.step(self.launcher, args)
        else:
            super().optimizer_step(args)

    def _draw(self, seeds: np.ndarray, layer: int, step: int, size: int) -> Array:
        drawn: Any = self.launcher.empty((len(seeds), size), np.float32)
        words = (layer, step & 0xFFFFFFFF, step >> 32)
        for seed, entry in zip(seeds.tolist(), drawn):  # as scalars: no copy to the device
            if size == 0:
                continue
            key = (seed & 0xFFFFFFFF, seed >> 32)
            arguments = (entry, np.int64(size), *map(np.uint32, (*key, *words)))
            self.launcher("bnkit::uniform", blocks_for(size, _DRAWN_AT_ONCE * THREADS), arguments)
        return drawn

    def _fuses(self, x: Array, active: Array | None = None) -> bool:
        """Whether the kernels take x, and the bits: those of the reference are bytes, and theirs are words."""
        if x.dtype.name not in STORED or not 0 < x.size <= _MOST_BLOCKS:
            return False
        return active is None or active.dtype == np.uint32

    def _reference_bits(self, active: Array | None, x: Array) -> Array | None:
        if active is None or active.dtype != np.uint32:
            return active
        return pack_bits(self.xp, flags.unpacked(self.xp, active, tuple(x.shape), x.dtype.itemsize))
