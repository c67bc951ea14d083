"""The row of the weight-scale experiment: one seed, beside the same networks and batches in other libraries.

Its time is that of training and of every accuracy; the data, imports and compilation are outside. Most of it goes into
matrix products, so it stands beside the time that these take at the rate of a large product.
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
ROUNDS = 3  # of one call, which takes seconds


def row(work: Problem, backend: Backend, peers: Sequence[Peer]) -> Row:
    """The row, with those figures None that are of bytes.

    product_gflop_per_s: of large float32 products. share_of_products: the time of the experiment's products at this
    rate / the experiment's.
    """
    settings = work.settings
    timing, others = turns.by_turns(
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
        "peers": others,
    }


def flops(work: Problem) -> int:
    """Additions and multiplications in the matrix products of all networks: no other work is counted.

    An update takes a product forward in each layer, one for the gradient of its weights and, but in the first, one for
    that of its input; an accuracy takes the forward ones on all the rows.
    """
    rows, inputs = (int(length) for length in work.x.shape)
    settings = work.settings
    layers = [a * b for a, b in itertools.pairwise((inputs, *settings.hidden, work.classes))]
    update = settings.batch_size * (3 * sum(layers) - layers[0])
    networks = 2 * len(settings.scales)  # plain and with batch norm
    return 2 * networks * (len(work.batches) * update + settings.epochs * rows * sum(layers))
