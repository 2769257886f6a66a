"""The program of tests/clients/etcd_go, which uses etcd's own Go library."""
import shutil
import subprocess
import unittest

from lib.uccp import ROOT

SOURCE = ROOT / "tests" / "clients" / "etcd_go"


def go_client():
    """Builds it if it is not there, and answers its path. Skips the test where there is no Go."""
    if not shutil.which("go"):
        raise unittest.SkipTest("go is not installed")
    program = ROOT / "build" / "etcd-go-client"
    if program.exists() and program.stat().st_mtime >= max(path.stat().st_mtime for path in SOURCE.iterdir()):
        return program
    done = subprocess.run(["go", "build", "-o", program, "."], cwd=SOURCE, capture_output=True, text=True, timeout=280)
    if done.returncode == 0:
        return program
    if "dial tcp" in done.stderr or "no required module" in done.stderr or "proxy" in done.stderr:
        raise unittest.SkipTest("the Go modules cannot be had: " + done.stderr[-300:])
    raise AssertionError(done.stderr)
