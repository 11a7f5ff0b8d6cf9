import getpass
import importlib.metadata
import json
import platform
import socket
import subprocess

import pytest
import torch

from xlora_bench.runs import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "xlora_bench").mkdir()
    (tmp_path / "xlora_bench" / "a.py").write_text("")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.code.cache_clear()
    yield tmp_path
    provenance.code.cache_clear()


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_names_the_commit_and_says_whether_it_was_changed(checkout):
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "x")
    assert provenance.code() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "xlora_bench" / "b.py").write_text("new")
    assert provenance.code()["dirty"] is False, "one process runs one state of the code"
    provenance.code.cache_clear()
    assert provenance.code()["dirty"] is True


def test_an_installed_package_has_no_commit_even_inside_a_repository(checkout, monkeypatch):
    git(checkout, "init")
    site = checkout / "lib" / "site-packages"
    site.mkdir(parents=True)
    monkeypatch.setattr(provenance, "ROOT", site)
    assert provenance.code() == {"commit": None, "dirty": None}


def test_versions_are_those_installed():
    versions = provenance.versions()
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["python"] == platform.python_version()


def test_machine_tells_nothing_about_its_owner():
    machine = provenance.machine()
    assert machine["threads"] == torch.get_num_threads()
    assert machine["memory_bytes"] > 0
    text = json.dumps(machine)
    assert socket.gethostname() not in text.split()
    assert f"/{getpass.getuser()}" not in text
