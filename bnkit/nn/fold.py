"""Batch norm of inference, which is y = scale * x + shift, folded into the linear map or convolution beside it.

In float64, and rounded once. Source: Jacob et al. 2018, section 3.2 (the batch norm after the weights).
"""

import copy
from collections.abc import Sequence
from typing import Any

from bnkit.backend import Array, checks
from bnkit.backend.layout import is_int
from bnkit.backend.messages import shown
from bnkit.nn.activation import ReLU
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.dropout import Dropout
from bnkit.nn.linear import Linear
from bnkit.nn.mlp import MLP
from bnkit.nn.sequential import Sequential
from bnkit.nn.statistics import leaves
from bnkit.reference import quiet, reciprocal_std

Affine = tuple[Array, Array]  # scale and shift of each channel, float64


def fold(model: MLP | Sequential) -> MLP | Sequential:
    """A network without batch norm whose inference gives what that of `model` does; of an MLP, an MLP, which saves.

    A BatchNorm goes into the Linear before it, else into the Linear after it, where nothing but BatchNorm and Dropout,
    which inference does not see, stands between; its own ReLU becomes a layer. The arrays are new ones, in the dtype of
    the weights; other layers are copied. To train the result is to train another network than `model`.

    The results agree to roundings of sums of the size of weight * x * scale and mean * scale: a running variance far
    below the square of its mean makes those larger than y.

    Raises TypeError for another model, ValueError for a BatchNorm without running statistics, without such a Linear, or
    not over the features of one.
    """
    if isinstance(model, MLP):
        config = {**model.config, "batch_norm": False, "bias": True}
        folded = MLP(**config, backend=model.backend)
        own = folded.params
        for name, array in _folded(model.network).params.items():
            own[name][...] = array
        return folded
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be an MLP or a Sequential, got {shown(model)}; for arrays take fold_weights")
    return _folded(model)


@quiet
def fold_weights(
    weight: Array,
    bias: Array | None,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array,
    running_var: Array,
    *,
    eps: float = 1e-5,
    output_axis: int = 0,
    input_axis: int = 1,
    before: bool = False,
    padding: int | Sequence[int] | None = None,
) -> tuple[Array, Array]:
    """The weight and bias of a linear map or convolution that does its neighbouring batch norm of inference too.

    weight: (O, I, kH, kW) of a convolution, or any shape with output_axis and input_axis as given: (inputs, outputs) of
    a Linear is output_axis=1, input_axis=0. The results are new arrays in its dtype. bias: (O,), or None for zeros.
    gamma, beta (or None), running_mean, running_var and eps: those of `bnkit.batch_norm`; (O,) where it follows the
    map, with groups or without, and (I,) where it stands `before` it.

    before=True is exact only where the convolution pads nothing, for batch norm would have made of padded zeros no
    zeros; it takes the convolution's padding, which must be 0, to be said. Nor does it take grouped convolutions.
    Raises TypeError for mixed backends and wrong dtypes, ValueError for wrong shapes.
    """
    checks.check_bool("before", before)
    checks.check_real("eps", eps, least=0.0)
    named = {"weight": weight, "bias": bias, "gamma": gamma, "beta": beta}
    named |= {"running_mean": running_mean, "running_var": running_var}
    xp = checks.common_backend(**named).xp
    for name, array in named.items():
        if array is not None:
            checks.check_data(name, array)
    if running_mean is None or running_var is None:
        absent = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{absent} must be an array, got None; inference needs running statistics")
    outputs, inputs = _axis("output_axis", output_axis, weight), _axis("input_axis", input_axis, weight)
    if outputs == inputs:
        raise ValueError(f"output_axis and input_axis must differ, got {output_axis} and {input_axis}")
    channels = weight.shape[inputs if before else outputs]
    for name, array in named.items():
        expected = weight.shape[outputs] if name == "bias" else channels
        if name != "weight" and array is not None and tuple(array.shape) != (expected,):
            raise ValueError(f"{name} must have shape ({expected},), got {tuple(array.shape)}")
    if before:
        given = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,)
        if not given or not all(is_int(p) and p == 0 for p in given):
            raise ValueError(
                f"padding must be 0, and said to be, with before=True, got {shown(padding)}; batch norm does not "
                f"keep the zeros that are padded after it: fold it into the layer before instead"
            )
    scale, shift = _affine(xp, gamma, beta, running_mean, running_var, float(eps))
    along = tuple(-1 if a == (inputs if before else outputs) else 1 for a in range(weight.ndim))
    wide = xp.astype(weight, xp.float64)
    rest = tuple(a for a in range(weight.ndim) if a != outputs)
    old = xp.zeros_like(xp.sum(wide, axis=rest)) if bias is None else xp.astype(bias, xp.float64)
    new = old + xp.sum(wide * xp.reshape(shift, along), axis=rest) if before else old * scale + shift
    return xp.astype(wide * xp.reshape(scale, along), weight.dtype), xp.astype(new, weight.dtype)


@quiet
def _folded(network: Sequential) -> Sequential:
    """New layers, by one walk; `pending` is the batch norm that waits for the Linear after it."""
    layers: list[Any] = []
    pending: Affine | None = None
    replicated = False  # whether data are (replicas, rows, features) by now
    for layer in leaves(network):
        if isinstance(layer, BatchNorm):
            linear = None if pending is not None else _last_linear(layers)
            scale, shift = _of_layer(layer, replicated)
            if linear is not None:
                linear.scale_outputs(scale, shift)
            elif layer.activation is not None:
                raise ValueError(_alone("with a ReLU of its own must follow a Linear"))
            else:
                pending = (scale, shift) if pending is None else (pending[0] * scale, pending[1] * scale + shift)
            if layer.activation is not None:
                layers.append(ReLU())
        elif type(layer) is Linear:
            layers.append(_Wide(layer))
            replicated = replicated or layer.params["weight"].ndim > 2
            if pending is not None:
                layers[-1].scale_inputs(*pending)
                pending = None
        elif pending is not None and not isinstance(layer, Dropout):
            raise ValueError(_alone(f"must stand beside a Linear, got {type(layer).__name__} after it and none before"))
        else:
            layers.append(copy.deepcopy(layer))
    if pending is not None:
        raise ValueError(_alone("must stand beside a Linear, got none"))
    return Sequential(*(layer.rounded() if isinstance(layer, _Wide) else layer for layer in layers))


class _Wide:
    """A Linear in float64, which takes the batch norms beside it in before it is rounded."""

    def __init__(self, layer: Linear) -> None:
        self._layer = layer
        self._xp = xp = checks.common_backend(weight=layer.params["weight"]).xp
        self._weight = xp.astype(layer.params["weight"], xp.float64)
        bias = layer.params.get("bias")
        self._bias = xp.zeros_like(self._weight[..., 0, :]) if bias is None else xp.astype(bias, xp.float64)

    def scale_outputs(self, scale: Array, shift: Array) -> None:
        self._check(scale, self._weight.shape[-1], "outputs")
        self._weight = self._weight * scale[..., None, :]
        self._bias = self._bias * scale + shift

    def scale_inputs(self, scale: Array, shift: Array) -> None:
        self._check(scale, self._weight.shape[-2], "inputs")
        self._bias = self._bias + self._xp.sum(shift[..., :, None] * self._weight, axis=-2)
        self._weight = self._weight * scale[..., :, None]

    def rounded(self) -> Linear:
        layer, dtype = copy.copy(self._layer), self._layer.params["weight"].dtype
        layer.params = {name: self._xp.astype(a, dtype) for name, a in (("weight", self._weight), ("bias", self._bias))}
        layer.state = {}
        return layer

    def _check(self, scale: Array, features: int, side: str) -> None:
        checks.common_backend(weight=self._weight, gamma=scale)
        allowed = {(features,), (*self._weight.shape[:-2], features)}
        if tuple(scale.shape) not in allowed:
            raise ValueError(
                f"a BatchNorm must have the {side} of the Linear beside it for features, "
                f"{' or '.join(map(str, sorted(allowed)))}, got {tuple(scale.shape)}"
            )


def _last_linear(layers: list[Any]) -> _Wide | None:
    """The Linear whose outputs a batch norm is given next."""
    last = next((layer for layer in reversed(layers) if not isinstance(layer, Dropout)), None)
    return last if isinstance(last, _Wide) else None


def _of_layer(layer: BatchNorm, replicated: bool) -> Affine:
    """Of a layer over the features of (rows, features) or (replicas, rows, features)."""
    if not layer.state:
        raise ValueError(_alone("must have running statistics, got track=False; its inference depends on the batch"))
    axes = tuple(layer.axis) if isinstance(layer.axis, (tuple, list)) else (layer.axis,)
    legal: list[tuple[int, ...]] = [(-1,), (2,), (0, 2), (2, 0), (0, -1), (-1, 0)]
    if axes not in legal and (replicated or axes != (1,)):
        raise ValueError(_alone(f"must be over the features of its (…, rows, features) data, got axis={layer.axis!r}"))
    params, state = layer.params or layer.frozen, layer.state
    given = (params.get("gamma"), params.get("beta"), state["running_mean"], state["running_var"])
    return _affine(checks.common_backend(running_mean=given[2]).xp, *given, float(layer.eps))


def _affine(
    xp: Any, gamma: Array | None, beta: Array | None, running_mean: Array, running_var: Array, eps: float
) -> Affine:
    scale = reciprocal_std(xp, running_var, eps)
    if gamma is not None:
        scale = scale * xp.astype(gamma, xp.float64)
    shift = -xp.astype(running_mean, xp.float64) * scale
    return scale, shift if beta is None else shift + xp.astype(beta, xp.float64)


def _axis(name: str, axis: int, weight: Array) -> int:
    if not is_int(axis):
        raise TypeError(f"{name} must be an int, got {shown(axis)}")
    if not -weight.ndim <= axis < weight.ndim:
        raise ValueError(f"{name} must lie within the {weight.ndim} axes of weight, got {axis}")
    return int(axis) % int(weight.ndim)


def _alone(what: str) -> str:
    return f"a BatchNorm {what}; fold cannot leave it out"
