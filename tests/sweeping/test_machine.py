from __future__ import annotations

import fcntl
import os
import subprocess

from tidepool.sweeping.machine import ProcessId, gpu_ids, is_locked, run_environment


def test_gpus_are_those_the_environment_shows(monkeypatch):
    for text, ids in (("", []), ("-1", []), ("0,2", ["0", "2"]), ("GPU-a, 1,-1,3", ["GPU-a", "1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert gpu_ids() == ids


def test_gpus_are_counted_by_the_driver_where_the_environment_is_silent(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho '  MIG 1g Device 0: x'\necho 'GPU 1: H100 (UUID: GPU-2)'\n"
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu_ids() == ["0", "1"]


def test_each_worker_gets_its_own_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    given = [run_environment(worker, 3, ["4", "7"])["CUDA_VISIBLE_DEVICES"] for worker in range(3)]
    assert given == ["4", "7", "4"]
    assert "CUDA_VISIBLE_DEVICES" not in run_environment(0, 1, [])


def test_workers_share_the_cores_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("tidepool.sweeping.machine.core_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_environment(0, 3, [])["OMP_NUM_THREADS"] == "2"
    assert run_environment(0, 20, [])["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run_environment(0, 3, [])["OMP_NUM_THREADS"] == "5"


def test_a_process_is_told_from_a_later_one_with_its_number():
    me = ProcessId.of(os.getpid())
    assert me.is_here()
    assert me.is_alive()
    assert ProcessId.from_json(me.to_json()) == me
    assert not ProcessId(me.machine, me.pid, me.started + 1).is_alive()
    assert not ProcessId("another machine", me.pid, me.started).is_here()


def test_an_ended_process_is_not_alive_even_before_it_is_waited_for():
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = ProcessId.of(process.pid)
        assert identity.is_alive()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not identity.is_alive()


def test_a_run_folder_is_locked_while_its_run_holds_the_lock(tmp_path):
    assert not is_locked(tmp_path)
    with (tmp_path / ".lock").open("w") as lock:
        assert not is_locked(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
