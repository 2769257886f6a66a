"""The table of configuration keys: the variables of the specification, the page about it, and what a node says of them."""
import csv
import json
import os
import re
import subprocess
import tempfile
import unittest
import urllib.request
from datetime import datetime

from lib.uccp import ROOT, SERVER, Node, NodeTest, clean_environment, require

NO_EFFECT = "[no effect in this version]"


def variables():
    """Name and default of each variable of the specification."""
    with open(ROOT / "docs/spec/env-vars.tsv") as file:
        rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row and not row[0].startswith("#")]
    return [(name, kind, default) for name, kind, default, *_ in rows]


def explain(environment=None):
    """What `uccp config explain` says: key -> (value, source, help)."""
    require(SERVER)
    done = subprocess.run([str(SERVER), "config", "explain"], capture_output=True, text=True, env=clean_environment(**(environment or {})))
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return {key: (value, source, text) for key, value, source, text in
            (line.split(None, 3) for line in done.stdout.splitlines())}


def cells(line):
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


class Table(unittest.TestCase):
    def test_every_variable_of_the_specification_is_a_key_that_the_environment_sets(self):
        table = variables()
        self.assertGreater(len(table), 40)
        samples = {"bool": "false", "int": "77", "duration": "77s", "float": "0.7"}
        values = {name: samples.get(kind, "seventy-seven") for name, kind, _ in table} | {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "text"}
        shown = explain(values)
        for name, value in values.items():
            with self.subTest(name):
                self.assertIn(name.lower(), shown)
                got, source, _ = shown[name.lower()]
                self.assertEqual(source, "environment")
                self.assertIn(got, (value, "(hidden)"))

    def test_defaults_that_name_outside_hosts_are_unset(self):
        shown = explain()
        outside = [name.lower() for name, _, default in variables() if "://" in default]
        self.assertGreater(len(outside), 2)
        for name in outside + ["vault_addr", "postgres_url", "redis_url", "s3_endpoint", "elasticsearch_url"]:
            with self.subTest(name):
                self.assertEqual(shown[name][:2], ("(unset)", "default"))

    def test_secrets_are_hidden_wherever_they_come_from(self):
        shown = explain({"VAULT_TOKEN": "very-secret", "S3_SECRET_KEY": "very-secret"})
        self.assertEqual({shown[key][0] for key in ("vault_token", "s3_secret_key")}, {"(hidden)"})

    def test_the_page_is_what_the_program_prints(self):
        page = ROOT / "docs/settings.md"
        require(SERVER)
        done = subprocess.run([str(SERVER), "config", "docs"], capture_output=True, text=True, env=clean_environment())
        self.assertEqual(done.returncode, 0, done.stderr)
        if os.environ.get("UCCP_REWRITE"):
            page.write_text(done.stdout)
        self.assertEqual(page.read_text(), done.stdout, "UCCP_REWRITE=1 writes what the program prints into docs/settings.md")
        # And that is the table that the program goes by.
        rows = {row[0]: row for row in map(cells, done.stdout.splitlines()) if re.fullmatch("[a-z0-9_]+", row[0]) and row[0] != "key"}
        shown = explain()
        self.assertEqual(set(rows), set(shown))
        before = done.stdout.index("## Without an effect")
        for key, (value, _, text) in shown.items():
            with self.subTest(key):
                self.assertEqual(rows[key][1], key.upper())
                self.assertEqual(rows[key][3], "" if value == "(unset)" else value)
                self.assertEqual(NO_EFFECT in text, done.stdout.index(f"| `{key}` |") > before)
                self.assertEqual("[changes while the node runs]" in text, rows[key][4].endswith("*live*"))

    def test_every_key_that_is_named_elsewhere_in_the_page_about_them_exists(self):
        named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", (ROOT / "docs/configuration.md").read_text()))
        self.assertGreater(len(named), 20)
        self.assertEqual(named - set(explain()) - {"uccp_compression_saved_bytes_total"}, set())


class Said(unittest.TestCase):
    def test_a_node_says_which_of_its_settings_have_no_effect(self):
        require(SERVER)
        environment = {"VAULT_ADDR": "https://vault.example.com:8200", "VAULT_TOKEN": "very-secret", "GRAFANA_URL": "https://g:3000"}
        node = Node(agent=False, environment=environment)
        self.addCleanup(node.close)
        node.start()
        said = [line for line in node.errors().splitlines() if "this setting has no effect in this version" in line]
        for name in environment:
            self.assertTrue(any(f"{name} ({name.lower()})" in line for line in said), (name, node.errors()[:2000]))
        self.assertEqual(len(said), len(environment), said)
        self.assertNotIn("very-secret", node.errors())
        settings = {setting["name"]: setting for setting in node.rest.get("config").json["settings"]}
        self.assertEqual(settings["vault_addr"]["source"], "environment", settings["vault_addr"])
        self.assertNotIn("very-secret", json.dumps(settings))


    def test_a_number_out_of_its_range_ends_the_start(self):
        require(SERVER)
        with tempfile.TemporaryDirectory(prefix="uccp-test-") as folder:
            done = subprocess.run([str(SERVER), "dev", "--no-agent", "--ports", "auto", "--data-dir", folder], capture_output=True,
                                  text=True, timeout=60, env=clean_environment(STATE_CACHE_BYTES="1"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("'state_cache_bytes' is out of range; it must be 8388608 to 1099511627776", done.stderr)


class Acts(NodeTest):
    """Variables that have an effect, each by what it changes; ports, files, logins and limits have tests of their own."""

    environment = {"MAX_TASKS_PER_WORKER": "1", "TASK_TIMEOUT": "1s", "LOG_FORMAT": "text", "LOG_LEVEL": "WARN",
                   "METRICS_HOST": "127.0.0.2", "GRAFANA_URL": "https://has.no.effect"}

    def test_one_task_at_a_time_on_the_worker_until_its_time_is_over(self):
        gate = self.node.gate("one")
        self.addCleanup(gate.open)
        tasks = [self.node.submit(gate.wait)["id"] for _ in range(2)]
        # No timeout was named, so the setting holds; before that the other one has no place.
        ended = [self.node.wait_task(task) for task in tasks]
        self.assertEqual([task["status"] for task in ended], ["TIMED_OUT"] * 2)
        before, behind = sorted(ended, key=lambda task: datetime.fromisoformat(task["startTime"]))
        self.assertGreaterEqual(datetime.fromisoformat(behind["startTime"]), datetime.fromisoformat(before["endTime"]))

    def test_the_log_is_text_and_has_what_the_level_asks_for(self):
        lines = self.node.errors().splitlines()
        self.assertTrue([line for line in lines if "GRAFANA_URL" in line], lines)
        for line in lines:
            self.assertRegex(line, r"^\S+Z (WARN|ERROR) ")

    def test_metrics_are_where_they_were_put(self):
        self.assertTrue(self.node.context["metrics"].startswith("127.0.0.2:"))
        with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=30) as answer:
            self.assertEqual(answer.status, 200)


if __name__ == "__main__":
    unittest.main()
