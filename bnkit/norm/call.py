"""A call of batch norm as one immutable record, made once the arguments are checked."""

from typing import Any, NamedTuple

from bnkit.backend import Array, Backend, Layout, checks, dtype_name
from bnkit.backend.layout import contiguous, is_contiguous
from bnkit.norm import arguments, in_place
from bnkit.norm.cache import BatchNormCache, Constants, Statistics
from bnkit.norm.renorm import Correction
from bnkit.norm.segments import Segment, segments_of, with_batch_first
from bnkit.norm.synchronous import Reduce
from bnkit.reference import TrainArguments


class Call(NamedTuple):
    """The arrays of a call on the 4-D view, the options of its variant, and x and `out` as the caller passed them."""

    backend: Backend
    layout: Layout
    x: Array
    out: Array | None  # x for in_place
    args: TrainArguments  # of the whole batch; in inference the running arrays are copies
    train: bool
    mask: Array | None = None  # a copy with the dimensions of x; in inference None
    segments: tuple[Segment, ...] = ()  # of ghost batches
    reduce: Reduce | None = None
    renorm: tuple[float, float] | None = None
    in_place: bool = False
    copied: tuple[tuple[Array, Array], ...] = ()  # running arrays that no op can write, each with its copy in `args`

    def cache(
        self, statistics: tuple[Statistics, ...] | Constants, correction: Correction | None = None
    ) -> BatchNormCache:
        """The cache of the forward that these statistics normalized."""
        args = self.args
        x_view = None if self.out is self.x and not self.in_place else args.x
        inputs = (self.x, x_view, args.gamma, args.beta, self.mask, args.activation, args.residual is not None)
        variant = (self.segments, self.reduce, correction, self.in_place)
        return BatchNormCache(self.backend, self.layout, *inputs, statistics, *variant)


def prepare(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    train: bool,
    axis: int | tuple[int, ...],
    decay: float,
    eps: float,
    correction: int,
    mask: Array | None,
    residual: Array | None,
    activation: str | None,
    ghost: int | None,
    reduce: Reduce | None,
    renorm: tuple[float, float] | None,
    in_place_: bool,
    out: Array | None,
) -> Call:
    """The record of a call, for arguments of any kind; they are those of `bnkit.batch_norm`, which says what raises."""
    parameters = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    others = {**parameters, "mask": mask, "residual": residual, "out": out}
    backend = checks.one_backend(("x", *others), (x, *others.values()))
    if in_place_:
        arguments.check_in_place(backend, x, residual, out)
        others["out"] = out = x
    checks.check_data("x", x)
    layout = backend.layout(x, axis)
    if ghost is not None:
        layout = with_batch_first(layout, tuple(x.shape), axis)
    tracked = arguments.check_parameters(x, layout, parameters, train=train)
    if residual is not None:
        checks.check_like("residual", residual, x)
    if mask is not None:
        mask = arguments.check_mask(mask, x, layout, backend)
        others["mask"] = mask
    if out is not None:
        checks.check_out(out, x, backend)
    arguments.check_memory(x, others, backend, moves=train and tracked, over_x=in_place_ or not train)
    segments = segments_of(layout, x.shape[layout.batch], ghost) if train else ()
    if train and tracked and mask is None and reduce is None:
        arguments.check_enough(segments, layout, correction)
    if renorm is not None and train and not tracked:
        raise ValueError("renorm needs running_mean and running_var in training, got None; pass them, or renorm=None")

    xp = backend.xp
    x_view = layout.view(xp, x)
    views = [None if a is None else contiguous(xp, a, layout.flat) for a in parameters.values()]
    # The cache keeps gamma and beta, and in inference the running arrays, which may all move before the backward.
    for i in range(2 if train else 4):
        views[i] = _copy(views[i], xp)
    if in_place_:
        in_place.check_arrays(backend, x, x_view, views[0], views[1])
    if not train:
        mask = None
    return Call(
        backend,
        layout,
        x,
        out,
        TrainArguments(
            x_view,
            views[0],
            views[1],
            views[2],
            views[3],
            float(decay),
            float(eps),
            correction,
            None if mask is None else layout.view(xp, xp.broadcast_to(mask, x.shape)),
            None if residual is None else layout.view(xp, residual),
            activation,
            None if segments else view_of_out(out, layout, backend),
        ),
        train,
        _copy(mask, xp),
        segments,
        reduce if train else None,
        renorm,
        bool(in_place_),
        _copied(backend, (running_mean, running_var), views[2:]) if train and tracked else (),
    )


def has_wide_statistics(call: Call) -> bool:
    """Whether the running arrays are float64 and those that an op moves are float32."""
    mean = call.args.running_mean
    return mean is not None and dtype_name(mean) != checks.parameter_dtype(dtype_name(call.x))


def view_of_out(out: Array | None, layout: Layout, backend: Backend) -> Array | None:
    """`out` on the 4-D view, and None where it has no view that an op can write."""
    if out is None:
        return None
    view = layout.view(backend.xp, out)
    return view if (layout.plain and is_contiguous(out)) or backend.overlap(view, out) else None


def _copy(a: Array | None, xp: Any) -> Array | None:
    return None if a is None else xp.astype(a, a.dtype)


def _copied(
    backend: Backend, running: tuple[Array | None, Array | None], views: list[Array | None]
) -> tuple[tuple[Array, Array], ...]:
    pairs = [(a, view) for a, view in zip(running, views, strict=True) if a is not None and view is not None]
    return tuple((a, view) for a, view in pairs if not is_contiguous(a) and not backend.overlap(a, view))
