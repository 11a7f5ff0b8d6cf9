from filelock import FileLock

from xlora_bench.system.file_lock import is_locked


def test_a_lock_is_seen_and_left_alone(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    with FileLock(path):
        before = path.stat()
        assert is_locked(path)
        assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not is_locked(path)
    with FileLock(path, timeout=0):  # nothing is left of the attempt
        pass
