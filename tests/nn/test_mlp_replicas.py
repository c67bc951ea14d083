"""Replicas of an MLP against the single networks of their seeds."""

import numpy as np
import pytest
from small_mlp import OPTIONS, ROUNDING, batch, host, make

from bnkit import optim


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_replica_is_the_single_network_of_its_seed_and_init(backend, name, lead):
    seeds, inits, options = [4, 5, 4], ["he", "he", 0.3], OPTIONS[name]
    together = make(backend, replicas=3, seed=seeds, init=inits, **options)
    optimizer = optim.Momentum(lr=0.1)
    losses = []
    for step in range(3):
        loss, grads = together.loss_and_grads(*batch(lead=lead, seed=step), step=step)
        optimizer.update(together.params, grads)
        losses.append(backend.to_numpy(loss))
        assert tuple(loss.shape) == (3,)
    x, t = batch(lead=lead, seed=9)
    for r in range(3):
        single, alone = make(backend, seed=seeds[r], init=inits[r], **options), optim.Momentum(lr=0.1)
        for step in range(3):
            x_step, t_step = batch(lead=lead, seed=step)
            loss, grads = single.loss_and_grads(x_step[r] if lead else x_step, t_step[r] if lead else t_step, step=step)
            alone.update(single.params, grads)
            np.testing.assert_allclose(losses[step][r], float(loss), **ROUNDING)
        for key, a in host(backend, {**single.params, **single.state}).items():
            of_all = host(backend, {**together.params, **together.state})[key]
            np.testing.assert_allclose(of_all if key.endswith("count") else of_all[r], a, err_msg=key, **ROUNDING)
        mine = (x[r], t[r]) if lead else (x, t)
        np.testing.assert_allclose(
            backend.to_numpy(together.predict(x))[r], backend.to_numpy(single.predict(mine[0])), **ROUNDING
        )
        for method in ("loss", "accuracy"):
            both = backend.to_numpy(getattr(together, method)(x, t)), float(getattr(single, method)(*mine))
            np.testing.assert_allclose(both[0][r], both[1], **ROUNDING)


def test_a_diverging_replica_leaves_the_others_alone(backend):
    x, t = batch()
    options = {"batch_norm": False, "dtype": "float32"}
    together = make(backend, replicas=2, init=[1e30, 0.3], **options)
    single = make(backend, init=0.3, **options)
    pair, alone = optim.SGD(lr=0.1), optim.SGD(lr=0.1)
    for step in range(3):
        for model, optimizer in ((together, pair), (single, alone)):
            optimizer.update(model.params, model.loss_and_grads(x, t, step=step)[1])
    losses = backend.to_numpy(together.loss(x, t))
    assert not np.isfinite(losses[0])
    assert losses[1] == pytest.approx(float(single.loss(x, t)), rel=1e-5)  # float32 sums in another order


def test_labels_of_replicas_may_be_their_own_with_shared_data(backend):
    model = make(backend, replicas=2, seed=[0, 0], batch_norm={"track": False})
    x, t = batch()
    other = (t + 1) % 3
    loss = backend.to_numpy(model.loss(x, np.stack([t, other])))
    np.testing.assert_allclose(loss, [backend.to_numpy(model.loss(x, v))[0] for v in (t, other)], **ROUNDING)
