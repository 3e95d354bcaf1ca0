"""Files and folders that are there whole or not at all."""

import os
import shutil

import pytest

from kdjax.drafts import discard, drafted, make_folder, sweep


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


def test_a_folder_loses_its_name_before_its_content(tmp_path, monkeypatch):
    """Half of it is never found under the name, should the power go meanwhile."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "part").write_text("part")
    with monkeypatch.context() as patch:
        patch.setattr("kdjax.drafts.shutil.rmtree", lambda *args, **options: None)
        discard(folder)
    assert not folder.exists()
    (left,) = tmp_path.iterdir()
    assert names(left) == ["part"]
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_what_a_crash_leaves_is_swept_and_nothing_else(tmp_path):
    (tmp_path / ".lock").write_text("kept")
    with drafted(tmp_path / "done") as draft:
        draft.mkdir()
        (draft / "part").write_text("part")
        shutil.copytree(draft, draft.with_name(f"{draft.stem}0.tmp"))  # a crash would leave this
    assert len(names(tmp_path)) == 3
    sweep(tmp_path)
    assert names(tmp_path) == [".lock", "done"]


def test_a_new_folder_is_on_the_disk_with_those_above(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def noted(handle):
        synced.append(os.fstat(handle).st_ino)
        sync(handle)

    monkeypatch.setattr("kdjax.drafts.os.fsync", noted)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
