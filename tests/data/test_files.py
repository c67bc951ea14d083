"""`replacing`: a file is written whole or stays as it was."""

import os

import pytest

from bnkit.data.files import replacing


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def write():
        with replacing(path, mode="w") as file:
            file.write("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with replacing(path, mode="w") as file:
        file.write("größer")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "größer"
