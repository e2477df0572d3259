import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import segloop
from segloop.errors import SegloopError
from segloop.files import read_json
from segloop.workers import worker_map


def test_one_worker_is_this_process() -> None:
    with worker_map(1) as run:
        assert run(math.sqrt, range(4)) == [math.sqrt(x) for x in range(4)]
        assert run(lambda _: os.getpid(), [0]) == [os.getpid()]


def test_two_workers(tmp_path: Path) -> None:
    here = Path.cwd()
    main_file = getattr(sys.modules["__main__"], "__file__", None)
    with worker_map(2, threads=3) as run:
        assert run(math.sqrt, (x for x in range(50))) == [math.sqrt(x) for x in range(50)]
        assert run(math.sqrt, []) == []
        assert run(os.getenv, ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]) == ["3", "3"]
        # An error for a person stays one on its way out of a worker.
        with pytest.raises(SegloopError, match=r"missing\.json does not exist"):
            run(read_json, [tmp_path / "missing.json"])
        assert run(math.sqrt, [4.0]) == [2.0]
    assert multiprocessing.active_children() == []
    assert getattr(sys.modules["__main__"], "__file__", None) == main_file
    assert Path.cwd() == here


def test_no_worker_outlives_an_error() -> None:
    with pytest.raises(RuntimeError, match="stop"), worker_map(2) as run:
        run(math.sqrt, [1.0])
        raise RuntimeError("stop")
    assert multiprocessing.active_children() == []


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(segloop.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(program),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_workers_end_with_a_killed_program() -> None:
    done = run_program("""
        import os, signal
        from segloop.workers import worker_map
        with worker_map(2) as run:
            print(*run(eval, ["__import__('os').getpid()"] * 8), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert done.returncode == -signal.SIGKILL
    workers = set(done.stdout.split())
    assert workers
    patience = time.monotonic() + 30
    while any(running(process) for process in workers):
        assert time.monotonic() < patience, f"workers {workers} still run"
        time.sleep(0.1)


def running(process: str) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_program_without_a_file_and_without_a_guard_may_use_workers() -> None:
    # Scripts that Snakemake runs have a preamble that must not run again in a worker.
    done = run_program("""
        import math, warnings
        warnings.simplefilter("error")
        print("preamble")
        from segloop.workers import worker_map
        with worker_map(2) as run:
            print(run(math.sqrt, [4, 9]))
    """)
    assert done.stdout == "preamble\n[2.0, 3.0]\n"
    assert done.stderr == ""
