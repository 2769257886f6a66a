"""Stands for a job of a Ray cluster: submits a command by Ray's job API, writes what it writes, ends as it ends.

    python -m uccp_ray_job --address http://HEAD:8265 --attempt KEY [--env NAME]... -- COMMAND...

What lies in the working folder travels as the job's folder. SIGTERM stops the job. An attempt of the same task that was
left behind, by an agent that died, is stopped first. Exits with 125, and the reason in the last line of standard error,
if there is no job.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import math
import os
import re
import shlex
import signal
import sys
import time
import urllib.error
import urllib.request
import zipfile
from typing import Any, NoReturn

PREFIX = "uccp-ray-job: "
NOT_STARTED = 125
FAILED = 1  # of a job whose exit code Ray does not tell
POLL_FIRST_S, POLL_MAX_S = 0.2, 2.0
REQUEST_S = 30.0
UNREACHABLE_S = 120.0  # for how long Ray may be away while a job runs
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
EXIT_CODE = re.compile(r"exit code (\d+)")


class Refused(Exception):
    """An answer of the job API that says no; `status` is its code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Away(Exception):
    """The job API does not answer."""


class JobApi:
    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """Raises Refused and Away."""
        data = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        request = urllib.request.Request(self._address + path, data=data, method=method)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        request.add_header("Content-Type", kind)
        token = os.environ.get("RAY_AUTH_TOKEN")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace").strip().splitlines()
            raise Refused(error.code, f"{error.code} {error.reason}: {(reason or [''])[-1][:500]}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Away(f"{self._address} does not answer: {error}") from error
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise Refused(200, f"{self._address} is no job API of Ray: {text[:100]!r}") from error


def give_up(reason: str) -> NoReturn:
    print(PREFIX + " ".join(reason.split()), file=sys.stderr, flush=True)
    sys.exit(NOT_STARTED)


def packed_folder(bytes_max: int) -> bytes | None:
    """The working folder as a zip, the same for the same content; None if there is nothing in it."""
    found = sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names if not os.path.islink(name)
    )
    if not found:
        return None
    size = sum(os.path.getsize(path) for path in found)
    if size > bytes_max:
        give_up(
            f"the inputs have {size} bytes, at most {bytes_max} travel to Ray; put them where its nodes can read them"
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in found:
            entry = zipfile.ZipInfo(os.path.relpath(path), (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (os.stat(path).st_mode & 0xFFFF) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            with open(path, "rb") as content:
                archive.writestr(entry, content.read())
    return packed.getvalue()


class Job:
    def __init__(self, api: JobApi, given: argparse.Namespace) -> None:
        self._api, self._given = api, given
        self.id = "uccp-" + re.sub(r"[^A-Za-z0-9_-]", "-", given.attempt)
        self._written = 0
        self._stopping = False

    def submit(self) -> None:
        given = self._given
        runtime: dict[str, Any] = {"env_vars": {name: os.environ.get(name, "") for name in given.env}}
        for name in ("UCCP_TASK_ID", "UCCP_ATTEMPT", "UCCP_NAMESPACE"):
            if name in os.environ:
                runtime["env_vars"][name] = os.environ[name]
        packed = packed_folder(given.folder_bytes_max)
        try:
            self._stop_earlier()
            if packed is not None:
                name = f"_ray_pkg_{hashlib.sha256(packed).hexdigest()[:32]}.zip"
                self._api.call("PUT", f"/api/packages/gcs/{name}", packed)
                runtime["working_dir"] = f"gcs://{name}"
            request: dict[str, Any] = {
                "entrypoint": shlex.join(given.command),
                "submission_id": self.id,
                "runtime_env": runtime,
                "metadata": {"uccp_task": os.environ.get("UCCP_TASK_ID", "")},
            }
            cpus = given.cpu_millis / 1000
            if cpus > 0:
                request["entrypoint_num_cpus"] = math.ceil(cpus) if cpus > 1 else cpus
            if given.memory > 0:
                request["entrypoint_memory"] = given.memory
            self._api.call("POST", "/api/jobs/", request)
        except (Refused, Away) as error:
            give_up(f"Ray takes no job: {error}")

    def _stop_earlier(self) -> None:
        """Those of earlier attempts of this task that still run: who followed them is dead."""
        task = os.environ.get("UCCP_TASK_ID")
        for job in self._api.call("GET", "/api/jobs/") or []:
            metadata = job.get("metadata") or {}
            is_earlier = bool(task) and metadata.get("uccp_task") == task and bool(job.get("submission_id"))
            if is_earlier and job.get("status") not in ENDED:
                self._api.call("POST", f"/api/jobs/{job['submission_id']}/stop")

    def stop(self, *_: Any) -> None:
        self._stopping = True

    def follow(self) -> int:
        """The exit code of the job."""
        pause, away_since, stop_sent = POLL_FIRST_S, None, False
        while True:
            try:
                if self._stopping and not stop_sent:
                    self._api.call("POST", f"/api/jobs/{self.id}/stop")
                    stop_sent = True
                job = self._api.call("GET", f"/api/jobs/{self.id}")
                self._write_logs()
                away_since = None
                if job["status"] in ENDED:
                    return self._code_of(job)
            except Away as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > UNREACHABLE_S:
                    print(f"{PREFIX}the job is lost: {error}", file=sys.stderr, flush=True)
                    return FAILED
            except Refused as error:
                print(f"{PREFIX}the job is lost: {error}", file=sys.stderr, flush=True)
                return FAILED
            time.sleep(pause)
            pause = min(POLL_MAX_S, 1.3 * pause)

    def _write_logs(self) -> None:
        """What is new. Ray tells all of it each time."""
        text = self._api.call("GET", f"/api/jobs/{self.id}/logs")["logs"].encode()
        if len(text) > self._written:
            sys.stdout.buffer.write(text[self._written :])
            sys.stdout.buffer.flush()
            self._written = len(text)

    def _code_of(self, job: dict[str, Any]) -> int:
        if job["status"] == "SUCCEEDED":
            return 0
        code = job.get("driver_exit_code")
        message = job.get("message") or job["status"]
        if code is None:
            named = EXIT_CODE.search(message)
            code = int(named[1]) if named else FAILED
        print(f"{PREFIX}Ray says: {' '.join(message.split())[:1000]}", file=sys.stderr, flush=True)
        return int(code) % 256 or FAILED


def main() -> None:
    arguments = argparse.ArgumentParser(prog="uccp_ray_job")
    arguments.add_argument("--address", required=True)
    arguments.add_argument("--attempt", required=True)
    arguments.add_argument("--cpu-millis", type=int, default=0)
    arguments.add_argument("--memory", type=int, default=0)
    arguments.add_argument("--folder-bytes-max", type=int, default=100 << 20)
    arguments.add_argument("--env", action="append", default=[])
    arguments.add_argument("--has-outputs", action="store_true")
    arguments.add_argument("--has-stdin", action="store_true")
    arguments.add_argument("command", nargs="+")
    given = arguments.parse_args()
    if given.has_outputs:
        give_up("a job on Ray leaves no artifacts: what it writes is on the nodes of Ray; store it where you find it")
    if given.has_stdin:
        give_up("a job on Ray reads no standard input; give it a file among its inputs")
    job = Job(JobApi(given.address), given)
    signal.signal(signal.SIGTERM, job.stop)
    job.submit()
    sys.exit(job.follow())


if __name__ == "__main__":
    main()
