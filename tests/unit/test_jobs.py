import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import pytest
import torch

from segloop.errors import SegloopError
from segloop.jobs import job, logger, optional


def _snakemake(log: Path) -> SimpleNamespace:
    return SimpleNamespace(log=[str(log)])


def test_the_log_goes_where_the_rule_says(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "rule.log"
    with job(_snakemake(log)):
        logger.info("three masks")
    assert "INFO three masks" in log.read_text()
    assert not logger.handlers


def test_an_error_for_a_person_ends_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "rule.log"
    with pytest.raises(SystemExit) as end, job(_snakemake(log)):
        raise SegloopError("pool.json: no images. Name a folder that has some.")
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: pool.json: no images. Name a folder that has some.\n"
    assert "Traceback" not in log.read_text()


def test_another_error_is_logged_whole_and_passes_on(tmp_path: Path) -> None:
    log = tmp_path / "rule.log"
    with pytest.raises(ZeroDivisionError), job(_snakemake(log)):
        print(1 / 0)
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("save", [lambda file: np.save(file, np.zeros(10**6)), lambda file: torch.save({}, file)])
def test_a_full_disk_is_a_message_that_names_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], save: Callable[[IO[bytes]], None]
) -> None:
    log = tmp_path / "rule.log"
    with pytest.raises(SystemExit) as end, job(_snakemake(log)), Path("/dev/full").open("wb") as file:
        save(file)
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: no room is left for ")
    assert "--directory" in message
    assert "retention.embeddings" in message
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_disk_that_fails_is_a_message_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    with pytest.raises(SystemExit) as end, job(_snakemake(tmp_path / "rule.log")):
        raise OSError(number, os.strerror(number), "tree.zarr")
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: tree.zarr cannot be read or written ({os.strerror(number)}")
    assert "run again" in message


def test_a_job_ends_when_the_snakemake_that_started_it_is_killed(tmp_path: Path) -> None:
    """A stand-in called `snakemake` starts a shell, which starts the job, as Snakemake does."""
    ready, log = tmp_path / "ready", tmp_path / "log"
    body = (
        "import pathlib, time, types\n"
        "from segloop.jobs import job\n"
        f"with job(types.SimpleNamespace(log=[{str(log)!r}])):\n"
        f"    pathlib.Path({str(ready)!r}).write_text(str(__import__('os').getpid()))\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "job.py"
    script.write_text(body)
    launcher = tmp_path / "snakemake"
    launcher.write_text(
        "import subprocess, sys\n"
        "subprocess.call(['bash', '-c', 'set -eu; ' + sys.executable + ' ' + sys.argv[1] + '; true'])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "scripts")}
    with subprocess.Popen([sys.executable, str(launcher), str(script)], env=environment) as process:
        end = time.monotonic() + 30
        while not (ready.exists() and ready.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        job_process = int(ready.read_text())
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while _alive(job_process) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _alive(job_process)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_input_that_a_rule_lacks_is_none() -> None:
    assert optional("") is None
    assert optional("a/b.json") == Path("a/b.json")
