"""What a report says about the machine."""

import subprocess

import torch

from dyhead_det.reporting.environment import describe_environment, git_revision, num_cores


def test_versions_and_device_are_told():
    told = describe_environment(torch.device("cpu"))
    assert told["torch"] == torch.__version__.partition("+")[0]
    assert told["device"] == "cpu"
    assert f"{num_cores()} cores" in told["CPU"]
    assert {"Python", "torchvision", "operating system", "git revision"} <= told.keys()


def test_a_commit_is_told_and_whether_files_have_changed_since(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    git("init", "-q")
    assert git_revision(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    commit = git_revision(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == f"{commit}, with uncommitted changes"


def test_without_a_repository_or_without_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_revision(tmp_path) is None
