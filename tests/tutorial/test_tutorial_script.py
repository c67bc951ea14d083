"""A script of the tutorial's with only its imports changed: its signatures, its data and what it prints."""

import contextlib
import gzip
import inspect
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import textbook_tutorial as textbook
from numpy.testing import assert_array_equal

from bnkit import tutorial

# The experiment of section 6.3 in small: one network with batch norm and one without learn from the same batches.
SCRIPT = """
import numpy as np
from {module} import SGD, MultiLayerNetExtend, load_mnist

(images, labels), (test_images, test_labels) = load_mnist(normalize=True)
images, labels = images[:1000], labels[:1000]
np.random.seed(63)

for scale in np.logspace(0, -4, num=16)[::4]:
    pair = [
        MultiLayerNetExtend(input_size=784, hidden_size_list=[100] * 5, output_size=10,
                            weight_init_std=scale, use_batchnorm=flag)
        for flag in (True, False)
    ]
    optimizer = SGD(lr=0.01)
    for step in range(21):
        rows = np.random.choice(len(images), 100)
        for network in pair:
            optimizer.update(network.params, network.gradient(images[rows], labels[rows]))
        if step % 10 == 0:
            print(step // 10, scale, *(network.accuracy(images, labels) for network in pair))
    print("test", *(network.accuracy(test_images[:500], test_labels[:500]) for network in pair))
"""


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """MNIST in BNKIT_DATA_DIR, or, where that holds none, files of its format with images that can be told apart."""
    data = os.environ.get("BNKIT_DATA_DIR")
    if data and (Path(data) / "mnist" / "train-images-idx3-ubyte.gz").is_file():
        return
    random = np.random.default_rng(3)
    (tmp_path / "mnist").mkdir()
    shades = random.integers(0, 200, (10, 28, 28))
    for name, count in (("train", 1200), ("t10k", 600)):
        t = random.integers(0, 10, count)
        x = shades[t] + random.integers(0, 56, (count, 28, 28))
        for kind, magic, array in (("images-idx3", 0x803, x), ("labels-idx1", 0x801, t)):
            header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            file = tmp_path / "mnist" / f"{name}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    monkeypatch.setenv("BNKIT_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize("name", tutorial.__all__)
def test_signatures_are_the_tutorials(name):
    def parameters(module):
        return [(p.name, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]

    expected = parameters(textbook)
    if name == "Adam":
        expected = [("lr", 0.001), ("beta1", 0.9), ("beta2", 0.999)]
    assert parameters(tutorial) == expected


@pytest.mark.parametrize(
    ("normalize", "flatten", "one_hot_label"),
    [(True, True, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_load_mnist_gives_the_tutorials_arrays(mnist, normalize, flatten, one_hot_label):
    ours = tutorial.load_mnist(normalize, flatten, one_hot_label)
    expected = textbook.load_mnist(normalize, flatten, one_hot_label)
    for our_part, expected_part in zip(ours, expected, strict=True):
        for our_array, array in zip(our_part, expected_part, strict=True):
            assert our_array.dtype == array.dtype
            assert_array_equal(our_array, array)


def test_the_experiment_prints_the_same_accuracies_with_only_its_imports_changed(mnist):
    printed = []
    for module in ("bnkit.tutorial", "textbook_tutorial"):
        # Only the formulas overflow audibly at scale 1.
        quiet = np.errstate(all="ignore") if module == "textbook_tutorial" else contextlib.nullcontext()
        with quiet, contextlib.redirect_stdout(io.StringIO()) as output:
            exec(SCRIPT.format(module=module), {"__name__": "__main__"})
        printed.append(output.getvalue().splitlines())
    assert len(printed[0]) == 16
    assert printed[0] == printed[1]
    assert any(0.3 < float(line.split()[2]) < 1 for line in printed[0])
