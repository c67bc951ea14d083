"""Checks of the batch-norm ops."""

from typing import Any

import numpy as np

from bnkit import reference
from bnkit.backend import Array, Backend
from bnkit.testing.cases import (
    EPS,
    OPTIONS,
    SHAPES,
    SMALL,
    TOLERANCE,
    Host,
    Options,
    Oracle,
    away_from_kink,
    cases,
    compare,
    compare_backward,
    dtypes,
    make_data,
    on_both,
    run_ops,
    sum_tolerance,
    to_oracle,
    widen,
)


def moments_are_those_of_the_reference(backend: Backend) -> None:
    """Count, mean and squared distances, with and without a mask."""
    for label, data in cases(backend):
        for mask in (None, data.mask):
            got = backend.batch_norm_moments(
                reference.MomentsArguments(
                    backend.asarray(data.x), mask=None if mask is None else backend.asarray(mask)
                )
            )
            want = reference.batch_norm_moments(np, reference.MomentsArguments(widen(data.x), mask=mask))
            for name, g, w in zip(want._fields, got, want):
                compare(f"{name} of {label}", backend, g, w, sum_tolerance(data.x.dtype, data.x.shape[1]))


def training_forward_and_backward_are_those_of_the_reference(backend: Backend) -> None:
    """y, dx, dgamma, dbeta, dresidual with every option."""
    for label, data, got, want in on_both(backend, train=True):
        compare(f"y of {label}", backend, got.y, want.y, TOLERANCE[data.x.dtype.name])
        compare_backward(label, backend, data, got, want)


def inference_and_its_backward_are_those_of_the_reference(backend: Backend) -> None:
    """The running statistics are constants."""
    for label, data, got, want in on_both(backend, train=False):
        compare(f"y of {label}", backend, got.y, want.y, TOLERANCE[data.x.dtype.name])
        compare_backward(label, backend, data, got, want)


def out_is_returned_and_written_whole(backend: Backend) -> None:
    """Forward, inference and backward into memory full of NaN."""
    for train in (True, False):
        for label, data, got, want in on_both(backend, train=train, shapes=SMALL, out=True):
            compare(f"y of {label}", backend, got.y, want.y, TOLERANCE[data.x.dtype.name])
            compare_backward(label, backend, data, got, want)


def out_may_be_x_in_inference_and_dy_in_backward(backend: Backend) -> None:
    """The two cases in which an op writes over what it reads."""
    for label, data in cases(backend, SMALL):
        gamma, beta = backend.asarray(data.gamma), backend.asarray(data.beta)
        running_mean, running_var = backend.asarray(data.running_mean), backend.asarray(data.running_var)
        x, dy = backend.asarray(data.x.copy()), backend.asarray(data.dy.copy())
        want = run_ops(Oracle(), to_oracle, data, Options(), train=False)
        y, _ = backend.batch_norm_inference(
            reference.InferenceArguments(x, gamma, beta, running_mean, running_var, eps=EPS, out=x)
        )
        compare(f"y over x of {label}", backend, y, want.y, TOLERANCE[data.x.dtype.name])
        x, mean, rstd = (backend.asarray(a) for a in (data.x, want.mean, want.rstd))
        dx = backend.batch_norm_backward(
            reference.BackwardArguments(dy, x, gamma, beta, mean, rstd, train=False, out=dy)
        ).dx
        compare(f"dx over dy of {label}", backend, dx, want.backward.dx, TOLERANCE[data.x.dtype.name])


def running_statistics_move_as_in_the_reference(backend: Backend) -> None:
    """In place, for any decay and both corrections, by the unmasked elements."""
    for label, data in cases(backend):
        for decay in (0.9, 0.0, 1.0, -0.2):
            for correction in (0, 1):
                for mask in (None, data.mask):
                    running = (backend.asarray(data.running_mean.copy()), backend.asarray(data.running_var.copy()))
                    want = (widen(data.running_mean), widen(data.running_var))
                    masked = None if mask is None else backend.asarray(mask)
                    backend.batch_norm_train(
                        reference.TrainArguments(
                            backend.asarray(data.x), None, None, *running, decay, EPS, correction, masked
                        )
                    )
                    reference.batch_norm_train(
                        np, reference.TrainArguments(widen(data.x), None, None, *want, decay, EPS, correction, mask)
                    )
                    case = f"{label}, decay {decay}, correction {correction}, mask {mask is not None}"
                    for name, got, w in zip(("mean", "var"), running, want):
                        compare(f"running_{name} of {case}", backend, got, w, sum_tolerance(data.x.dtype))


def a_channel_without_elements_gives_beta_and_moves_nothing(backend: Backend) -> None:
    """Where the mask leaves nothing, or NaN lies under it; and dx is 0 there. One element moves only the mean."""
    for label, data in cases(backend, SMALL):
        if data.x.shape[2] == 1:
            continue
        mask, x = data.mask.copy(), data.x.copy()
        mask[:, :, 0] = False
        mask[:, :, 1] = False
        mask[:, :1, 1, :1] = True
        x[:, :1, 0] = np.nan
        parameters = (backend.asarray(data.gamma), backend.asarray(data.beta))
        mean, var = backend.asarray(data.running_mean.copy()), backend.asarray(data.running_var.copy())
        x_there, mask_there = backend.asarray(x), backend.asarray(mask)
        y, moments, rstd, _ = backend.batch_norm_train(
            reference.TrainArguments(x_there, *parameters, mean, var, 0.5, EPS, 1, mask=mask_there)
        )
        small = sum_tolerance(data.x.dtype)
        beta = np.broadcast_to(data.beta[:, None, :1, None], y[:, :, :1, :].shape).astype(data.x.dtype)
        compare(f"y of an empty channel, {label}", backend, y[:, :, :1, :], widen(beta), 0.0)
        compare(f"running_mean of it, {label}", backend, mean[:, :1], widen(data.running_mean[:, :1]), 0.0)
        compare(f"running_var of it, {label}", backend, var[:, :2], widen(data.running_var[:, :2]), 0.0)
        moved = 0.5 * widen(data.running_mean[:, 1]) + 0.5 * widen(x[:, 0, 1, 0])
        compare(f"running_mean of one element, {label}", backend, mean[:, 1], moved, small)
        arguments = (backend.asarray(data.dy), x_there, *parameters, moments.mean, rstd, True, moments.count)
        gradients = backend.batch_norm_backward(reference.BackwardArguments(*arguments, mask=mask_there))
        compare(f"dx of it, {label}", backend, gradients.dx[:, :, :1, :], np.zeros(y[:, :, :1, :].shape), 0.0)


def gradient_sums_are_those_of_the_reference_and_replace_those_of_a_part(backend: Backend) -> None:
    """What ranks add up: half the rows each give the gradient of the whole."""
    for label, data in cases(backend, SHAPES[3:6]):
        for options in OPTIONS:
            data = away_from_kink(data, options, True)
            whole = run_ops(Oracle(), to_oracle, data, options._replace(residual=False))
            if options.residual:
                continue
            gamma = backend.asarray(data.gamma) if options.gamma else None
            beta = backend.asarray(data.beta) if options.beta else None
            rest = (gamma, beta, backend.asarray(whole.mean), backend.asarray(whole.rstd))
            mask = data.mask if options.mask else np.ones_like(data.mask)
            count = backend.asarray(mask.sum(axis=(1, 3)).astype(np.float64))
            parts, cut = [], data.x.shape[1] // 2
            for rows in (slice(None, cut), slice(cut, None)):
                dy, x, of_rows = (backend.asarray(np.ascontiguousarray(a[:, rows])) for a in (data.dy, data.x, mask))
                ending = (of_rows if options.mask else None, options.activation)
                parts.append(reference.GradientSumsArguments(dy, x, *rest, *ending))
            by_part = [backend.batch_norm_gradient_sums(part) for part in parts]
            sums = (by_part[0][0] + by_part[1][0], by_part[0][1] + by_part[1][1])
            wide = (whole.backward.dbeta, whole.backward.dgamma)
            for name, got, want in zip(("dy", "dy * x_hat"), sums, wide):
                compare(f"sum of {name}, {label}", backend, got, want, sum_tolerance(data.x.dtype, data.x.shape[1]))
            dx = [
                backend.to_numpy(
                    backend.batch_norm_backward(
                        reference.BackwardArguments(*part[:6], True, count, sums, part.mask, part.activation)
                    ).dx
                )
                for part in parts
            ]
            scale = max(1.0, float(np.max(whole.rstd))) * TOLERANCE[data.x.dtype.name]
            joined = backend.asarray(np.concatenate(dx, axis=1))
            compare(f"dx from summed sums, {label}", backend, joined, whole.backward.dx, scale)


def results_have_the_dtype_of_x_and_parameters_at_least_float32(backend: Backend) -> None:
    """y, dx and dresidual are stored as x is; dgamma and dbeta are float32, or float64 for float64."""
    for label, data in cases(backend, SHAPES[3:4]):
        got = run_ops(backend, backend.asarray, data, Options(residual=True))
        small = data.gamma.dtype
        expected = (data.x.dtype, data.x.dtype, data.x.dtype, small, small)
        arrays = (got.y, got.backward.dx, got.backward.dresidual, got.backward.dgamma, got.backward.dbeta)
        dtypes_ = tuple(None if a is None else backend.to_numpy(a).dtype for a in arrays)
        assert dtypes_ == expected, f"dtypes of y, dx, dresidual, dgamma, dbeta of {label}: {dtypes_}, not {expected}"


def a_large_mean_costs_no_precision(backend: Backend) -> None:
    """Mean 1e4 at a spread of 1: an E[x²] - m² in float32 has no digit left here."""
    for dtype in (d for d in dtypes(backend) if d.itemsize >= 4):
        for shape in ((1, 20011, 3, 1), (2, 101, 3, 97)):
            data = make_data(shape, dtype, mean=1e4, std=1.0)
            got, want = (
                run_ops(backend, backend.asarray, data, Options()),
                run_ops(Oracle(), to_oracle, data, Options()),
            )
            # 1e4 / std, times the rounding of float64: what is lost there even by two passes
            tolerance = max(TOLERANCE[dtype.name], 1e-11)
            compare(f"y of {dtype} {shape}", backend, got.y, want.y, tolerance)
            compare(f"dx of {dtype} {shape}", backend, got.backward.dx, want.backward.dx, tolerance)
            moments = backend.batch_norm_moments(reference.MomentsArguments(backend.asarray(data.x)))
            exact = reference.batch_norm_moments(np, reference.MomentsArguments(widen(data.x)))
            compare(f"mean of {dtype} {shape}", backend, moments.mean - 1e4, exact.mean - 1e4, tolerance)
            compare(f"m2 of {dtype} {shape}", backend, moments.m2, exact.m2, tolerance)


def a_constant_input_gives_beta_exactly(backend: Backend) -> None:
    """Whatever the constant, and however many rows."""
    for label, data in cases(backend):
        constant = np.broadcast_to(data.x[:, :1, :, :1], data.x.shape).copy()
        y = run_ops(backend, backend.asarray, data._replace(x=constant), Options()).y
        beta = np.broadcast_to(data.beta[:, None, :, None].astype(data.x.dtype), data.x.shape)
        compare(f"y of {label}", backend, y, widen(beta), 0.0)


def values_of_1e30_are_normalized(backend: Backend) -> None:
    """y is right although a float32 holds no square of x; the running variance becomes infinite."""
    data = make_data((1, 101, 5, 3))
    x = (data.x * np.float32(1e30)).astype(np.float32)
    running = (backend.asarray(data.running_mean.copy()), backend.asarray(data.running_var.copy()))
    result = backend.batch_norm_train(
        reference.TrainArguments(backend.asarray(x), None, None, *running, decay=0.9, eps=EPS, correction=1)
    )
    want = reference.batch_norm_train(
        np, reference.TrainArguments(widen(x), None, None, None, None, decay=0.9, eps=EPS, correction=1)
    )
    compare("y", backend, result.y, want.y, TOLERANCE["float32"])
    assert np.isposinf(backend.to_numpy(running[1])).all(), "running_var must become inf"


def nan_and_infinity_stay_in_their_channel(backend: Backend) -> None:
    """They are no error, and the others keep their bits."""
    for label, data in cases(backend, ((1, 100, 100, 1), (2, 13, 5, 11))):
        clean = run_ops(backend, backend.asarray, data, Options(activation="relu"))
        for bad in (np.nan, np.inf):
            x = data.x.copy()
            x[0, 3, 2, -1] = bad
            got = run_ops(backend, backend.asarray, data._replace(x=x), Options(activation="relu"))
            for name, g, w in (("y", got.y, clean.y), ("dx", got.backward.dx, clean.backward.dx)):
                spoiled, others = backend.to_numpy(g), backend.to_numpy(w)
                assert np.isnan(spoiled[0, 3, 2, -1]) or name == "dx", f"{name} of {label} hides a {bad}"
                hit = np.zeros(data.x.shape, bool)
                hit[0, :, 2] = True
                assert np.array_equal(spoiled[~hit], others[~hit]), f"{name} of {label}: {bad} left its channel"


def no_rows_give_no_rows_and_move_nothing(backend: Backend) -> None:
    """An empty batch, as a rank without data has it."""
    data = make_data((2, 4, 3, 1))
    empty = backend.asarray(data.x[:, :0].copy())
    running = (backend.asarray(data.running_mean.copy()), backend.asarray(data.running_var.copy()))
    y, moments, rstd, _ = backend.batch_norm_train(
        reference.TrainArguments(empty, None, None, *running, decay=0.9, eps=EPS, correction=1)
    )
    gradients = backend.batch_norm_backward(
        reference.BackwardArguments(empty, empty, None, None, moments.mean, rstd, train=True, count=moments.count)
    )
    assert y.shape == gradients.dx.shape == (2, 0, 3, 1), f"y {y.shape}, dx {gradients.dx.shape}, expected (2, 0, 3, 1)"
    for name, got, kept in zip(("mean", "var"), running, (data.running_mean, data.running_var)):
        compare(f"running_{name}", backend, got, widen(kept), 0.0)
    for name, zero in (("dgamma", gradients.dgamma), ("dbeta", gradients.dbeta)):
        compare(name, backend, zero, np.zeros((2, 3)), 0.0)


def inputs_are_left_as_they_were(backend: Backend) -> None:
    """x, dy, residual, mask, gamma, beta, and in inference the running arrays."""
    for label, data in cases(backend, SMALL):
        given: list[tuple[Host, Array]] = []

        def remember(a: Any, given: list[tuple[Host, Array]] = given) -> Array:
            given.append((a.copy(), backend.asarray(a.copy())))
            return given[-1][1]

        for train in (True, False):
            run_ops(backend, remember, data, OPTIONS[-2]._replace(mask=True), train=train)
        for before, array in given:
            after = backend.to_numpy(array)
            assert before.tobytes() == after.tobytes(), f"an op wrote to its input of shape {before.shape}, {label}"


def the_same_call_gives_the_same_bits(backend: Backend) -> None:
    """Sums are added in an order that only the shape decides."""
    for label, data in cases(backend):
        first, second = (run_ops(backend, backend.asarray, data, OPTIONS[6]) for _ in range(2))
        for a, b in zip((first.y, *first.backward), (second.y, *second.backward)):
            assert a is not None
            assert b is not None
            assert backend.to_numpy(a).tobytes() == backend.to_numpy(b).tobytes(), label
