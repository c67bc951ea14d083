"""Folding: batch norm in inference is y = scale * x + shift, which an adjacent linear map or convolution can include.

The arithmetic is float64 with one rounding at the end. Source: Jacob et al. 2018, section 3.2.
"""

import copy
from collections.abc import Sequence
from typing import Any

from bnkit.backend import Array, checks
from bnkit.backend.layout import is_int
from bnkit.backend.messages import shown
from bnkit.nn.activation import ReLU
from bnkit.nn.batch_norm import BatchNorm
from bnkit.nn.layer import Layer, computes_as, leaves, optional, replace
from bnkit.nn.linear import Linear
from bnkit.nn.mlp import MLP
from bnkit.nn.sequential import Sequential
from bnkit.reference import quiet, reciprocal_std

Affine = tuple[Array, Array]  # scale and shift of each channel, float64


def fold(model: MLP | Sequential) -> MLP | Sequential:
    """A network without batch norm that computes the same inference as `model`. The fold of an MLP is an MLP.

    A BatchNorm is folded into the Linear before it, else into the Linear after it. Between them there may only be other
    BatchNorms and layers that inference skips, such as Dropout. The ReLU of BatchNorm(activation="relu") becomes a
    layer. The arrays are new and have the dtype of the weights; other layers are copied. Use the result for inference
    only: it trains differently.

    The results agree up to the rounding of terms as large as weight * x * scale and mean * scale. These are larger than
    y if the running variance is far below the square of the mean.

    Raises TypeError for another model, ValueError for a BatchNorm without running statistics, without such a Linear, or
    over another axis than the features of a Linear.

        >>> model = bnkit.MLP((64, 20, 10), seed=0)
        >>> sorted(bnkit.fold(model).params)
        ['0.bias', '0.weight', '2.bias', '2.weight']
    """
    if isinstance(model, MLP):
        config = {**model.config, "batch_norm": False, "bias": True}
        folded = MLP(**config, backend=model.backend)
        params = folded.params
        for name, array in _folded(model.network).params.items():
            params[name][...] = array
        return folded
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be an MLP or a Sequential, got {shown(model)}; for arrays use fold_weights")
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
    """The weight and bias of a linear map or convolution that includes the batch norm after or `before` it.

    weight: (O, I, kH, kW) of a convolution, or any shape with the outputs on output_axis and the inputs on input_axis;
    a Linear needs output_axis=1, input_axis=0. bias: (O,), or None for zeros. The results are new arrays in the dtype
    of weight.
    gamma, beta (or None), running_mean, running_var, eps: as for `bnkit.batch_norm`. Their shape is (O,) for a batch
    norm after the map, which may be a grouped convolution, and (I,) for one before the map.

    before=True does not support grouped convolutions. It is exact only without padding, because batch norm does not map
    padded zeros to zeros, so it requires padding=0 as an explicit argument.
    Raises TypeError for mixed backends and wrong dtypes, ValueError for wrong shapes.

        >>> weight, gamma = np.ones((1, 3), np.float32), np.array([2.0], np.float32)
        >>> mean, var = np.array([5.0], np.float32), np.array([4.0], np.float32)
        >>> weight, bias = bnkit.fold_weights(weight, None, gamma, None, mean, var, eps=0.0)
        >>> weight.ravel(), bias
        (array([1., 1., 1.], dtype=float32), array([-5.], dtype=float32))
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
        paddings = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,)
        if not paddings or not all(is_int(p) and p == 0 for p in paddings):
            raise ValueError(
                f"padding must be an explicit 0 with before=True, got {shown(padding)}; batch norm does not "
                f"map padded zeros to zeros: fold it into the layer before it instead"
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
    """New layers, in one pass. `pending` is a batch norm without a Linear before it, for the next Linear."""
    layers: list[Layer | _WideLinear] = []
    pending: Affine | None = None
    replicated = False  # whether the data are (replicas, rows, features) here
    for layer in leaves(network):
        if computes_as(layer, BatchNorm):
            linear = None if pending is not None else _last_linear(layers)
            scale, shift = _of_layer(layer, replicated)
            if linear is not None:
                linear.scale_outputs(scale, shift)
            elif layer.activation is not None:
                raise ValueError(_refusal('with activation="relu" must follow a Linear'))
            else:
                pending = (scale, shift) if pending is None else (pending[0] * scale, pending[1] * scale + shift)
            if layer.activation is not None:
                layers.append(ReLU())
        elif computes_as(layer, Linear):
            linear = _WideLinear(layer)
            layers.append(linear)
            replicated = replicated or layer.params["weight"].ndim > 2
            if pending is not None:
                linear.scale_inputs(*pending)
                pending = None
        elif pending is not None and not optional(layer, "identity_in_inference"):
            raise ValueError(_refusal(f"must be next to a Linear, got {type(layer).__name__} after it and none before"))
        else:
            layers.append(copy.deepcopy(layer))
    if pending is not None:
        raise ValueError(_refusal("must be next to a Linear, got none"))
    return Sequential(*(layer.rounded() if isinstance(layer, _WideLinear) else layer for layer in layers))


class _WideLinear:
    """A Linear in float64, for folding before it is rounded."""

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
        dtype = self._layer.params["weight"].dtype
        params = {"weight": self._xp.astype(self._weight, dtype), "bias": self._xp.astype(self._bias, dtype)}
        return replace(self._layer, params=params, state={})

    def _check(self, scale: Array, features: int, side: str) -> None:
        checks.common_backend(weight=self._weight, gamma=scale)
        allowed = {(features,), (*self._weight.shape[:-2], features)}
        if tuple(scale.shape) not in allowed:
            raise ValueError(
                f"a BatchNorm must have as many features as the adjacent Linear has {side}, "
                f"{' or '.join(map(str, sorted(allowed)))}, got {tuple(scale.shape)}; fold cannot leave it out"
            )


def _last_linear(layers: Sequence[Layer | _WideLinear]) -> _WideLinear | None:
    """The last Linear, if inference applies nothing after it."""
    for layer in reversed(layers):
        if isinstance(layer, _WideLinear):
            return layer
        if not optional(layer, "identity_in_inference"):
            return None
    return None


def _of_layer(layer: BatchNorm, replicated: bool) -> Affine:
    """The scale and shift of a BatchNorm over the features of (rows, features) or (replicas, rows, features)."""
    if not layer.state:
        raise ValueError(
            _refusal("must have running statistics, got track=False, so that inference depends on the batch")
        )
    axes = tuple(layer.axis) if isinstance(layer.axis, (tuple, list)) else (layer.axis,)
    legal: list[tuple[int, ...]] = [(-1,), (2,), (0, 2), (2, 0), (0, -1), (-1, 0)]
    if axes not in legal and (replicated or axes != (1,)):
        raise ValueError(_refusal(f"must be over the features of (…, rows, features), got axis={layer.axis!r}"))
    params, mean = layer.params or layer.frozen, layer.state["running_mean"]
    xp = checks.common_backend(running_mean=mean).xp
    return _affine(xp, params.get("gamma"), params.get("beta"), mean, layer.state["running_var"], float(layer.eps))


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


def _refusal(what: str) -> str:
    return f"a BatchNorm {what}; fold cannot leave it out"
