"""What every executor of commands owes a task: the same cases for processes and for containers."""
import base64
import hashlib
import pathlib
import tempfile
import unittest

from lib import oci
from lib.uccp import NodeTest, processes_with
from lib.wait import wait_until


def encoded(content):
    return base64.b64encode(content).decode()


class Conformance:
    """The cases; `how` is what makes a task one of the executor. Commands use what busybox has."""

    how = {}
    small = {"cpu": 0.1, "memory": "128Mi"}

    def start(self, command, **fields):
        return self.node.submit(command, **{"resources": self.small, **self.how, **fields})

    def run_task(self, command, **fields):
        return self.node.wait_task(self.start(command, **fields)["id"])

    def lines(self, task, name="stdout"):
        return self.node.log(task["id"], name)

    def up(self, command, **fields):
        """A task that has said that it is up."""
        task = self.start("echo up; " + command, **fields)
        wait_until(lambda: self.lines(task) == [b"up"], what="the command")
        return task

    def needs_limit(self, name):
        isolation = self.rest.get("workers").json["workers"][0]["isolation"]
        if name not in isolation.partition("limits")[2]:
            self.skipTest(f"no limits of {name} here: {isolation}")

    # Ends.

    def test_exit_codes_are_those_of_the_command(self):
        for code in (0, 1, 2, 42, 124, 125, 126, 127, 255):
            task = self.run_task(f"exit {code}")
            self.assertEqual((task["status"], task["exitCode"]), ("FAILED" if code else "SUCCEEDED", code))

    def test_what_the_shell_says_of_a_signal_is_no_success(self):
        task = self.run_task("sh -c 'kill -9 $$'; exit $?")
        self.assertEqual((task["status"], task["exitCode"]), ("FAILED", 137))

    def test_a_program_that_is_not_there_is_named(self):
        task = self.run_task(["no-such-program", "x"])
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("no-such-program", task["statusReason"] + b" ".join(self.lines(task, "stderr")).decode())

    def test_a_timeout_ends_it(self):
        task = self.run_task("echo up; sleep 1000", timeout="2s", gracePeriod="0.2s")
        self.assertEqual((task["status"], task["attemptHistory"][-1]["outcome"]), ("TIMED_OUT", "TIMED_OUT"))

    def test_cancel_asks_first(self):
        task = self.up("trap 'echo asked; exit 0' TERM; echo waits >&2; while :; do sleep 0.05; done")
        wait_until(lambda: self.lines(task, "stderr")[-1:] == [b"waits"], what="the trap")
        self.rest.delete(f"tasks/{task['id']}", query={"reason": "enough"})
        ended = self.node.wait_task(task["id"])
        self.assertEqual((ended["status"], self.lines(ended)), ("CANCELLED", [b"up", b"asked"]))
        self.assertIn("enough", ended["statusReason"])

    def test_who_does_not_listen_is_killed_after_the_grace(self):
        task = self.up("trap '' TERM; while :; do sleep 0.05; done", gracePeriod="0.5s")
        self.rest.delete(f"tasks/{task['id']}")
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")

    def test_without_grace_it_is_killed_at_once(self):
        task = self.up("trap '' TERM; while :; do sleep 0.05; done", gracePeriod="1h")
        self.rest.delete(f"tasks/{task['id']}", query={"gracePeriod": "0s"})
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")

    def test_nothing_of_it_outlives_it(self):
        mark = f"7{self.small['cpu']}{id(self) % 10**8}"
        task = self.up(f"sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; sleep {mark}", gracePeriod="0.5s")
        wait_until(lambda: len(processes_with(mark)) >= 3, what="the family")
        self.rest.delete(f"tasks/{task['id']}")
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")
        self.assertEqual(processes_with(mark), [])

    def test_nothing_outlives_an_end_of_its_own(self):
        mark = f"8{self.small['cpu']}{id(self) % 10**8}"
        self.assertEqual(self.run_task(f"setsid sleep {mark} >/dev/null 2>&1 & exit 0")["status"], "SUCCEEDED")
        wait_until(lambda: processes_with(mark) == [], what="the end of its child")

    def test_attempts_are_repeated_as_asked(self):
        task = self.run_task("echo $UCCP_ATTEMPT; exit 3", retry={"maxAttempts": 3, "initialBackoff": "0.01s"})
        self.assertEqual((task["status"], task["attempts"], self.lines(task)), ("FAILED", 3, [b"1", b"2", b"3"]))

    # What it is given.

    def test_arguments_arrive_as_they_are(self):
        words = ["", "a b", "'\"$x`\\", "line\nbreak", "hä→", "-n", "--", "*"]
        task = self.run_task(["sh", "-c", 'for w in "$@"; do printf "%s|" "$w"; done', "sh", *words])
        self.assertEqual(b"\n".join(self.lines(task)).decode(), "".join(w + "|" for w in words))

    def test_the_environment_is_the_tasks(self):
        task = self.run_task('echo "$GREETING"; echo "$UCCP_TASK_ID $UCCP_NAMESPACE $UCCP_ATTEMPT"; [ "$HOME" = "$UCCP_TASK_DIR" ] && echo home',
                             env={"GREETING": "hä  'llo\"$x"})
        self.assertEqual([line.decode() for line in self.lines(task)], ["hä  'llo\"$x", f"{task['id']} default 1", "home"])

    def test_a_path_of_the_task_wins(self):
        task = self.run_task(["/bin/sh", "-c", "echo $PATH"], env={"PATH": "/nowhere:/bin"})
        self.assertEqual(self.lines(task), [b"/nowhere:/bin"])

    def test_standard_input_arrives(self):
        content = bytes(range(256)) * 400
        task = self.run_task("cat | wc -c; cat | wc -c", stdin=encoded(content))
        self.assertEqual([int(line) for line in self.lines(task)], [len(content), 0])

    def test_without_standard_input_it_ends_at_once(self):
        self.assertEqual(int(self.lines(self.run_task("cat | wc -c"))[0]), 0)

    def test_inputs_have_their_content_and_mode(self):
        content = bytes(range(256)) * 40
        task = self.run_task("wc -c < in/a.bin; ./run.sh; ls -l run.sh in/a.bin", inputs=[
            {"path": "in/a.bin", "data": encoded(content), "mode": 0o600},
            {"path": "run.sh", "data": encoded(b"#!/bin/sh\necho ran\n"), "mode": 0o755}])
        lines = self.lines(task)
        self.assertEqual((int(lines[0]), lines[1]), (len(content), b"ran"), self.lines(task, "stderr"))
        self.assertEqual([line.split()[0] for line in lines[2:]], [b"-rw-------", b"-rwxr-xr-x"])

    def test_it_starts_in_its_folder_or_below(self):
        task = self.run_task('pwd; cat file; cd "$UCCP_TASK_DIR" && ls', workingDir="a/b",
                             inputs=[{"path": "a/b/file", "data": encoded(b"here\n")}])
        lines = self.lines(task)
        self.assertTrue(lines[0].endswith(b"/a/b"), lines)
        self.assertEqual(lines[1:], [b"here", b"a"])

    def test_temporary_files_have_a_place_and_are_not_kept(self):
        task = self.run_task('echo x > "$TMPDIR/y" && echo written; echo z > z', outputs=["**"])
        self.assertEqual(self.lines(task), [b"written"])
        self.assertEqual([one["path"] for one in task["artifacts"]], ["z"])

    # What it leaves.

    def test_streams_are_kept_apart_and_in_order(self):
        task = self.run_task("for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf end")
        self.assertEqual(self.lines(task), [b"out 1", b"out 2", b"out 3", b"end"])
        self.assertEqual(self.lines(task, "stderr")[-3:], [b"err 1", b"err 2", b"err 3"])

    def test_output_of_any_bytes_and_of_any_amount(self):
        task = self.run_task("printf '\\000\\377\\n'; seq 1 100000")
        lines = self.lines(task)
        self.assertEqual(lines[0], b"\0\xff")
        self.assertEqual(lines[1:], [b"%d" % number for number in range(1, 100001)])

    def test_artifacts_are_kept_by_pattern(self):
        task = self.run_task("mkdir -p out/deep other; head -c 300000 /dev/urandom > out/deep/big.bin; cat out/deep/big.bin > copy; "
                             ": > out/empty; echo no > other/x; chmod 750 out/empty", outputs=["out/**", "copy"])
        kept = {one["path"]: one for one in task["artifacts"]}
        self.assertEqual(set(kept), {"out/deep/big.bin", "out/empty", "copy"})
        self.assertEqual((kept["copy"]["sha256"], kept["copy"]["size"]), (kept["out/deep/big.bin"]["sha256"], 300000))
        self.assertEqual(kept["out/empty"]["mode"], 0o750)
        content = self.rest.get(f"tasks/{task['id']}/artifacts/copy").body
        self.assertEqual(hashlib.sha256(content).hexdigest(), kept["copy"]["sha256"])

    def test_artifacts_of_a_failure_are_kept(self):
        task = self.run_task("echo evidence > core; exit 1", outputs=["core"])
        self.assertEqual(self.rest.get(f"tasks/{task['id']}/artifacts/core").body, b"evidence\n")

    def test_outputs_follow_no_links(self):
        task = self.run_task("ln -s /etc/passwd out.txt; ln -s /etc dir; echo fine > ok", outputs=["**"])
        self.assertEqual([one["path"] for one in task.get("artifacts", [])], ["ok"])

    # Limits.

    def test_memory_is_limited_and_named(self):
        self.needs_limit("memory")
        task = self.run_task("dd if=/dev/zero of=/dev/null bs=300M count=1; exit $?", resources={"cpu": 0.1, "memory": "64Mi"})
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("out of memory", task["statusReason"])

    def test_processes_are_limited(self):
        self.needs_limit("pids")
        task = self.run_task("i=0; while [ $i -lt 80 ]; do i=$((i+1)); sleep 100 & done; echo never",
                             resources={**self.small, "pids": 40})
        self.assertNotEqual((task["status"], self.lines(task)), ("SUCCEEDED", [b"never"]))

    def test_files_are_limited(self):
        task = self.run_task("dd if=/dev/zero of=big bs=1M count=8 2>/dev/null; wc -c < big", resources={**self.small, "disk": "2Mi"})
        self.assertTrue(all(int(line) <= 2 << 20 for line in self.lines(task)), self.lines(task))

    def test_privileges_are_none(self):
        lines = dict(line.decode().split(":\t") for line in
                     self.lines(self.run_task("grep -E '^(NoNewPrivs|CapInh|CapAmb):' /proc/self/status")))
        self.assertEqual((lines["NoNewPrivs"], int(lines["CapInh"], 16), int(lines["CapAmb"], 16)), ("1", 0, 0))


class Processes(Conformance, NodeTest):
    pass


class Containers(Conformance, NodeTest):
    how = {"container": {"image": "busybox"}}

    @classmethod
    def setUpClass(cls):
        if not oci.BUSYBOX.exists():
            raise unittest.SkipTest("there is no busybox: tools/setup installs busybox-static")
        images = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        images.chmod(0o755)
        (images / "busybox.tar").write_bytes(oci.busybox().tar())
        cls.environment = {"UCCP_AGENT_IMAGES": str(images)}
        super().setUpClass()
        worker = wait_until(lambda: cls.node.rest.get("workers").json.get("workers"), what="the worker")[0]
        if "executor.container" not in worker.get("capabilities", []):
            raise unittest.SkipTest("this machine runs no containers")


if __name__ == "__main__":
    unittest.main()
