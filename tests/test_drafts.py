"""Files and folders that are there whole or not at all."""

import os

import pytest

from kdjax.drafts import drafted


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "file"
    with drafted(path) as draft:
        draft.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    path = tmp_path / "folder"
    for content in ("old", "new"):
        with drafted(path) as draft:
            draft.mkdir()
            (draft / content).write_text(content)
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, kind):
    path = tmp_path / "kept"
    path.write_text("old")

    def fail():
        with drafted(path) as draft:
            if kind == "folder":
                draft.mkdir()
            (draft / "part" if kind == "folder" else draft).write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["kept"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_all_of_it_is_on_the_disk_before_the_name_moves(tmp_path, kind, monkeypatch):
    """A name that reaches the disk before its content is an empty file after a power cut."""
    events, sync, replace = [], os.fsync, os.replace
    inodes = {}

    def noted(handle):
        events.append(inodes.get(os.fstat(handle).st_ino, "parent"))
        sync(handle)

    def moved(old, new):
        events.append("moved")
        replace(old, new)

    monkeypatch.setattr("kdjax.drafts.os.fsync", noted)
    monkeypatch.setattr("kdjax.drafts.os.replace", moved)
    with drafted(tmp_path / "it") as draft:
        if kind == "folder":
            draft.mkdir()
            (draft / "part").write_text("part")
            inodes[(draft / "part").stat().st_ino] = "part"
        else:
            draft.write_text("whole")
        inodes[draft.stat().st_ino] = "draft"
    assert events == (["part"] if kind == "folder" else []) + ["draft", "moved", "parent"]
