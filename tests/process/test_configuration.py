"""The table of configuration keys: the variables of the specification, the page about it, and what a node says of them."""
import csv
import json
import re
import subprocess
import unittest

from lib.uccp import ROOT, SERVER, Node, clean_environment, require

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

    def test_the_page_has_every_key_with_its_names_and_its_default(self):
        page, section, rows = (ROOT / "docs/configuration.md").read_text(), "", {}
        for line in page.splitlines():
            if line.startswith("## "):
                section = line
            elif re.match(r"\| `[a-z0-9_]+` \|", line):
                key, *rest = cells(line)
                self.assertNotIn(key, rows, "two rows of one key")
                rows[key] = (section, rest)
        shown = explain()
        self.assertEqual(set(rows), set(shown))
        for key, (value, _, text) in shown.items():
            section, rest = rows[key]
            default = "" if value == "(unset)" else value
            with self.subTest(key):
                if len(rest) == 4:
                    self.assertEqual(rest[:3], [key.upper(), "--" + key.replace("_", "-"), default])
                elif len(rest) == 2:
                    self.assertEqual((rest[0], NO_EFFECT in text), (default, True), section)
                # Keys of a cluster have their default in words.
                elif default:
                    self.assertIn(default, rest[0])
                self.assertEqual(NO_EFFECT in text, len(rest) == 2, "with the keys that have no effect, or not")


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


if __name__ == "__main__":
    unittest.main()
