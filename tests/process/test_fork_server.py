"""The small process that forks for the agent: it is used, it ends with the agent, and without it tasks run all the same."""
import os
import pathlib
import signal

from lib.uccp import NodeTest, is_running
from lib.wait import wait_until


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class ForkServer(NodeTest):
    def server(self):
        """The id of the process that forks for the agent that runs now."""
        return wait_until(self.find_server, 30, "a fork server of the agent")

    def find_server(self):
        agent = self.node.agent_pid()
        for entry in os.scandir("/proc"):
            try:
                name = pathlib.Path(entry.path, "comm").read_text().strip() if entry.name.isdigit() else ""
                if name == "uccp-spawn" and parent_of(entry.name) == agent and is_running(int(entry.name)):
                    return int(entry.name)
            except OSError:
                continue
        return None

    def test_it_is_a_small_program_and_its_children_are_the_agents(self):
        server = self.server()
        self.assertTrue(os.readlink(f"/proc/{server}/exe").endswith("/uccp-spawn"))
        self.assertEqual(len(os.listdir(f"/proc/{server}/task")), 1)
        resident = next(line for line in pathlib.Path(f"/proc/{server}/status").read_text().splitlines() if "VmRSS" in line)
        self.assertLess(int(resident.split()[1]), 4096, "kB")
        gate = self.node.gate("parent")
        task = self.node.submit(f"echo $$; {gate.wait}")["id"]
        pid = int(wait_until(lambda: self.node.log(task), what="the id of its process")[0])
        self.assertEqual(parent_of(pid), self.node.agent_pid())
        gate.open()
        self.node.wait_task(task)

    def test_it_dies_with_the_agent_and_so_do_its_children(self):
        server = self.server()
        task = self.node.submit("echo $$; sleep 600")["id"]
        pid = int(wait_until(lambda: self.node.log(task), what="the id of its process")[0])
        self.node.kill_agent()
        wait_until(lambda: not is_running(server), 30, "the end of the fork server")
        wait_until(lambda: not is_running(pid), 30, "the end of the task's process")
        self.rest.delete(f"tasks/{task}?gracePeriod=0s")
        self.node.wait_task(task)

    def test_without_it_tasks_run_kept_apart_as_before(self):
        before = self.node.run("id -u; pwd")
        os.kill(self.server(), signal.SIGKILL)
        for _ in range(3):
            after = self.node.run("id -u; pwd; cat in", inputs=[{"path": "in", "data": "aW4K"}])
            self.assertEqual(after["status"], "SUCCEEDED", after)
            uid, folder, content = self.node.log(after["id"])
            was = self.node.log(before["id"])
            self.assertEqual((uid, os.path.dirname(folder), content), (was[0], os.path.dirname(was[1]), b"in"))
        self.assertIn("the fork server is gone", (self.node.dir / "agent.log").read_text())
        # The next agent has one again.
        old = self.node.agent_pid()
        self.node.kill_agent()
        wait_until(lambda: self.node.agent_pid() not in (None, old), 30, "the next agent")
        self.server()
