"""A Ray cluster of this machine for a test: small, on ports of its own, and gone with the test."""
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile

from lib import ports
from lib.uccp import ROOT, clean_environment, end_process
from lib.wait import wait_until

PYTHON = ROOT / "build" / "venv-ray" / "bin" / "python"
START_S = 120
# Starts Ray, says where it is, and ends it when nobody listens any more.
PROGRAM = """
import json, sys
import ray
at = ray.init(num_cpus=int(sys.argv[2]), object_store_memory=100 << 20, include_dashboard=sys.argv[3] == "1", dashboard_port=0,
              log_to_driver=False, logging_level="error", _temp_dir=sys.argv[1])
print(json.dumps({"gcs": at.address_info["gcs_address"], "dashboard": at.dashboard_url}), flush=True)
sys.stdin.read()
ray.shutdown()
"""


def install():
    """Makes build/venv-ray, which `make test` has made already. Fails with what pip said."""
    done = subprocess.run([ROOT / "tools" / "ray"], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"tools/ray: {done.stdout}{done.stderr}")


# Clusters ask for it; who has none is not let in.
ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def agent_environment(address, **more):
    """What an agent needs to run functions on Ray: a Python with ray, our modules beside it, and the token."""
    return {"RAY_ADDRESS": address, "UCCP_AGENT_PYTHON": str(PYTHON), "PYTHONPATH": str(ROOT / "python"), **ACCESS, **more}


def family_of(pid):
    """A process and all that come from it."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def reachable(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


class Cluster:
    def __init__(self, cpus=2, dashboard=False):
        # Short: names of sockets below it have little room.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        command = [str(PYTHON), "-c", PROGRAM, str(self.folder), str(cpus), "1" if dashboard else "0"]
        self.errors = open(self.folder / "errors", "w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env=clean_environment(RAY_USAGE_STATS_ENABLED="0", **ACCESS), start_new_session=True)
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise AssertionError(f"Ray did not start: {self.errors.read()[-3000:]}")
        said = json.loads(line)
        self.address, self.dashboard = said["gcs"], said["dashboard"]

    @contextlib.contextmanager
    def client_server(self):
        """The address of a server for ray://."""
        port = ports.free_ports(1)[0]
        command = [str(PYTHON), "-m", "ray.util.client.server", "--address", self.address, "--host", "127.0.0.1",
                   "--port", str(port)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors,
                                  env=clean_environment(**ACCESS), start_new_session=True)
        try:
            wait_until(lambda: server.poll() is not None or reachable(port), START_S, "the server for ray://")
            yield f"ray://127.0.0.1:{port}"
        finally:
            for pid in family_of(server.pid):
                end_process(pid)
            server.wait()

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)
