"""A stand-in for W&B's server: enough of it for the real `wandb sweep` and `wandb agent` of wandb 0.31.

It keeps one sweep, hands its agents the points it was given, one each, then tells them to exit.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

SWEEP_ID = "swp1"


class FakeWandb:
    """Serves on 127.0.0.1 inside a ``with`` block; `operations` and `sweep_config` are what it was asked."""

    def __init__(self, points: Sequence[dict[str, Any]]) -> None:
        self.operations: list[str] = []
        self.sweep_config = ""
        self._points = list(points)
        self._handed = 0
        self._lock = threading.Lock()

    def __enter__(self) -> FakeWandb:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                request = json.loads(self.rfile.read(length) or b"{}")
                answer = fake.answer(request) if self.path == "/graphql" else {}
                self._reply(answer)

            def do_GET(self) -> None:
                self._reply({})

            def _reply(self, answer: Any) -> None:
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        query, variables = request.get("query", ""), request.get("variables") or {}
        words = query.replace("(", " ").replace("{", " ").split()
        name = request.get("operationName") or (words[1] if len(words) > 1 else "")
        with self._lock:
            self.operations.append(name)
            return {"data": self._data(name, variables)}

    def _data(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        if name == "Viewer":
            viewer = {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"viewer": viewer}
        if name == "UpsertSweep":
            self.sweep_config = variables["config"]
            project = {"name": variables.get("projectName"), "entity": {"name": "me"}}
            return {"upsertSweep": {"sweep": {"name": SWEEP_ID, "project": project}, "configValidationWarnings": []}}
        if name == "SweepWithRuns":
            sweep = {
                "id": "s",
                "name": SWEEP_ID,
                "state": "RUNNING",
                "config": self.sweep_config,
                "runs": {"edges": []},
            }
            return {"project": {"sweep": {**sweep, "description": "", "controller": None, "scheduler": None}}}
        if name == "CreateAgent":
            return {"createAgent": {"agent": {"id": f"agent-{len(self.operations)}"}}}
        if name == "Heartbeat":
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps([self._command()])}}
        return {}

    def _command(self) -> dict[str, Any]:
        if self._handed == len(self._points):
            return {"type": "exit"}
        group = yaml.safe_load(self.sweep_config)["parameters"]["group"]["value"]
        point = {**self._points[self._handed], "group": group}
        self._handed += 1
        arguments = {key: {"value": value} for key, value in point.items()}
        return {"type": "run", "run_id": f"run{self._handed}", "program": "fake_train.py", "args": arguments}
