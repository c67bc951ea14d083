"""Replicas cut between threads: the bits of the uncut ones, whatever the cut and whoever else computes."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import threadpoolctl
from places import HELPERS
from small_mlp import everything, host

import bnkit
from bnkit import MLP, optim
from bnkit.lab.experiments import runner, weight_scale
from bnkit.lab.experiments.weight_scale import Settings
from bnkit_numpy import compiled_kernels

SIZES, REPLICAS, ROWS = (200, 60, 50, 10), 8, 160  # enough products in an epoch to be cut
PLAIN = {"batch_norm": False, "activation": "sigmoid", "weight_decay": 0.1}
OPTIONS = [{}, PLAIN, {"dropout": 0.3, "batch_norm": {"decay": None, "ghost": 8}}, {"batch_norm": {"track": False}}]
RATES = [0.01 * (r + 1) for r in range(REPLICAS)]


def dataset(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, SIZES[0])).astype("float32"), rng.integers(SIZES[-1], size=ROWS)


def make(**options):
    return MLP(SIZES, backend="numpy", **{"replicas": REPLICAS, "seed": range(REPLICAS), **options})


def trained(model, optimizer=None, **options):
    """Everything that two epochs leave: records, every bit of the model, and the optimizer's memory."""
    optimizer = optim.Momentum(lr=0.1) if optimizer is None else optimizer
    data = bnkit.data.Dataset(*dataset(), *dataset(1))
    records = bnkit.fit(model, data, optimizer=optimizer, epochs=2, batch_size=40, **options)
    return records, everything(model), optimizer.steps, {k: a.tobytes() for k, a in optimizer.state.items()}


def settings():
    pools = {p["filepath"]: p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}
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


@pytest.mark.parametrize("options", OPTIONS)
def test_the_bits_do_not_depend_on_the_cut(cut, ran, options):
    found = {}
    for threads in (1, 2, 3, 16):
        cut(threads)
        with threadpoolctl.threadpool_limits(1):  # which the cut ones bring about themselves
            found[threads] = trained(make(**options))
    assert found[1] == found[2] == found[3] == found[16]
    assert ran == [2, 2, 3, 3, REPLICAS, REPLICAS]


@pytest.mark.parametrize("lr", [0.01, RATES], ids=["one rate", "a rate each"])
@pytest.mark.parametrize("name", optim.BY_NAME)
def test_every_optimizer_steps_parts_as_it_steps_the_whole(cut, ran, name, lr):
    found = []
    for threads in (1, 3):
        cut(threads)
        with threadpoolctl.threadpool_limits(1):
            found.append(trained(make(), optim.BY_NAME[name](lr=lr)))
    assert found[0] == found[1]
    assert ran == [3, 3]


def test_a_replica_of_a_cut_model_is_the_single_network_of_its_seed_to_the_bit(cut, ran):
    together = make()
    trained(together)
    assert ran
    whole = host(together.backend, {**together.params, **together.state})
    for r in (0, 3, REPLICAS - 1):
        single = make(replicas=None, seed=r)
        with threadpoolctl.threadpool_limits(1):
            trained(single)
        for name, a in host(single.backend, {**single.params, **single.state}).items():
            of_all = whole[name] if name.endswith("count") else whole[name][r]
            assert of_all.tobytes() == a.tobytes(), name


def test_a_cut_training_that_is_resumed_is_the_one_that_was_not_stopped(cut, ran, tmp_path):
    expected, file = trained(make(), optim.Adam()), tmp_path / "run.npz"
    data = bnkit.data.Dataset(*dataset(), *dataset(1))
    bnkit.fit(make(), data, optimizer=optim.Adam(), epochs=1, batch_size=40, checkpoint=file)
    assert trained(make(), optim.Adam(), checkpoint=file) == expected
    assert ran == [2] * 4


def test_a_learning_rate_that_a_callback_sets_reaches_every_part(cut, ran):
    found = []
    for threads in (1, 2):
        cut(threads)
        optimizer = optim.Momentum(lr=0.1)

        def halve(record, model, optimizer=optimizer):
            optimizer.lr = 0.05

        with threadpoolctl.threadpool_limits(1):
            found.append(trained(make(), optimizer, callbacks=[halve]))
    assert found[0] == found[1]
    assert ran == [2, 2]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_part_is_on_the_memory_of_its_replicas_and_touches_no_other(backend, options):
    model = MLP((5, 6, 4, 3), backend=backend, replicas=4, seed=range(4), **options)
    before = host(backend, {**model.params, **model.state})
    part = model.part(slice(1, 3))
    assert (part.replicas, part.seed, part.config["replicas"], part.config["seed"]) == (2, [1, 2], 2, [1, 2])
    assert (model.replicas, model.seed, model.config["replicas"]) == (4, [0, 1, 2, 3], 4)
    x, t = np.random.default_rng(0).normal(size=(10, 5)), np.arange(10) % 3
    optim.SGD(lr=0.1).update(part.params, part.loss_and_grads(x, t)[1])
    after = host(backend, {**model.params, **model.state})
    for name in before:
        if not name.endswith("count"):
            assert (before[name][[0, 3]] == after[name][[0, 3]]).all(), name
    assert (before["0.weight"][[1, 2]] != after["0.weight"][[1, 2]]).any(axis=(-2, -1)).all()


def test_a_model_without_replicas_has_no_part():
    with pytest.raises(ValueError, match="pass replicas to MLP"):
        MLP((5, 3), backend="numpy").part(slice(0, 1))


def test_gradients_are_new_arrays_that_later_steps_leave_alone(backend):
    model = MLP((5, 6, 3), backend=backend, replicas=2)
    x, t = backend.asarray(np.ones((4, 5), "float32")), np.zeros(4, int)
    _, first = model.loss_and_grads(x, t, step=0)
    before = {name: g.tobytes() for name, g in host(backend, first).items()}
    _, second = model.loss_and_grads(x, t, step=1)
    assert {name: g.tobytes() for name, g in host(backend, first).items()} == before
    others = [x, *model.params.values(), *second.values()]
    assert not any(backend.overlap(g, other) for g in first.values() for other in others)


def test_a_small_training_and_a_subclass_are_not_cut(cut, ran):
    class Watched(MLP):
        pass

    small = MLP((5, 6, 3), replicas=2, backend="numpy")
    bnkit.fit(small, (np.ones((4, 5), "float32"), np.zeros(4, int)), optimizer=optim.SGD(), epochs=1, batch_size=4)
    trained(Watched(SIZES, backend="numpy", replicas=REPLICAS))
    assert ran == []


def test_the_experiment_gets_the_same_records_in_parts(cut, monkeypatch):
    small = Settings(data="synthetic", seeds=2, epochs=3, scales=(1.0, 0.3, 0.1), hidden=(100, 50), backend="numpy")
    found, counted = [], []
    monkeypatch.setattr(runner, "_WORTH_THREADS", 0)
    for threads in (1, 2, 3):
        cut(threads)
        counted.append([])
        with threadpoolctl.threadpool_limits(1):
            found.append(weight_scale.run(small, on_progress=lambda *numbers: counted[-1].append(numbers)))
    assert found[0] == found[1] == found[2]
    for updates in counted:
        assert updates == sorted(updates)
        assert (updates[0], updates[-1]) == ((0, 84), (84, 84))


def test_thread_settings_are_back_after_a_run_and_after_an_error():
    backend, kernels = bnkit.get_backend("numpy"), compiled_kernels()
    usual = settings()[1]
    with threadpoolctl.threadpool_limits(2):  # whatever ran before, another setting than that of a run
        if kernels is not None:
            kernels.set_threads(3)
        try:
            before = settings()
            for pools, threads in backend.run([settings, settings]):
                assert set(pools.values()) == {1}
                assert threads == (None if kernels is None else 1)
            assert settings() == before
            for tasks in ([settings, lambda: 1 // 0], [lambda: 1 // 0, settings]):
                with pytest.raises(ZeroDivisionError):
                    backend.run(tasks)
                assert settings() == before
        finally:
            if kernels is not None:
                kernels.set_threads(usual)


def test_a_run_keeps_order_and_context(backend):
    with bnkit.use_backend("numpy"), np.errstate(over="raise"):
        found = backend.run([lambda i=i: (i, bnkit.get_backend().name, np.geterr()["over"]) for i in range(5)])
    assert found == [(i, "numpy", "raise") for i in range(5)]


def test_a_task_may_run_tasks_of_its_own(backend):
    def task():
        inner = backend.run([threading.get_ident] * 3)
        return set(inner) == {threading.get_ident()} or backend.name != "numpy"

    assert backend.run([task, task]) == [True, True]
    assert backend.run([threading.get_ident])


def test_diverging_replicas_warn_once_and_in_no_thread(cut, ran):
    model = make(init=[1e30] * (REPLICAS - 1) + [0.1], batch_norm=False)
    with pytest.warns(RuntimeWarning, match="diverged in epoch 1") as caught:
        records = trained(model)[0]
    assert ran
    assert len(caught) == 1
    assert [r["diverged"] for r in records] == [[True] * (REPLICAS - 1) + [False]] * 2
    assert np.isfinite(model.params["0.weight"][-1]).all()
    assert not np.isfinite(model.predict(dataset()[0])[0]).all()


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
    path = os.pathsep.join([str(HELPERS), os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "BNKIT_NUM_THREADS": "3"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
