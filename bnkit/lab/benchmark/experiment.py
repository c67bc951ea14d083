"""The benchmark's row of the weight-scale experiment: one seed, with the same networks and batches in every library.

The clock covers training and every accuracy, but not loading, imports or compilation. Matrix products take most of
this time, so the row compares it with the time of the same products at the rate of a large product.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from bnkit.backend import Backend
from bnkit.lab.benchmark import measure, turns
from bnkit.lab.benchmark.peers import Peer
from bnkit.lab.benchmark.peers.weight_scale import Problem
from bnkit.lab.benchmark.rows import Row
from bnkit.lab.experiments import weight_scale

NAME = "weight-scale"
ROUNDS = 3  # each of one call, which takes seconds


def row(work: Problem, backend: Backend, peers: Sequence[Peer]) -> Row:
    """Time the experiment; the row's figures in bytes are None.

    product_gflop_per_s: the rate of a large float32 product. share_of_products: the time that the experiment's
    products take at this rate / the experiment's time.
    """
    settings = work.settings
    timing, compared = turns.by_turns(
        lambda: weight_scale.train(settings, work.x, work.t, work.classes),
        backend,
        peers,
        {"workload": "weight_scale", **dataclasses.asdict(settings)},
        rounds=ROUNDS,
        seconds=0,
        warm_up=False,
    )
    rate, count = measure.product_rate(backend), flops(work)
    return {
        "case": NAME,
        "layout": None,
        "tensor_bytes": None,
        "op": "run",
        "dtype": settings.dtype,
        "through": "experiment",
        "backend": backend.key,
        **turns.microseconds(timing),
        "bytes_one_read": None,
        "bytes_two_reads": None,
        "gb_per_s": None,
        "share": None,
        "share_two_reads": None,
        "over_floor": None,
        "reference": None,
        "flops": count,
        "gflop_per_s": count / timing.median / 1e9,
        "product_gflop_per_s": rate / 1e9,
        "share_of_products": count / rate / timing.median,
        "peers": compared,
    }


def flops(work: Problem) -> int:
    """Additions and multiplications in the matrix products of all networks; no other work counts.

    In each layer an update takes one product forward, one for the gradient of the weights and, except in the first
    layer, one for the gradient of the input. An accuracy takes the forward products on all rows.
    """
    rows, inputs = (int(length) for length in work.x.shape)
    settings = work.settings
    layers = [a * b for a, b in itertools.pairwise((inputs, *settings.hidden, work.classes))]
    update = settings.batch_size * (3 * sum(layers) - layers[0])
    networks = 2 * len(settings.scales)  # plain and with batch norm
    return 2 * networks * (len(work.batches) * update + settings.epochs * rows * sum(layers))
