"""The same sweep through W&B: `wandb sweep` registers it, `wandb agent` processes run it.

Both are W&B's own commands, started as child processes. Keys come from the environment or netrc, never from here.
"""

from __future__ import annotations

import importlib.util
import json
import netrc
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tidepool.records import write_json
from tidepool.sweeping import children, records
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.ledger import Result
from tidepool.sweeping.machine import run_environment
from tidepool.sweeping.parameters import Value
from tidepool.sweeping.spec import Sweep

ONLINE_FILE = "online.json"
_DEFAULT_SERVER = "https://api.wandb.ai"
_DEFAULT_PROJECT = "tidepool"
_CONNECT_TIMEOUT_S = 10
_REGISTER_TIMEOUT_S = 120
_AGENT_LINE = re.compile(r"wandb agent (?:--\S+ )*(\S+/\S+/\S+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Registered:
    """A sweep on W&B: its path `entity/project/id`, and the group its runs carry in their config."""

    path: str
    group: str


def check_login() -> None:
    """Refuse where W&B is not installed, no key is at hand, or its server does not answer.

    Raises:
        SweepError: one line saying what to do.
    """
    if importlib.util.find_spec("wandb") is None:
        raise SweepError("--online: wandb is not installed: pip install wandb")
    server = os.environ.get("WANDB_BASE_URL", _DEFAULT_SERVER)
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SweepError(f"--online: WANDB_BASE_URL is {server!r}; expected an address such as {_DEFAULT_SERVER}")
    if not os.environ.get("WANDB_API_KEY") and not _key_in_netrc(parts.hostname):
        raise SweepError(f"--online: no W&B key for {parts.hostname}: run `wandb login`, or set WANDB_API_KEY")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise SweepError(f"--online: {server} cannot be reached ({error}); without --online it runs here") from None


def _key_in_netrc(host: str) -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        entry = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return False
    return entry is not None and bool(entry[2])


def sweep_argv(sweep: Sweep, file: Path) -> list[str]:
    """The `wandb sweep` command that registers `sweep` from `file`."""
    argv = [sys.executable, "-m", "wandb", "sweep", "--project", project(sweep)]
    if sweep.entity is not None:
        argv += ["--entity", sweep.entity]
    return [*argv, str(file)]


def agent_argv(sweep_path: str) -> list[str]:
    """The `wandb agent` command that runs the sweep `entity/project/id`, handing Ctrl-C on to its run."""
    return [sys.executable, "-m", "wandb", "agent", "--forward-signals", sweep_path]


def project(sweep: Sweep) -> str:
    """The W&B project of the sweep's runs."""
    return sweep.project or os.environ.get("WANDB_PROJECT") or _DEFAULT_PROJECT


def register(sweep: Sweep, directory: Path) -> Registered:
    """The sweep on W&B: the one `directory` knows from an earlier call, else a new one.

    What W&B is given is the sweep file with one constant parameter more, ``group``: it reaches every run's
    config.json, and tells which records on this disk are the sweep's.

    Raises:
        SweepError: W&B did not take the sweep; its reason on one line.
    """
    known = directory / ONLINE_FILE
    try:
        content = json.loads(known.read_text(encoding="utf-8"))
        return Registered(str(content["sweep"]), str(content["group"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SweepError(f"{known}: cannot be read ({error}); remove it to register the sweep again") from None
    group = f"{sweep.name}-{datetime.now():%Y%m%d-%H%M%S}"
    parameters = {**sweep.content["parameters"], "group": {"value": group}}
    given = {**sweep.content, "name": sweep.name, "program": sweep.program[-1], "parameters": parameters}
    if len(sweep.program) > 1:  # a command of this package, not a file: W&B's agent reads it word by word
        words = [sweep.program if word == "${program}" else (word,) for word in sweep.command]
        given["command"] = [word for part in words for word in part]
    file = directory / "online.yaml"
    file.write_text(yaml.safe_dump(given, sort_keys=False, allow_unicode=True), encoding="utf-8")
    registered = Registered(_wandb_sweep(sweep_argv(sweep, file)), group)
    write_json(known, {"sweep": registered.path, "group": group})
    return registered


def _wandb_sweep(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_REGISTER_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise SweepError(f"--online: W&B did not answer within {_REGISTER_TIMEOUT_S} s") from None
    output = _COLOUR.sub("", done.stdout + done.stderr)
    match = _AGENT_LINE.search(output)
    if done.returncode != 0 or match is None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        raise SweepError(f"--online: W&B did not take the sweep ({lines[-1] if lines else 'no reason given'})")
    return match.group(1)


def run_agents(sweep: Sweep, sweep_path: str, directory: Path, *, workers: int, gpus: Sequence[str]) -> int:
    """Run `workers` agents until the sweep has no more runs for them; 0, or the exit code of one that failed.

    SIGINT and SIGTERM are handed on, as with runs started here; the result is then 128 + the signal.
    """
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda got, frame: received.append(got)) for number in numbers}
    agents: list[children.Child] = []
    codes: list[int] = []
    try:
        for worker in range(workers):
            environment = run_environment(worker, workers, list(gpus), entity=sweep.entity)
            environment["WANDB_PROJECT"] = sweep_path.split("/")[1]
            # The agent runs whatever `python` it finds first: let it find this one, activated or not.
            environment["PATH"] = os.pathsep.join(
                (str(Path(sys.executable).parent), environment.get("PATH", os.defpath))
            )
            log = directory / f"agent-{worker}.log"
            agents.append(children.start(agent_argv(sweep_path), log, environment))
        running = list(agents)
        while running:
            for agent in list(running):
                code = agent.poll()
                if code is not None:
                    running.remove(agent)
                    codes.append(code)
                elif len(received) > 1:
                    agent.kill()
                elif received:
                    agent.stop(grace_s=30.0)
                    agent.enforce()
            time.sleep(0.1)
    finally:
        for agent in agents:
            agent.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        return 128 + received[0]
    return max(codes, default=0)


def recorded_runs(group: str, runs: Path) -> list[Path]:
    """The run folders in `runs` whose config.json names `group`."""
    found = []
    for config in sorted(runs.glob("*/config.json")):
        try:
            content = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("group") == group:
            found.append(config.parent)
    return found


def finished_params(sweep: Sweep, directory: Path, runs: Path) -> list[dict[str, Value]]:
    """The parameters of the runs that finished in the sweep that `directory` knows."""
    if not (directory / ONLINE_FILE).exists():
        return []
    results_there = results(sweep, recorded_runs(register(sweep, directory).group, runs))
    return [dict(result.params or {}) for result in results_there if result.outcome == "finished"]


def results(sweep: Sweep, folders: Sequence[Path]) -> list[Result]:
    """What became of the runs in `folders`, which W&B's agents made."""
    return [_result(sweep, folder) for folder in folders]


def _result(sweep: Sweep, folder: Path) -> Result:
    summary = records.read_summary(folder)
    outcome = {"finished": "finished", "diverged": "diverged"}.get(str(summary.get("status")), "failed")
    values = records.metric_values(folder, sweep.metrics) if outcome == "finished" else ()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    params = {parameter.name: config.get(parameter.name) for parameter in sweep.parameters}
    return Result(folder.name, outcome, folder.name, values, summary.get("exit_reason"), params)
