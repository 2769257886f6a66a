# needs: uccp
# timeout: 280
"""Workflows whose driver, agent and server are killed: they go on where they stood, and run no finished step again."""
import signal
import subprocess
import sys
import unittest

try:
    import uccp
    from uccp import workflow
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import AGENT, CLI, SERVER, Node, is_running, require
from lib.wait import wait_until

WAIT_S = 120
DRIVER = """
import subprocess, sys
import uccp
from uccp import workflow

SMALL = {"cpu": 0.1, "memory": "128Mi", "retries": 5}

@workflow.step(**SMALL)
def noted(number, folder):
    with open(f"{folder}/ran-{number}", "a") as file:
        file.write("ran\\n")
    return number * 10

@workflow.step(**SMALL)
def held(values, folder):
    subprocess.run(["sh", "-c", f"while [ ! -e {folder}/gate ]; do sleep 0.02; done"], check=True)
    return sum(values)

@workflow.step(dynamic=True, **SMALL)
def last(total, folder):
    return [total, noted(77, folder)]

@workflow.define
def flow(folder, count):
    first = noted.map(list(range(count)), folder=folder)
    return last(held(first, folder), folder)

uccp.init(context_file=sys.argv[1])
print(workflow.run(flow, sys.argv[3], int(sys.argv[4]), id=sys.argv[2]))
"""


@unittest.skipIf(MISSING, MISSING or "")
class Killed(unittest.TestCase):
    def setUp(self):
        require(SERVER, AGENT, CLI)
        self.node = Node()
        self.addCleanup(self.node.close)
        self.node.start()
        self.connect()
        self.addCleanup(uccp.shutdown)
        self.script = self.node.base / "driver.py"
        self.script.write_text(DRIVER)

    def connect(self):
        self.client = uccp.init(context_file=self.node.context_file)
        wait_until(lambda: self.client.call("Administration/GetVersion").feature_level >= 2, 60, "feature level 2")

    def drive(self, run_id, count=6):
        driver = subprocess.Popen([sys.executable, self.script, self.node.context_file, run_id, self.node.shared, str(count)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(driver.communicate)
        self.addCleanup(driver.kill)
        return driver

    def until_held(self, run_id, driver):
        """Waits until all steps before the one that waits have succeeded and that one runs; answers its task."""
        def reached():
            self.assertIsNone(driver.poll(), "the driver ended")
            try:
                steps = {one.id: one for one in workflow.list_steps(run_id)}
            except uccp.NotFound:
                return None
            held = steps.get("held")
            return held and held.task and self.node.task(held.task)["status"] == "RUNNING" and held.task

        return wait_until(reached, WAIT_S, "the step in the middle runs")

    def ran(self, number):
        path = self.node.shared / f"ran-{number}"
        return path.read_text().count("ran") if path.exists() else 0

    def test_after_a_kill_of_everything_a_run_goes_on_where_it_stood(self):
        driver = self.drive("all")
        self.until_held("all", driver)
        driver.kill()
        self.node.kill_agent()
        self.node.kill_group()
        self.node.start()
        self.connect()
        self.assertEqual(workflow.get("all").status, "RUNNING")
        (self.node.shared / "gate").touch()
        self.assertEqual(workflow.resume("all"), [150, 770])
        self.assertEqual([self.ran(number) for number in (*range(6), 77)], [1] * 7)
        self.assertEqual({one.status for one in workflow.list_steps("all")}, {"SUCCEEDED"})
        found = workflow.get("all")
        self.assertEqual((found.status, found.resumes), ("SUCCEEDED", 1))

    def test_what_ran_when_the_driver_died_is_taken_over(self):
        driver = self.drive("driver")
        task = self.until_held("driver", driver)
        driver.kill()
        driver.wait()
        (self.node.shared / "gate").touch()
        self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED", "it goes on without its driver")
        self.assertEqual(workflow.resume("driver"), [150, 770])
        held = next(one for one in workflow.list_steps("driver") if one.id == "held")
        self.assertEqual((held.task, held.tries), (task, 1))
        self.assertEqual([self.ran(number) for number in (*range(6), 77)], [1] * 7)

    def test_a_driver_that_dies_at_any_point_loses_and_repeats_nothing(self):
        (self.node.shared / "gate").touch()
        driver = self.drive("points", count=30)

        def some(least):
            def reached():
                try:
                    done = sum(one.status == "SUCCEEDED" for one in workflow.list_steps("points"))
                except uccp.NotFound:
                    done = -1
                return done >= least or driver.poll() is not None
            return reached

        wait_until(some(0), WAIT_S, "the run is there")
        driver.kill()
        driver.wait()
        resumer = ("import sys, uccp\nfrom uccp import workflow\nuccp.init(context_file=sys.argv[1])\n"
                   "workflow.resume('points')")
        driver = subprocess.Popen([sys.executable, "-c", resumer, self.node.context_file], stderr=subprocess.DEVNULL)
        wait_until(some(8), WAIT_S, "eight steps")
        driver.kill()
        driver.wait()
        self.assertEqual(workflow.resume("points"), [10 * sum(range(30)), 770])
        self.assertEqual([self.ran(number) for number in (*range(30), 77)], [1] * 31)

    def test_a_run_without_a_driver_is_cancelled_at_once(self):
        driver = self.drive("gone")
        task = self.until_held("gone", driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        self.assertFalse(is_running(driver.pid))
        workflow.cancel("gone", reason="nobody wants it")
        self.assertEqual(workflow.get("gone").status, "CANCELLED")
        self.assertEqual(self.node.wait_task(task)["status"], "CANCELLED")
        with self.assertRaisesRegex(workflow.WorkflowCancelled, "nobody wants it"):
            workflow.result("gone")


if __name__ == "__main__":
    unittest.main()
