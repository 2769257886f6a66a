"""What happens to running tasks when the server, the agent or both die."""
import os
import signal

from lib.uccp import AGENT, SERVER, NodeTest, is_running, processes_with, require
from lib.wait import wait_until

require(SERVER, AGENT)

# Fails loudly if two attempts ever run at the same time: the lock is held as long as the process lives.
ALONE = """
exec 9>>{lock}
flock -n 9 || {{ echo "overlap $UCCP_ATTEMPT" >> {marks}; exit 99; }}
echo "start $UCCP_ATTEMPT $$" >> {marks}
{body}
echo "end $UCCP_ATTEMPT" >> {marks}
"""


class FailuresTest(NodeTest):
    def marks(self, name):
        path = self.node.shared / f"{name}.marks"
        return path.read_text().splitlines() if path.exists() else []

    def alone(self, name, body, **fields):
        """Submits a task that notes its attempts and whether two of them overlap."""
        lock, marks = self.node.shared / f"{name}.lock", self.node.shared / f"{name}.marks"
        for path in (lock, marks):
            path.touch()
            path.chmod(0o666)
        return self.node.submit(ALONE.format(lock=lock, marks=marks, body=body), **fields)["id"]

    def wait_start(self, name, count=1):
        wait_until(lambda: len([m for m in self.marks(name) if m.startswith("start")]) >= count, 30, f"start {count}")


class ServerDies(FailuresTest):
    def test_a_task_ends_while_the_server_is_down_and_is_counted_once(self):
        gate = self.node.gate("down")
        task = self.alone("down", f"echo before; {gate.wait}; echo after")
        self.wait_start("down")
        wait_until(lambda: self.node.log(task) == [b"before"], what="its first line")
        self.node.kill_group()
        gate.open()
        # Its mark, not the server, tells that it has ended.
        wait_until(lambda: "end 1" in self.marks("down"), 30, "the end of the task without a server")
        self.node.start()
        ended = self.node.wait_task(task)
        self.assertEqual((ended["status"], ended["exitCode"], ended["attempts"]), ("SUCCEEDED", 0, 1))
        self.assertEqual(len(ended["attemptHistory"]), 1)
        self.assertEqual(self.node.log(task), [b"before", b"after"])
        self.assertEqual([m.split()[0] for m in self.marks("down")], ["start", "end"])

    def test_a_running_task_runs_on_and_its_log_has_no_gap(self):
        gate = self.node.gate("through")
        task = self.alone("through", f"i=0; while [ ! -e {gate.path} ]; do i=$((i+1)); echo $i; sleep 0.01; done")
        self.wait_start("through")
        for _ in range(3):
            before = len(self.node.log(task))
            self.node.kill_group()
            self.node.start()
            self.assertEqual(self.node.wait_task(task, "RUNNING")["attempts"], 1)
            wait_until(lambda: len(self.node.log(task)) > before + 5, 30, "more lines after the restart")
        gate.open()
        self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")
        lines = [int(line) for line in self.node.log(task)]
        self.assertEqual(lines, list(range(1, len(lines) + 1)))
        self.assertEqual([m.split()[0] for m in self.marks("through")], ["start", "end"])

    def test_a_failure_without_a_server_is_a_failure(self):
        gate = self.node.gate("failing")
        task = self.alone("failing", f"{gate.wait}; echo 'end early' >> {self.node.shared}/failing.marks; exit 9")
        self.wait_start("failing")
        self.node.kill()
        gate.open()
        wait_until(lambda: "end early" in self.marks("failing"), 30, "its end")
        self.node.start()
        ended = self.node.wait_task(task)
        self.assertEqual((ended["status"], ended["exitCode"], ended["attempts"]), ("FAILED", 9, 1))

    def test_queued_and_waiting_tasks_are_still_there(self):
        gate = self.node.gate("order")
        first = self.node.submit(f"{gate.wait}; echo x > out", outputs=["out"])
        second = self.node.submit("cat in", inputs=[{"path": "in", "taskOutput": {"taskId": first["id"], "path": "out"}}])
        never = self.node.submit("exit 0", resources={"cpu": 100000})
        self.node.wait_task(first["id"], "RUNNING")
        self.node.restart()
        self.assertEqual(self.node.task(second["id"])["status"], "PENDING")
        self.assertEqual(self.node.task(never["id"])["status"], "QUEUED")
        gate.open()
        self.assertEqual(self.node.wait_task(second["id"])["status"], "SUCCEEDED")
        self.assertEqual(self.node.log(second["id"]), [b"x"])

    def test_a_cancel_that_was_acknowledged_is_not_forgotten(self):
        mark = f"98763.{os.getpid()}"
        task = self.node.submit(f"trap '' TERM; echo up; sleep {mark}; sleep {mark}", gracePeriod="3s")
        wait_until(lambda: self.node.log(task["id"]) == [b"up"], what="its trap")
        self.assertEqual(self.node.rest.delete(f"tasks/{task['id']}").status, 200)
        self.node.restart()
        ended = self.node.wait_task(task["id"], timeout=60)
        self.assertEqual(ended["status"], "CANCELLED")
        self.assertEqual(processes_with(mark), [])

    def test_a_follower_goes_on_behind_its_cursor_after_the_restart(self):
        gate = self.node.gate("cursor")
        task = self.node.submit(f"seq 1 50; {gate.wait}; seq 51 100")
        wait_until(lambda: len(self.node.log(task["id"])) == 50, what="the first half")
        with self.node.rest.stream(f"tasks/{task['id']}/logs", query={"follow": "true"}) as stream:
            seen = [stream.next() for _ in range(30)]
            self.node.kill()
        self.node.start()
        gate.open()
        with self.node.rest.stream(f"tasks/{task['id']}/logs",
                                   query={"follow": "true", "since": seen[-1]["cursor"]}) as stream:
            rest = list(stream)
        self.assertEqual([int(i["text"]) for i in seen + rest if "text" in i], list(range(1, 101)))
        self.assertEqual(rest[-1]["end"]["reason"], "COMPLETED")


class AgentDies(FailuresTest):
    def test_its_attempts_die_with_it_and_run_again_one_at_a_time(self):
        mark = f"98764.{os.getpid()}"
        gate = self.node.gate("agent")
        task = self.alone("agent", f"(setsid sleep {mark} 9>&- &); while [ ! -e {gate.path} ]; do sleep 0.02; done")
        self.wait_start("agent")
        wait_until(lambda: processes_with(f"sleep\0{mark}"), what="its child")
        first = int(self.marks("agent")[0].split()[2])
        self.node.kill_agent()
        wait_until(lambda: not is_running(first), 30, "the end of the attempt of the dead agent")
        self.wait_start("agent", 2)
        # One again: that of the second attempt. Two would be a child that outlived the first.
        wait_until(lambda: len(processes_with(f"sleep\0{mark}")) == 1, 30, "one child")
        gate.open()
        ended = self.node.wait_task(task)
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 2))
        self.assertEqual([a["outcome"] for a in ended["attemptHistory"]][-1], "EXITED")
        self.assertEqual([m.rsplit(" ", 1)[0] if m.startswith("start") else m for m in self.marks("agent")],
                         ["start 1", "start 2", "end 2"])

    def test_a_lost_attempt_costs_no_retry(self):
        gate = self.node.gate("cost")
        task = self.alone("cost", f"[ $UCCP_ATTEMPT = 1 ] && sleep 1000; {gate.wait}; exit 3",
                          retry={"maxAttempts": 2, "initialBackoff": "0.1s"})
        self.wait_start("cost")
        self.node.kill_agent()
        self.wait_start("cost", 2)
        gate.open()
        ended = self.node.wait_task(task)
        # One lost, two tried.
        self.assertEqual((ended["status"], ended["attempts"], ended["retryCount"]), ("FAILED", 3, 1))

    def test_many_tasks_survive_many_agents_with_one_outcome_each(self):
        names = [f"many-{n}" for n in range(6)]
        # They end when all agents are dead that are to die: the end of a program that its agent did not live to note is lost.
        gate = self.node.gate("many")
        tasks = {name: self.alone(name, gate.wait) for name in names}
        for name in names:
            self.wait_start(name)
        old = None
        for attempt in (2, 3):
            old = self.node.kill_agent()
            wait_until(lambda: self.node.agent_pid() not in (None, old), 30, "the next agent")
            for name in names:
                self.wait_start(name, attempt)
        gate.open()
        for name, task in tasks.items():
            ended = self.node.wait_task(task)
            marks = self.marks(name)
            self.assertEqual(ended["status"], "SUCCEEDED", marks)
            self.assertFalse([m for m in marks if m.startswith("overlap")], marks)
            self.assertEqual(len([m for m in marks if m.startswith("end")]), 1, marks)
            self.assertEqual(ended["attempts"], len([m for m in marks if m.startswith("start")]), marks)

    def test_server_and_agent_at_once(self):
        gate = self.node.gate("both")
        task = self.alone("both", gate.wait)
        self.wait_start("both")
        first = int(self.marks("both")[0].split()[2])
        self.node.kill()
        self.node.kill_agent()
        wait_until(lambda: not is_running(first), 30, "the end of its process")
        self.node.start()
        self.wait_start("both", 2)
        gate.open()
        ended = self.node.wait_task(task)
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 2))
        self.assertFalse([m for m in self.marks("both") if m.startswith("overlap")])

    def test_a_stopped_agent_goes_on_where_it_was(self):
        gate = self.node.gate("paused")
        task = self.alone("paused", f"echo a; {gate.wait}; echo b")
        self.wait_start("paused")
        agent = self.node.kill_agent(signal.SIGSTOP)
        try:
            gate.open()
            wait_until(lambda: "end 1" in self.marks("paused"), 30, "its end while the agent is stopped")
            self.assertEqual(self.node.task(task)["status"], "RUNNING")
        finally:
            os.kill(agent, signal.SIGCONT)
        ended = self.node.wait_task(task)
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 1))
        self.assertEqual(self.node.log(task), [b"a", b"b"])


class CleanStop(FailuresTest):
    def test_tasks_that_run_at_a_clean_stop_run_again_after_it(self):
        gate = self.node.gate("stopped")
        task = self.alone("stopped", gate.wait)
        self.wait_start("stopped")
        first = int(self.marks("stopped")[0].split()[2])
        self.assertEqual(self.node.stop(), 0)
        self.assertFalse(is_running(first), "the task outlives its stopped agent")
        self.node.start()
        gate.open()
        ended = self.node.wait_task(task)
        self.assertEqual(ended["status"], "SUCCEEDED")
        self.assertFalse([m for m in self.marks("stopped") if m.startswith("overlap")])
