"""Choosing a backend, finding that of an array, and what is said when one cannot run."""

import asyncio
import contextlib
import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strict_backend import StrictBackend

import bnkit
from bnkit.backend import Backend, register, registry
from bnkit_numpy import NumpyBackend


def run(code: str, *path: Path, **environment: str) -> str:
    """What a new Python prints that has `path` in front."""
    found = [str(p) for p in path] + [p for p in sys.path if p]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BNKIT_")}
    kept |= {"PYTHONPATH": os.pathsep.join(found), "PYTHONUTF8": "1", **environment}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=kept, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_name_gives_the_same_backend_each_time(backend: Backend) -> None:
    assert bnkit.get_backend(backend.key) is backend
    assert bnkit.get_backend(backend) is backend


def test_an_argument_comes_before_use_backend_before_the_environment_before_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numpy, strict = bnkit.get_backend("numpy"), bnkit.get_backend("strict")
    monkeypatch.setenv("BNKIT_BACKEND", "strict")
    assert bnkit.get_backend() is strict
    with bnkit.use_backend("numpy") as used:
        assert used is numpy
        assert bnkit.get_backend() is numpy
        assert bnkit.get_backend("strict") is strict
        with bnkit.use_backend(strict):
            assert bnkit.get_backend() is strict
        assert bnkit.get_backend() is numpy
    assert bnkit.get_backend() is strict


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "strict", "numpy"):
        monkeypatch.setenv("BNKIT_BACKEND", name)
        assert bnkit.get_backend().name == name
        assert bnkit.backend_of(bnkit.BatchNorm(3).params["gamma"]).name == name


def test_a_wrong_name_in_the_environment_is_an_error_and_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNKIT_BACKEND", "numpi")
    with pytest.raises(bnkit.BackendError, match=r"'numpi'.*choose one of .*numpy"):
        bnkit.get_backend()


def test_use_backend_ends_with_an_exception_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNKIT_BACKEND", "numpy")
    with pytest.raises(KeyError), bnkit.use_backend("strict"):
        raise KeyError
    assert bnkit.get_backend().name == "numpy"


def test_use_backend_of_an_unusable_name_raises_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNKIT_BACKEND", "numpy")
    with pytest.raises(bnkit.BackendError), bnkit.use_backend("nope"):
        pass
    assert bnkit.get_backend().name == "numpy"


def test_a_new_thread_starts_with_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNKIT_BACKEND", "numpy")
    seen: list[str] = []

    def work() -> None:
        seen.append(bnkit.get_backend().name)
        with bnkit.use_backend("strict"):
            seen.append(bnkit.get_backend().name)

    with bnkit.use_backend("strict"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == ["numpy", "strict"]
    assert bnkit.get_backend().name == "numpy"


def test_tasks_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNKIT_BACKEND", "numpy")

    async def work(name: str) -> list[str]:
        seen = []
        with bnkit.use_backend(name):
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(bnkit.get_backend().name)
        return seen

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(work("numpy"), work("strict")))

    assert asyncio.run(both()) == [["numpy"] * 3, ["strict"] * 3]


@pytest.mark.parametrize("name", [3, 1.5, b"numpy", ["numpy"]], ids=repr)
def test_a_name_of_another_type_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="backend must be"):
        bnkit.get_backend(name)


@pytest.mark.parametrize(
    ("name", "cause", "remedy"),
    [
        ("nope", "no backend is named 'nope'", "choose one of auto, numpy, cupy"),
        ("numpy:0", "no device '0'", "ask for 'numpy'"),
        ("cupy:first", "names no device", "cupy:0"),
        ("cupy:-1", "names no device", "cupy:0"),
    ],
)
def test_an_error_has_its_cause_and_its_remedy(name: str, cause: str, remedy: str) -> None:
    with pytest.raises(bnkit.BackendError) as caught:
        bnkit.get_backend(name)
    assert cause in str(caught.value)
    assert remedy in caught.value.remedy
    assert str(caught.value).endswith(caught.value.remedy)
    assert isinstance(caught.value, RuntimeError)


def test_arrays_decide_for_themselves(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNKIT_BACKEND", "numpy")
    x = backend.asarray(np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32))
    assert bnkit.backend_of(x) is backend
    assert bnkit.backend_of(None, x, None, x) is backend
    y, cache = bnkit.batch_norm(x, None, None, train=True)
    assert bnkit.backend_of(y, bnkit.batch_norm_backward(y, cache).dx) is backend


def test_arrays_of_two_backends_have_none() -> None:
    a = np.ones(3)
    with pytest.raises(TypeError, match=r"numpy on numpy.*array_api_strict on strict.*asarray"):
        bnkit.backend_of(a, bnkit.get_backend("strict").asarray(a))


@pytest.mark.parametrize("value", [1.0, [1.0], "a", np.float32(1), np.ma.masked_array([1.0])], ids=repr)
def test_what_is_no_array_of_a_backend_has_none(value: Any) -> None:
    with pytest.raises(TypeError, match="every array must be an array of one of the backends"):
        bnkit.backend_of(value)


def test_no_arrays_have_no_backend() -> None:
    for nothing in ((), (None,), (None, None)):
        with pytest.raises(TypeError, match="at least one"):
            bnkit.backend_of(*nothing)


def test_subclasses_of_arrays_belong_to_the_backend_of_their_base(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(7, 5))
    mapped[...] = np.random.default_rng(0).normal(size=(7, 5))
    assert bnkit.backend_of(mapped).name == "numpy"
    y, _ = bnkit.batch_norm(mapped, None, None, train=True)
    want, _ = bnkit.batch_norm(np.array(mapped), None, None, train=True)
    np.testing.assert_array_equal(y, want)


def test_a_backend_survives_copies_and_pickles_as_itself(backend: Backend) -> None:
    assert copy.deepcopy(backend) is backend
    assert copy.copy(backend) is backend
    assert pickle.loads(pickle.dumps(backend)) is backend


def test_backends_lists_all_with_reasons_for_the_unusable() -> None:
    code = """
    import numpy as np
    import bnkit
    from bnkit.backend import Backend, register

    class Unusable(Backend):
        name = "unusable"
        array_module = "nothing"

        def __init__(self, device=None):
            raise bnkit.BackendError("backend 'unusable' has no power", remedy="plug it in")

    register("unusable", Unusable)
    listed = bnkit.backends()
    assert list(listed)[:2] == ["numpy", "cupy"], list(listed)
    assert listed["numpy"].usable and not listed["numpy"].reason
    assert listed["numpy"].details["libraries"]["numpy"] == np.__version__
    assert listed["cupy"].usable != bool(listed["cupy"].reason)
    assert not listed["unusable"].usable and not listed["unusable"].details
    print(listed["unusable"].reason)
    """
    assert run(code) == "backend 'unusable' has no power; plug it in"


@pytest.mark.parametrize("wrong", [NumpyBackend(), int, "bnkit_numpy", None], ids=repr)
def test_only_a_subclass_of_backend_can_be_registered(wrong: Any) -> None:
    with pytest.raises(TypeError, match="subclass"):
        register("wrong", wrong)
    assert "wrong" not in bnkit.backends()


def test_the_strict_double_keeps_host_and_device_apart() -> None:
    strict = bnkit.get_backend("strict")
    assert isinstance(strict, StrictBackend)
    a = strict.asarray(np.ones(3, np.float32))
    with pytest.raises(TypeError):
        a + np.ones(3, np.float32)
    with pytest.raises(RuntimeError, match="device"):
        np.asarray(a)
    np.testing.assert_array_equal(strict.to_numpy(a), np.ones(3))


def test_importing_bnkit_imports_no_other_array_library() -> None:
    code = "import sys, bnkit; print([m for m in ('cupy', 'bnkit_cupy', 'bnkit_numpy', 'torch') if m in sys.modules])"
    assert run(code) == "[]"


PLUGIN = """
import numpy as np
from bnkit.backend import registry
from bnkit.backend import Backend

class Tagged(np.ndarray):
    pass

class TaggedBackend(Backend):
    name = "tagged"
    array_module = "tagged_arrays"

    def __init__(self, device=None):
        self.xp, self.device = np, device

    @classmethod
    def resolve(cls, device):
        return "tagged" if device is None else f"tagged:{device}"

    def asarray(self, a, dtype=None):
        return np.asarray(a, dtype=dtype).view(Tagged)
"""


def install(folder: Path, module: str, source: str, target: str, name: str = "tagged") -> None:
    """A distribution as pip would leave it: a module, and metadata with an entry point."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[bnkit.backends]\n{name} = {target}\n", encoding="utf-8")


def test_a_third_party_backend_is_found_by_its_entry_point(tmp_path: Path) -> None:
    install(tmp_path, "tagged_arrays", PLUGIN, "tagged_arrays:TaggedBackend")
    code = """
    import sys
    import numpy as np
    import bnkit
    assert "tagged_arrays" not in sys.modules
    assert bnkit.backends()["tagged"].usable
    assert bnkit.get_backend().name == "tagged"
    assert bnkit.get_backend("tagged:2").device == "2"
    layer = bnkit.BatchNorm(3)
    print(type(layer.params["gamma"]).__name__)
    try:
        bnkit.get_backend("nope")
    except bnkit.BackendError as error:
        print("tagged" in error.remedy)
    """
    assert run(code, tmp_path, BNKIT_BACKEND="tagged").split() == ["Tagged", "True"]


BROKEN = {
    "a module that is not there": ("", "not_there:Backend"),
    "an import error": ("import not_there_either\n", "broken_plugin:Backend"),
    "another error at import": ("raise OSError('libbroken.so: no such file')\n", "broken_plugin:Backend"),
    "a name that is not there": ("", "broken_plugin:Backend"),
    "no subclass of Backend": ("class Backend:\n    pass\n", "broken_plugin:Backend"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_third_party_backend_is_a_backend_error_and_harms_no_other(case: str, tmp_path: Path) -> None:
    source, target = BROKEN[case]
    install(tmp_path, "broken_plugin", source, target, name="broken")
    code = """
    import numpy as np
    import bnkit
    try:
        bnkit.get_backend("broken")
    except bnkit.BackendError as error:
        assert "'broken'" in str(error) and error.remedy, str(error)
        print("refused")
    listed = bnkit.backends()
    assert not listed["broken"].usable and listed["broken"].reason and listed["numpy"].usable
    try:
        bnkit.backend_of(1.0)  # asks every backend whether it owns a float
    except TypeError:
        print("no owner")
    print(bnkit.batch_norm(np.random.rand(4, 2), None, None, train=True)[0].shape)
    """
    assert run(code, tmp_path).splitlines() == ["refused", "no owner", "(4, 2)"]


def test_a_backend_error_survives_pickle_and_copies() -> None:
    error = bnkit.BackendError("no device", remedy="buy one", hardware=True)
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert str(again) == str(error) == "no device; buy one"
        assert (again.remedy, again.hardware) == ("buy one", True)


def test_a_backend_that_fails_to_start_hides_no_other() -> None:
    class Failing(NumpyBackend):
        name = "failing"

        def __init__(self, device: str | None = None) -> None:
            raise OSError("the device is busy")

    register("failing", Failing)
    try:
        with pytest.raises(bnkit.BackendError, match=r"'failing' failed to start \(OSError: the device is busy\)"):
            bnkit.get_backend("failing")
        known = bnkit.backends()
        assert known["numpy"].usable
        assert not known["failing"].usable
    finally:
        del registry._classes["failing"]


def test_a_backend_registered_anew_takes_the_place_of_the_old() -> None:
    class First(NumpyBackend):
        name = "placed"

    class Second(NumpyBackend):
        name = "placed"

    try:
        for cls in (First, Second):
            register("placed", cls)
            assert type(bnkit.get_backend("placed")) is cls
    finally:
        del registry._classes["placed"]
        del registry._instances["placed"]


def test_use_backend_holds_the_backends_scope_open() -> None:
    entered: list[str] = []

    class Scoped(NumpyBackend):
        name = "scoped"

        def scope(self) -> Any:
            entered.append("in")
            return contextlib.closing(types.SimpleNamespace(close=lambda: entered.append("out")))

    with bnkit.use_backend(Scoped()):
        assert entered == ["in"]
    assert entered == ["in", "out"]


@pytest.mark.parametrize("key", [(-1, 0, 0), (2**64, 0, 0), (0, 2**32, 0), (0, -1, 0), (0, 0, 2**64), ([0, -1], 0, 0)])
def test_a_key_out_of_bounds_is_refused(backend: Backend, key: Any) -> None:
    with pytest.raises(ValueError, match=r"key must hold a (seed|layer|step) of at least 0 and below"):
        backend.uniform(key, (2, 3))
