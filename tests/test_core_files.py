"""Folders that one process fills at a time."""

import fcntl

import pytest

from chexmsn.core import files
from chexmsn.core.errors import UserError


@pytest.mark.parametrize("end", ["moved", "removed", "made anew"])
def test_a_folder_that_its_holder_took_away_meanwhile_is_not_held(tmp_path, monkeypatch, end):
    """Another process finished between our opening of the folder and our lock, which is then on nothing."""
    place, flock = tmp_path / "place", fcntl.flock
    place.mkdir()

    def late(*how):
        place.rename(tmp_path / "whole") if end == "moved" else place.rmdir()
        if end == "made anew":
            place.mkdir()
        flock(*how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="busy"), files.alone(place, "busy"):
        pytest.fail("held a folder that is gone")


def test_what_took_the_name_of_a_work_folder_after_it_moved_is_left_alone(tmp_path, monkeypatch):
    rename = files.Path.rename

    def then_another_comes(self, target):
        rename(self, target)
        self.mkdir()
        return target

    monkeypatch.setattr(files.Path, "rename", then_another_comes)
    with files.new_folder(tmp_path / "out") as place:
        (place / "a").touch()
    assert (tmp_path / "out" / "a").exists() and (tmp_path / ".out.partial").is_dir()
