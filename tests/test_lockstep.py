"""Replicas and updates cut between threads: the bits of the uncut ones, whatever the cut and whoever else computes."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import threadpoolctl
from small_mlp import everything, host

import bnkit
from bnkit import MLP, optim
from bnkit_numpy import compiled_kernels

SIZES, REPLICAS, ROWS = (784, 100, 50, 10), 8, 20  # enough products and parameters to be cut
PLAIN = {"batch_norm": False, "activation": "sigmoid", "weight_decay": 0.1}
OPTIONS = [{}, PLAIN, {"dropout": 0.3, "batch_norm": {"decay": None, "ghost": 8}}, {"batch_norm": {"track": False}}]


def batch(lead=(), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*lead, ROWS, SIZES[0])).astype("float32"), rng.integers(SIZES[-1], size=(*lead, ROWS))


def make(**options):
    return MLP(SIZES, backend="numpy", **{"replicas": REPLICAS, "seed": range(REPLICAS), **options})


def trained(model, lead=(), steps=3):
    """Every bit of three updates: losses, parameters, state and logits."""
    optimizer, losses = optim.Momentum(lr=0.1), []
    for step in range(steps):
        loss, grads = model.loss_and_grads(*batch(lead, step), step=step)
        optimizer.update(model.params, grads)
        losses.append(loss.tobytes())
    return losses, everything(model), model.predict(batch(lead, 9)[0]).tobytes()


def settings():
    pools = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    kernels = compiled_kernels()
    return pools, None if kernels is None else kernels.get_threads()


@pytest.fixture
def cut(monkeypatch):
    """A function that sets how many threads the NumPy backend cuts between."""
    monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", 2)
    return lambda threads: monkeypatch.setattr(bnkit.get_backend("numpy"), "threads", threads)


@pytest.fixture
def ran(monkeypatch):
    """The number of tasks of every `run` of the NumPy backend, so that a test knows that something was cut."""
    backend, seen = bnkit.get_backend("numpy"), []
    run = type(backend).run
    monkeypatch.setattr(backend, "run", lambda tasks: (seen.append(len(tasks)), run(backend, tasks))[1])
    return seen


@pytest.mark.parametrize("lead", [(), (REPLICAS,)])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_bits_do_not_depend_on_the_cut(cut, ran, options, lead):
    found = {}
    for threads in (1, 2, 3, 16):
        cut(threads)
        with threadpoolctl.threadpool_limits(1):  # which the cut ones bring about themselves
            found[threads] = trained(make(**options), lead)
    assert found[1] == found[2] == found[3] == found[16]
    assert {2, 3, REPLICAS} <= set(ran)


def test_a_replica_of_a_cut_model_is_the_single_network_of_its_seed_to_the_bit(cut, ran):
    together = make()
    trained(together)
    assert ran
    for r in (0, 3, REPLICAS - 1):
        single = make(replicas=None, seed=r)
        with threadpoolctl.threadpool_limits(1):
            trained(single)
        whole = host(together.backend, {**together.params, **together.state})
        for name, a in host(single.backend, {**single.params, **single.state}).items():
            of_all = whole[name] if name.endswith("count") else whole[name][r]
            assert of_all.tobytes() == a.tobytes(), name


def test_gradients_are_new_arrays_that_later_steps_leave_alone(cut, ran):
    model, (x, t) = make(), batch()
    _, first = model.loss_and_grads(x, t, step=0)
    before = {name: g.tobytes() for name, g in first.items()}
    _, second = model.loss_and_grads(*batch(seed=1), step=1)
    assert ran == [2, 2]
    assert {name: g.tobytes() for name, g in first.items()} == before
    others = [x, *model.params.values(), *second.values()]
    assert not any(np.shares_memory(g, other) for g in first.values() for other in others)


@pytest.mark.parametrize("lr", [0.01, [0.01 * (r + 1) for r in range(REPLICAS)]])
@pytest.mark.parametrize("name", optim.BY_NAME)
def test_a_cut_update_writes_the_bits_of_a_whole_one(cut, ran, name, lr):
    found = []
    for threads in (1, 2, 3):
        cut(threads)
        rng = np.random.default_rng(0)
        params = {"w": rng.normal(size=(REPLICAS, 700, 100)), "b": rng.normal(size=(REPLICAS, 3))}
        if not isinstance(lr, list):
            params["scalar"] = np.array(0.5)
        optimizer = optim.BY_NAME[name](lr=lr)
        for _ in range(3):
            optimizer.update(params, {k: rng.normal(size=p.shape) for k, p in params.items()})
        found.append({k: np.asarray(a).tobytes() for k, a in {**params, **optimizer.state}.items()})
    assert found[0] == found[1] == found[2]
    assert ran == [2] * 3 + [3] * 3


def test_a_small_model_is_not_cut(cut, ran):
    model = MLP((5, 6, 3), replicas=2, backend="numpy")
    x, t = np.ones((4, 5), "float32"), np.zeros(4, int)
    optim.SGD().update(model.params, model.loss_and_grads(x, t)[1])
    model.predict(x)
    assert ran == []


def test_thread_settings_are_back_after_a_run_and_after_an_error(cut):
    backend, before = bnkit.get_backend("numpy"), settings()
    inside = backend.run([settings, settings])
    assert all(set(pools.values()) == {1} for pools, _ in inside) or before[0] == {}
    assert [kernels for _, kernels in inside] == [None if before[1] is None else 1] * 2
    assert settings() == before
    for tasks in ([settings, lambda: 1 // 0], [lambda: 1 // 0, settings]):
        with pytest.raises(ZeroDivisionError):
            backend.run(tasks)
        assert settings() == before


def test_a_run_keeps_order_and_context(backend):
    with bnkit.use_backend("numpy"), np.errstate(over="raise"):
        found = backend.run([lambda i=i: (i, bnkit.get_backend().name, np.geterr()["over"]) for i in range(5)])
    assert found == [(i, "numpy", "raise") for i in range(5)]


def test_a_diverging_replica_warns_in_no_thread(cut, ran):
    model = make(init=[1e30] * (REPLICAS - 1) + [0.1], batch_norm=False)
    trained(model)
    assert ran
    assert np.isfinite(model.params["0.weight"][-1]).all()
    assert not np.isfinite(model.predict(batch()[0])[0]).all()


def test_python_threads_at_once_get_the_bits_of_one_alone(cut):
    expected, before, found = trained(make()), settings(), []
    workers = [threading.Thread(target=lambda: found.append(trained(make()))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [expected] * 4
    assert settings() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_trains_the_same_also_when_another_thread_is_in_a_run():
    code = """
        import os, threading
        from test_lockstep import bnkit, make, settings, trained
        expected, before, inside, leave = trained(make()), settings(), threading.Event(), threading.Event()
        held = threading.Thread(target=bnkit.get_backend("numpy").run, args=([lambda: (inside.set(), leave.wait())],))
        held.start()
        inside.wait()
        if (pid := os.fork()) == 0:
            os._exit(0 if settings() == before and trained(make()) == expected and settings() == before else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        leave.set()
    """
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "BNKIT_NUM_THREADS": "3"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
