"""A backend's ops by the kernels, and by the reference where they have none: under a mask, and without elements."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bnkit.backend import Array, Backend
from bnkit.reference import BatchNormBackward, BatchNormTrain, Moments, pack_bits

from . import batch_norm, flags, optimizer
from .launch import STORED, Launcher, blocks_for
from .plan import THREADS, WARP

_MOST_BLOCKS = 2**31 - 1  # of a grid
_WARPS = THREADS // WARP
_DRAWN_AT_ONCE = 4


class KernelOps(Backend):
    """A backend whose arrays the kernels take; `launcher` is set by the subclass."""

    launcher: Launcher

    # The base class leaves the options to the reference; they are those of the table in backends/README.md.
    def batch_norm_moments(self, x: Array, *, mask: Array | None = None) -> Moments:  # type: ignore[override]
        if mask is not None or not self._fuses(x):
            return super().batch_norm_moments(x, mask=mask)
        return batch_norm.moments(self.launcher, x)

    def batch_norm_train(  # type: ignore[override]
        self,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        running_mean: Array | None,
        running_var: Array | None,
        *,
        decay: float,
        eps: float,
        correction: int,
        mask: Array | None = None,
        residual: Array | None = None,
        activation: str | None = None,
        out: Array | None = None,
    ) -> BatchNormTrain:
        arrays = (x, gamma, beta, running_mean, running_var)
        options: dict[str, Any] = {"decay": decay, "eps": eps, "correction": correction}
        options |= {"residual": residual, "out": out}
        if mask is not None or not self._fuses(x):
            return super().batch_norm_train(*arrays, mask=mask, activation=activation, **options)
        return batch_norm.train(self.launcher, *arrays, relu=activation is not None, **options)

    def batch_norm_inference(  # type: ignore[override]
        self,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        var: Array,
        *,
        eps: float,
        residual: Array | None = None,
        activation: str | None = None,
        out: Array | None = None,
    ) -> tuple[Array, Array | None]:
        arrays = (x, gamma, beta, mean, var)
        options: dict[str, Any] = {"eps": eps, "residual": residual, "out": out}
        if not self._fuses(x):
            return super().batch_norm_inference(*arrays, activation=activation, **options)
        return batch_norm.inference(self.launcher, *arrays, relu=activation is not None, **options)

    def batch_norm_gradient_sums(  # type: ignore[override]
        self,
        dy: Array,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        rstd: Array,
        *,
        mask: Array | None = None,
        activation: str | None = None,
        active: Array | None = None,
    ) -> tuple[Array, Array]:
        arrays = (dy, x, gamma, beta, mean, rstd)
        if mask is not None or not self._fuses(x, active):
            options = {"mask": mask, "activation": activation, "active": self._plain_bits(active, x)}
            return super().batch_norm_gradient_sums(*arrays, **options)
        return batch_norm.gradient_sums(self.launcher, *arrays, relu=activation is not None, active=active)

    def batch_norm_backward(  # type: ignore[override]
        self,
        dy: Array,
        x: Array,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        rstd: Array,
        *,
        train: bool,
        count: Array = None,
        sums: tuple[Array, Array] | None = None,
        mask: Array | None = None,
        activation: str | None = None,
        active: Array | None = None,
        residual: bool = False,
        out: Array | None = None,
    ) -> BatchNormBackward:
        arrays = (dy, x, gamma, beta, mean, rstd)
        options: dict[str, Any] = {"train": train, "count": count, "sums": sums, "residual": residual, "out": out}
        if mask is not None or not self._fuses(x, active):
            options |= {"mask": mask, "activation": activation, "active": self._plain_bits(active, x)}
            return super().batch_norm_backward(*arrays, **options)
        return batch_norm.backward(self.launcher, *arrays, relu=activation is not None, active=active, **options)

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

    def optimizer_step(  # type: ignore[override]
        self,
        rule: str,
        p: Array,
        g: Array,
        memory: Sequence[Array],
        lr: Array | float,
        *,
        decays: Sequence[float] = (),
        eps: float = 0.0,
        weight_decay: float = 0.0,
        step: int = 1,
    ) -> None:
        arrays = (rule, p, g, memory, lr)
        settings: dict[str, Any] = {"decays": decays, "eps": eps, "weight_decay": weight_decay, "step": step}
        if optimizer.takes(*arrays, decays):
            optimizer.step(self.launcher, *arrays, **settings)
        else:
            super().optimizer_step(*arrays, **settings)

    def _draw(self, seeds: np.ndarray, layer: int, step: int, size: int) -> Array:
        drawn = self.launcher.empty((len(seeds), size), np.float32)
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

    def _plain_bits(self, active: Array | None, x: Array) -> Array | None:
        if active is None or active.dtype != np.uint32:
            return active
        return pack_bits(self.xp, flags.unpacked(self.xp, active, tuple(x.shape), x.dtype.itemsize))
