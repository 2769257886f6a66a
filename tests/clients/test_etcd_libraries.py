# timeout: 400
"""Client libraries of etcd in other languages, unmodified, against the etcd API: Python's etcd3 and Java's jetcd.

Both are installed below build/ the first time; where that cannot be done the test is skipped and says why."""
import pathlib
import shutil
import subprocess
import unittest

from lib.uccp import ROOT, clean_environment
from test_etcd import EtcdTest

HERE = pathlib.Path(__file__).resolve().parent


def installed(marker, *commands):
    """None once just these commands have run; else why not."""
    wanted = repr(commands)
    if marker.exists() and marker.read_text() == wanted:
        return None
    for command in commands:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300,
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            return f"{command[0]} cannot install it: {(done.stdout + done.stderr).strip()[-300:]}"
    marker.write_text(wanted)
    return None


class LibraryTest(EtcdTest):
    def run_program(self, command, timeout=120):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout,
                              env=clean_environment(), stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue(done.stdout.endswith("done\n"), done.stdout)
        return [line[3:] for line in done.stdout.split("\n") if line.startswith("ok ")]


class Python(LibraryTest):
    def test_etcd3(self):
        venv = ROOT / "build" / "venv-etcd3"
        # It was made for the protobuf and the tenacity of its time, so it has an environment of its own.
        missing = installed(venv / "installed", ["/usr/bin/python3", "-m", "venv", "--clear", venv],
                            [venv / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "etcd3==0.12.0",
                             "protobuf==3.20.3", "tenacity==6.3.1"])
        if missing:
            self.skipTest(missing)
        context = self.node.context
        worked = self.run_program([venv / "bin" / "python3", HERE / "etcd_python" / "program.py",
                                   *context["etcd"].rsplit(":", 1), context["ca"], context["cert"], context["key"]])
        self.assertIn("lock", worked)
        self.assertGreaterEqual(len(worked), 14)


class Java(LibraryTest):
    def test_jetcd(self):
        if not shutil.which("mvn") or not shutil.which("java"):
            self.skipTest("there is no Java with Maven here")
        target = ROOT / "build" / "etcd-java"
        missing = installed(target / "installed", ["mvn", "-q", "-B", "-f", HERE / "etcd_java" / "pom.xml", f"-Dtarget={target}",
                                                   "package"])
        if missing:
            self.skipTest(missing)
        context = self.node.context
        worked = self.run_program(["java", "-cp", f"{target}/classes:{target}/lib/*", "Main", f"https://{context['etcd']}",
                                   context["ca"], context["cert"], context["key"]])
        self.assertIn("a lock excludes", worked)
        self.assertGreaterEqual(len(worked), 16)
