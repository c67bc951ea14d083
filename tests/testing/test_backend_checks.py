"""The conformance suite: every backend passes it, and every class of mistake is caught."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bnkit
from bnkit import reference, testing
from bnkit.backend import Backend
from bnkit.reference import (
    BackwardArguments,
    BatchNormBackward,
    BatchNormTrain,
    InferenceArguments,
    Moments,
    MomentsArguments,
    StepArguments,
    TrainArguments,
)
from bnkit_numpy import NumpyBackend

CHECKS = testing.backend_checks()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_backend_passes(check: testing.Check, backend: Backend) -> None:
    check(backend)


def test_every_check_says_what_it_holds() -> None:
    assert all(check.__doc__ for check in CHECKS)
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS)


def test_a_required_backend_that_cannot_run_fails_and_is_not_skipped() -> None:
    if bnkit.backends()["cupy"].usable:
        pytest.skip("CuPy can run here")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        __file__,
        "-k",
        "cupy and uniform_is_philox",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for required, code in (("cupy", 1), ("", 0)):
        done = subprocess.run(command, env={**environment, "BNKIT_REQUIRE": required}, capture_output=True, check=False)
        assert done.returncode == code, done.stdout.decode()


train = functools.partial(reference.batch_norm_train, np)
infer = functools.partial(reference.batch_norm_inference, np)
moments = functools.partial(reference.batch_norm_moments, np)
sums = functools.partial(reference.batch_norm_gradient_sums, np)
backward = functools.partial(reference.batch_norm_backward, np)
steps = functools.partial(reference.optimizer_step, np)


def output_by(args: TrainArguments, mean: Any, var: Any) -> Any:
    """The y that these statistics give."""
    rest = args.eps, args.residual, args.activation, args.out
    return infer(InferenceArguments(args.x, args.gamma, args.beta, mean, var, *rest))[0]


def unstable_moments(self: Backend, args: MomentsArguments) -> Moments:
    x = args.x
    if args.mask is not None or x.dtype != np.float32:
        return moments(args)
    n = np.float32(x.shape[1] * x.shape[3])
    mean = x.sum(axis=(1, 3)) / n
    var = np.maximum((x**2).sum(axis=(1, 3)) / n - mean**2, 0)
    return Moments(*(a.astype(np.float64) for a in (np.full_like(mean, n), mean, var * n)))


def unstable_train(self: Backend, args: TrainArguments) -> BatchNormTrain:
    with np.errstate(all="ignore"):
        result = train(args)
        if args.mask is not None or 0 in args.x.shape:
            return result
        unstable = unstable_moments(self, MomentsArguments(args.x))
        return result._replace(y=output_by(args, unstable.mean, unstable.m2 / unstable.count), moments=unstable)


def unbiased_train(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    if args.mask is not None or args.x.shape[1] * args.x.shape[3] < 2:
        return result
    var = reference.variance(np, result.moments, 1)
    return result._replace(y=output_by(args, result.moments.mean, var))


def moves_without_elements(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    if args.running_mean is not None:
        args.running_mean[...] = np.where(result.moments.count > 0, args.running_mean, 0)
    return result


def writes_x(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    args.x[...] = result.y
    return result


def leaks_nan(self: Backend, args: TrainArguments) -> BatchNormTrain:
    x, result = args.x, train(args)
    return result._replace(y=result.y + 0 * x.sum(axis=2, keepdims=True, dtype=np.float64).astype(x.dtype))


def hides_nan(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    return result._replace(y=np.nan_to_num(result.y))


def drops_the_tail(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    result.y[:, args.x.shape[1] // 8 * 8 :, :, :] *= 0.5
    return result


def first_group_for_all(self: Backend, args: TrainArguments) -> BatchNormTrain:
    gamma = args.gamma
    return train(args._replace(gamma=gamma if gamma is None else np.broadcast_to(gamma[:1], gamma.shape)))


def any_order(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    return result._replace(y=(result.y * (1 + ORDER.normal() * 4e-7)).astype(args.x.dtype))


ORDER = np.random.default_rng()  # what threads in no fixed order do: not the same twice


def gate_of_the_wider_value(self: Backend, args: BackwardArguments) -> BatchNormBackward:
    result = backward(args._replace(dy=args.dy.astype(np.float64), x=args.x.astype(np.float64)))
    stored = (None if a is None else a.astype(args.x.dtype) for a in (result.dx, result.dresidual))
    return result._replace(dx=next(stored), dresidual=next(stored))


def scale_of_the_dtype(self: Backend, args: TrainArguments) -> BatchNormTrain:
    x, result = args.x, train(args)
    with np.errstate(all="ignore"):
        scale, shift = (a.astype(x.dtype)[:, None, :, None] for a in (result.rstd * args.gamma, args.beta))
        y = (x - result.moments.mean.astype(x.dtype)[:, None, :, None]) * scale + shift
    return result._replace(y=y)


def squares_as_they_are(self: Backend, args: TrainArguments) -> BatchNormTrain:
    result = train(args)
    var = reference.variance(np, result.moments, 0)
    return result._replace(y=output_by(args, result.moments.mean, var))


def swapped(self: Backend, args: BackwardArguments) -> BatchNormBackward:
    result = backward(args)
    return result._replace(dgamma=result.dbeta, dbeta=result.dgamma)


def dresidual_before_relu(self: Backend, args: BackwardArguments) -> BatchNormBackward:
    dy_before = args.dy.copy()
    result = backward(args)
    return result if result.dresidual is None else result._replace(dresidual=dy_before)


def dx_over_dy_first(self: Backend, args: BackwardArguments) -> BatchNormBackward:
    if args.out is args.dy:
        args.dy[...] = args.dy * 0.5
    return backward(args)


def wide_dx(self: Backend, args: BackwardArguments) -> BatchNormBackward:
    result = backward(args)
    return result if args.out is not None else result._replace(dx=result.dx.astype(np.float64))


def no_shift(self: Backend, logits: Any, target: Any) -> tuple[Any, Any]:
    with np.errstate(all="ignore"):
        p = np.exp(logits.astype(np.float64)).sum(axis=-1)
    loss, gradient = reference.softmax_cross_entropy(np, logits, target)
    return np.where(np.isinf(p).any(axis=-1), np.inf, loss), gradient


def first_for_all(self: Backend, a: Any, b: Any) -> Any:
    return np.matmul(a, b) if b.ndim < 3 else np.matmul(a, np.broadcast_to(b[:1], b.shape))


def without_nan(self: Backend, a: Any, b: Any) -> Any:
    return np.matmul(a, np.where(np.isfinite(b), b, 0))


def summed_loss(self: Backend, logits: Any, target: Any) -> tuple[Any, Any]:
    loss, gradient = reference.softmax_cross_entropy(np, logits, target)
    return loss * logits.shape[-2], gradient


def own_generator(self: Backend, key: Any, shape: Any) -> Any:
    return np.random.default_rng(key[1:]).random(shape, np.float32)


def first_seed_for_all(self: Backend, key: Any, shape: Any) -> Any:
    seeds = key[0]
    if isinstance(seeds, int):
        return NumpyBackend.uniform(self, key, shape)
    return NumpyBackend.uniform(self, ([seeds[0]] * len(seeds), *key[1:]), shape)


def with_changed(op: Callable[[Any], Any], **changes: Any) -> Callable[..., Any]:
    """The reference op, but for these arguments, each a value or a function of the value."""

    def method(self: Backend, args: Any) -> Any:
        changed = {name: c(getattr(args, name)) if callable(c) else c for name, c in changes.items()}
        return op(args._replace(**changed))

    return method


def all_but_the_last_row(op: Callable[[Any], Any]) -> Callable[..., Any]:
    """Returns `out`, and has not written all of it."""

    def method(self: Backend, args: Any) -> Any:
        last = None if args.out is None else args.out[:, -1:].copy()
        result = op(args)
        if args.out is not None:
            args.out[:, -1:] = last
        return result

    return method


def first_rate(lr: Any) -> float:
    return lr if isinstance(lr, float) else float(lr[0])


def rule_before_weight_decay(self: Backend, args: StepArguments) -> None:
    steps(args._replace(weight_decay=0.0))
    steps(StepArguments("sgd", args.p, 0 * args.g, (), args.lr, weight_decay=args.weight_decay))


def gradient_over_gradient(self: Backend, args: StepArguments) -> None:
    steps(args)
    args.g[...] *= 2


def flat_without_a_look(self: Backend, args: StepArguments) -> None:
    steps(args._replace(p=np.ascontiguousarray(args.p)))  # it copies what is not contiguous, and the copy moves


MOMENTS = "moments_are_those_of_the_reference"
FORWARD = "training_forward_and_backward_are_those_of_the_reference"
RUNNING = "running_statistics_move_as_in_the_reference"
INFER = "inference_and_its_backward_are_those_of_the_reference"
OUT = "out_is_returned_and_written_whole"
SUMS = "gradient_sums_are_those_of_the_reference_and_replace_those_of_a_part"
STEPS = "optimizer_steps_are_those_of_the_reference"
EMPTY = "a_channel_without_elements_gives_beta_and_moves_nothing"
RANGE = "values_at_the_ends_of_the_range_are_normalized"
CONSTANT = "a_constant_channel_gives_beta_though_gamma_over_std_overflows"
GATE = "the_relu_lets_through_where_y_is_stored_above_zero"
BACKWARD = "batch_norm_backward"
TRAIN = "batch_norm_train"

# what is wrong: (the method, what it is replaced by, the check that must see it)
MISTAKES: dict[str, tuple[str, Callable[..., Any], str]] = {
    "forgets the correction": (TRAIN, with_changed(train, correction=0), RUNNING),
    "reads decay as the new value's weight": (TRAIN, with_changed(train, decay=lambda d: 1 - d), RUNNING),
    "moves a channel without elements": (TRAIN, moves_without_elements, EMPTY),
    "takes E[x²] - m² in float32": (TRAIN, unstable_train, "a_large_mean_costs_no_precision"),
    "takes moments by E[x²] - m²": ("batch_norm_moments", unstable_moments, "a_large_mean_costs_no_precision"),
    "forgets the mask in moments": ("batch_norm_moments", with_changed(moments, mask=None), MOMENTS),
    "normalizes by the unbiased variance": (TRAIN, unbiased_train, FORWARD),
    "forgets eps": (TRAIN, with_changed(train, eps=1e-12), FORWARD),
    "ignores the mask": (TRAIN, with_changed(train, mask=None), FORWARD),
    "ignores the residual": (TRAIN, with_changed(train, residual=None), FORWARD),
    "ignores the activation": (TRAIN, with_changed(train, activation=None), FORWARD),
    "writes its input": (TRAIN, writes_x, "inputs_are_left_as_they_were"),
    "has gamma / std in the dtype of x": (TRAIN, scale_of_the_dtype, RANGE),
    "multiplies 0 by an infinite gamma / std": (TRAIN, scale_of_the_dtype, CONSTANT),
    "lets squares overflow": (TRAIN, squares_as_they_are, RANGE),
    "leaks NaN between channels": (TRAIN, leaks_nan, "nan_and_infinity_stay_in_their_channel"),
    "hides NaN": (TRAIN, hides_nan, "nan_and_infinity_stay_in_their_channel"),
    "drops the tail of a tile": (TRAIN, drops_the_tail, FORWARD),
    "takes one group's gamma for all": (TRAIN, first_group_for_all, FORWARD),
    "adds in any order": (TRAIN, any_order, "the_same_call_gives_the_same_bits"),
    "ignores out in training": (TRAIN, with_changed(train, out=None), OUT),
    "leaves a row of out unwritten": (TRAIN, all_but_the_last_row(train), OUT),
    "ignores out in inference": ("batch_norm_inference", with_changed(infer, out=None), OUT),
    "leaves a row unwritten in inference": ("batch_norm_inference", all_but_the_last_row(infer), OUT),
    "forgets eps in inference": ("batch_norm_inference", with_changed(infer, eps=0.0), INFER),
    "ignores out in backward": (BACKWARD, with_changed(backward, out=None), OUT),
    "swaps dgamma and dbeta": (BACKWARD, swapped, FORWARD),
    "forgets the bits of residual + ReLU": (BACKWARD, with_changed(backward, active=None), FORWARD),
    "passes what was stored as 0": (BACKWARD, gate_of_the_wider_value, GATE),
    "passes dresidual by the ReLU": (BACKWARD, dresidual_before_relu, FORWARD),
    "ignores the mask in backward": (BACKWARD, with_changed(backward, mask=None), FORWARD),
    "ignores the summed sums": (BACKWARD, with_changed(backward, sums=None), SUMS),
    "differentiates running statistics": (BACKWARD, with_changed(backward, train=True, count=np.ones((1, 1))), INFER),
    "takes batch statistics for constants": (BACKWARD, with_changed(backward, train=False), FORWARD),
    "writes dx before it has read dy": (BACKWARD, dx_over_dy_first, "out_may_be_x_in_inference_and_dy_in_backward"),
    "widens dx": (BACKWARD, wide_dx, "results_have_the_dtype_of_x_and_parameters_at_least_float32"),
    "swaps the gradient sums": ("batch_norm_gradient_sums", lambda self, args: sums(args)[::-1], SUMS),
    "takes the first replica's matrix for all": ("matmul", first_for_all, "products_are_those_of_the_reference"),
    "leaves out zeros whatever they meet": ("matmul", without_nan, "zeros_in_a_product_hide_neither_infinity_nor_nan"),
    "overflows in softmax": ("softmax_cross_entropy", no_shift, "softmax_cross_entropy_is_that_of_the_reference"),
    "sums the loss": ("softmax_cross_entropy", summed_loss, "softmax_cross_entropy_is_that_of_the_reference"),
    "forgets the number of the step": ("optimizer_step", with_changed(steps, step=1), STEPS),
    "forgets eps in a step": ("optimizer_step", with_changed(steps, eps=0.0), STEPS),
    "forgets weight decay": ("optimizer_step", with_changed(steps, weight_decay=0.0), STEPS),
    "decays weights after the step": ("optimizer_step", rule_before_weight_decay, STEPS),
    "takes one replica's learning rate for all": ("optimizer_step", with_changed(steps, lr=first_rate), STEPS),
    "writes the gradient": (
        "optimizer_step",
        gradient_over_gradient,
        "optimizer_steps_leave_the_gradient_as_it_was",
    ),
    "moves a copy of a view": (
        "optimizer_step",
        flat_without_a_look,
        "optimizer_steps_write_views_and_what_lies_around_them_stays",
    ),
    "draws by another generator": ("uniform", own_generator, "uniform_is_philox"),
    "has one stream for all seeds": ("uniform", first_seed_for_all, "uniform_has_a_stream_of_its_own_for_each_seed"),
    "narrows what comes in": (
        "asarray",
        lambda self, a, dtype=None: np.asarray(a, np.float32 if np.asarray(a).dtype == np.float64 else dtype),
        "arrays_come_back_as_they_went",
    ),
    "sees no overlap": ("overlap", lambda self, a, b: False, "overlap_is_seen_where_a_write_shows"),
    "sees overlap everywhere": ("overlap", lambda self, a, b: True, "overlap_is_seen_where_a_write_shows"),
    "takes the last axis for channels": (
        "view",
        lambda self, x, axis: NumpyBackend.view(self, x, -1),
        "the_view_has_groups_rows_channels_and_inner",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_backend_with_this_mistake_does_not_pass(mistake: str) -> None:
    method, broken, name = MISTAKES[mistake]
    (check,) = (check for check in CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError, match=r"\w"):
        # over the reference ops, from which the broken ones are made
        check(type("BrokenBackend", (NumpyBackend,), {method: broken, "_fuses": lambda self, x: False})())
