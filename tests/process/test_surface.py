# timeout: 900
"""The whole REST surface as its OpenAPI document describes it: reviewed, complete, and true under generated requests."""
import concurrent.futures
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from lib.uccp import ROOT, NodeTest, clean_environment

GOLDEN = ROOT / "docs" / "openapi"
PAGES = ROOT / "build" / "share" / "apidocs"
# Examples an operation and phase. More find more: UCCP_SURFACE_EXAMPLES=100.
EXAMPLES = os.environ.get("UCCP_SURFACE_EXAMPLES", "4")
# Programs at a time. Threads of one would do, but ast.parse() of Python 3.11 is not safe in threads.
PROGRAMS = 3
# A call of this waits for half a minute, if it is about a member: nobody starts those that others have made. So it comes when
# they are there, each example in a program of its own.
WAITING = "Administration_PromoteMember"
# What a schema cannot say, each with its reason:
IMPOSSIBLE = {
    "positive_data_acceptance": "rules between fields and of the state are not in a JSON schema",
    "negative_data_rejection": "output-only fields are ignored, numbers may be texts, as protobuf's JSON form has it",
}
# Checks that single operations are let off.
SETTINGS = """
# In `DELETE /x/{id}:verb` the colon belongs to the id when only POST has the verb: names may contain colons.
[[operations]]
include-path-regex = ":[a-zA-Z]+$"
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false

# DELETE and PATCH of this path are those of the instance whose id is "discover".
[[operations]]
include-path = "/api/v1/services/discover"
checks.allow_header_conformance.enabled = false

# These wait, for a node that nobody starts or for what another caller holds: 504 at the end of the time is what their
# comments name.
[[operations]]
include-operation-id = ["Administration_PromoteMember", "Coordination_AcquireLock", "Coordination_AcquireReadLock",
                        "Coordination_AcquireSemaphore", "Coordination_WaitBarrier", "Coordination_WaitLatch"]
checks.not_a_server_error.enabled = false
"""


def operations(document):
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


class SurfaceTest(NodeTest):
    agent = False

    def document(self, name="openapi.json"):
        response = self.node.client(token=None).get("/" + name)
        self.assertEqual(response.status, 200, response)
        return response.json


class Document(SurfaceTest):
    def test_is_the_reviewed_one_with_what_is_not_built_marked(self):
        for name in ("openapi.json", "openapi-3.0.json"):
            served = self.document(name)
            for path, verb, operation in operations(served):
                unbuilt = operation.pop("x-uccp-unbuilt", False)
                self.assertEqual(unbuilt, operation["responses"].pop("501", None) is not None, (verb, path))
            golden = json.loads((GOLDEN / name).read_text())
            # The version is that of the program.
            served["info"].pop("version"), golden["info"].pop("version")
            for part in golden:
                for key in golden[part] if isinstance(golden[part], dict) else ():
                    self.assertEqual(served[part].get(key), golden[part][key], (name, part, key))
            self.assertTrue(served == golden, f"{name} has more than the reviewed document; see call_test OpenApi")

    def test_has_every_route_of_the_specification(self):
        listed = {(verb.upper(), re.sub(r"{[^}]*}", "{}", path)) for path, verb, _ in operations(self.document())}
        wanted = set()
        for line in (ROOT / "docs/spec/rest-endpoints.tsv").read_text().splitlines():
            if line and not line.startswith("#"):
                verb, path, _ = line.split("\t", 2)
                wanted.add((verb, re.sub(r"{[^}]*}", "{}", path.partition("?")[0])))
        # Service groups whose contract is not written yet.
        missing = {(verb, path) for verb, path in wanted - listed if path.startswith("/api/v1/")}
        groups = {path.split("/")[3].split(":")[0] for _, path in listed if path.startswith("/api/v1/")}
        self.assertEqual({entry for entry in missing if entry[1].split("/")[3].split(":")[0] in groups}, set())

    def test_is_shown_by_two_pages_that_load_nothing_from_elsewhere(self):
        if not (PAGES / "swagger-ui-bundle.js").exists() or not (PAGES / "redoc.standalone.js").exists():
            self.skipTest("the npm packages of web/apidocs are not installed (tools/setup test)")
        rest = self.node.client(token=None)
        for path in ("/docs", "/docs/redoc"):
            page = rest.get(path)
            self.assertEqual(page.status, 200, page)
            self.assertIn("script-src 'self'", page.headers["Content-Security-Policy"])
            parts = re.findall(r'(?:src|href)="([^"]*)"', page.body.decode())
            self.assertTrue(parts)
            for part in parts:
                self.assertTrue(part.startswith("/docs/"), part)
                self.assertEqual(rest.get(part).status, 200, part)


class Niceties(SurfaceTest):
    def service(self, name, **fields):
        response = self.rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": 80, "ttl": "600s",
                                               **fields})
        self.assertEqual(response.status, 201, response)
        return response.json

    def test_pages_are_linked_and_projected(self):
        for i in range(3):
            self.service("linked", port=80 + i)
        target, seen = "/api/v1/services?pageSize=2&fields=id&filter=serviceName%3D%22linked%22", []
        while target:
            response = self.rest.call("GET", target)
            self.assertEqual(response.status, 200, response)
            seen += response.json["services"]
            link = response.headers.get("Link")
            target = re.fullmatch(r'<([^>]*)>; rel="next"', link).group(1) if link else None
        self.assertEqual(len(seen), 3)
        self.assertEqual({tuple(item) for item in seen}, {("id",)})

    def test_a_stale_etag_is_412(self):
        one = self.service("etag")
        path = f"services/{one['id']}"
        body = {"labels": {"a": "1"}}
        self.assertEqual(self.rest.call("PATCH", path, body, headers={"If-Match": f'"{one["etag"]}"'}).status, 200)
        self.assert_problem(self.rest.call("PATCH", path, body, headers={"If-Match": f'"{one["etag"]}"'}), 412,
                            "ETAG_MISMATCH")

    def test_a_dry_run_changes_nothing(self):
        response = self.rest.post("tasks", {"command": ["true"], "name": "dry"}, query={"dryRun": "true"})
        self.assertEqual(response.status, 201, response)
        tasks = self.rest.get("tasks", filter='name = "dry"', consistency="linearizable").json["tasks"]
        self.assertEqual(tasks, [])

    def test_every_change_can_be_run_dry(self):
        document = self.document()
        dry, offered = {"$ref": "#/components/parameters/DryRun"}, set()
        for path, verb, operation in operations(document):
            if dry in operation.get("parameters", []):
                offered.add((verb, path))
            # Reads, streams and what needs no credentials are not changes to be tried; parts of a batch say it themselves.
            excused = (verb in ("get", "head") or operation.get("x-uccp-stream") or {} in operation.get("security", [])
                       or path == "/api/v1/batch")
            self.assertTrue(excused or (verb, path) in offered, (verb, path))
        self.assertGreater(len(offered), 80)
        body = {"roles": {"name": "dry-role", "permissions": ["tasks.read"]}, "users": {"name": "dry-user"},
                "tenants": {"name": "dry-tenant"}, "namespaces": {"name": "dry-namespace"}, "locks": {"name": "dry-lock"},
                "latches": {"name": "dry-latch", "count": 1}, "bindings": {"role": "viewer", "members": ["dry-user"]}}
        for kind, resource in body.items():
            response = self.rest.post(kind, resource, query={"dryRun": "true"})
            self.assertIn(response.status, (200, 201), (kind, response))
            if kind != "latches":
                self.assertNotIn(b'"dry-', self.rest.get(kind, consistency="linearizable").body, kind)
        self.rest.post("roles", body["roles"])
        self.assertEqual(self.rest.call("DELETE", "/api/v1/roles/dry-role?dryRun=true").status, 204)
        self.assertEqual(self.rest.get("roles/dry-role").status, 200)
        # What would be refused is refused, and says the same.
        self.assert_problem(self.rest.post("roles", {"name": "Not A Name"}, query={"dryRun": "true"}), 400, "FIELD_INVALID")
        self.assert_problem(self.node.client(token="x").post("roles", body["roles"], query={"dryRun": "true"}), 401)
        self.assert_problem(self.rest.get("roles", dryRun="true"), 400, "DRY_RUN_UNSUPPORTED")

    def test_bodies_may_be_compressed_both_ways(self):
        body = gzip.compress(json.dumps({"serviceName": "zip", "address": "10.0.0.1", "port": 1}).encode())
        response = self.rest.call("POST", "services", body, headers={"Content-Encoding": "gzip"})
        self.assertEqual(response.status, 201, response)
        packed = self.rest.call("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(packed.headers["Content-Encoding"], "gzip")
        self.assertEqual(json.loads(gzip.decompress(packed.body))["openapi"], "3.1.0")

    def test_a_batch_runs_in_order(self):
        register = {"method": "POST", "path": "/api/v1/services",
                    "body": {"id": "batched", "serviceName": "batch", "address": "10.0.0.1", "port": 1, "ttl": "600s"}}
        read = {"method": "GET", "path": "/api/v1/services/batched?consistency=linearizable"}
        remove = {"method": "DELETE", "path": "/api/v1/services/batched"}
        response = self.rest.post("batch", {"requests": [register, read, remove, read]})
        self.assertEqual(response.status, 200, response)
        self.assertEqual([one["status"] for one in response.json["responses"]], [201, 200, 204, 404])
        self.assert_problem(self.node.client(token="x").post("batch", {"requests": [read]}), 401)


class Origins(SurfaceTest):
    environment = {"CORS_ORIGINS": "https://console.example.com,http://localhost:3000"}

    def test_pages_of_the_named_origins_may_call(self):
        ask = {"Access-Control-Request-Method": "POST"}
        for origin in ("https://console.example.com", "http://localhost:3000"):
            allowed = self.rest.call("OPTIONS", "/api/v1/roles", headers={"Origin": origin, **ask})
            self.assertEqual(allowed.status, 204, allowed)
            self.assertEqual(allowed.headers["Access-Control-Allow-Origin"], origin)
            self.assertIn("POST", allowed.headers["Access-Control-Allow-Methods"])
            answer = self.rest.call("GET", "/api/v1/roles", headers={"Origin": origin})
            self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"]), (200, origin))
        other = self.rest.call("GET", "/api/v1/roles", headers={"Origin": "https://elsewhere.example.com"})
        self.assertIsNone(other.headers.get("Access-Control-Allow-Origin"))
        self.assertIn("Origin", ", ".join(other.headers.get_all("Vary")))


class Audit(SurfaceTest):
    def test_changes_are_found_and_the_trails_are_intact(self):
        self.rest.post("services", {"id": "audited", "serviceName": "audit", "address": "10.0.0.1", "port": 1})
        self.rest.call("PATCH", "services/audited", {"labels": {"a": "1"}}, headers={"If-Match": '"no"'})
        task = self.node.submit(["true"])
        # A registration is about the name, a change of it about the instance.
        response = self.rest.get("audit", filter='resource = "audited" OR resource = "audit"')
        self.assertEqual(response.status, 200, response)
        records = response.json["records"]
        self.assertEqual([record["outcome"] for record in records], ["ETAG_MISMATCH", "ok"])
        self.assertEqual(records[1]["method"], "uccp.v1.ServiceDiscovery/Register")
        self.assertTrue(all(record["principal"] and record["time"] for record in records))
        tasks = self.rest.get("audit", method="ScheduleTask").json["records"]
        self.assertEqual(len(tasks), 1, (tasks, task))
        verified = self.rest.get("audit:verify")
        self.assertEqual(verified.status, 200, verified)
        self.assertTrue(verified.json["intact"])
        self.assertEqual([trail["group"] for trail in verified.json["trails"]], ["core", "work"])

    def test_an_export_has_all_and_its_anchors_are_verified_later(self):
        self.rest.post("services", {"id": "exported", "serviceName": "export", "address": "10.0.0.1", "port": 1})
        done = self.node.cli("audit", "export", "-o", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        items = [json.loads(line) for line in done.stdout.splitlines()]
        *records, last = items
        self.assertEqual(last["end"]["reason"], "CAUGHT_UP")
        core = [item["record"] for item in records if item["record"]["group"] == "core"]
        self.assertIn("export", [record.get("resource") for record in core])
        self.assertEqual([r["number"] for r in core], sorted(r["number"] for r in core))
        # By REST the same, and from a cursor only what is behind it.
        with self.rest.stream("audit:export") as stream:
            self.assertEqual([item["record"]["id"] for item in stream if "record" in item], [item["record"]["id"] for item in records])
        self.rest.post("services", {"id": "exported2", "serviceName": "later", "address": "10.0.0.2", "port": 1})
        with self.rest.stream("audit:export", query={"since": last["cursor"]}) as stream:
            self.assertEqual([item["record"]["resource"] for item in stream if "record" in item], ["later"])
        verified = self.rest.get("audit:verify", anchors=last["anchors"]).json
        self.assertTrue(verified["intact"])
        trail = next(trail for trail in verified["trails"] if trail["group"] == "core")
        self.assertEqual((trail["anchor"], trail["recordsPastAnchor"]),
                         (next(a for a in last["anchors"] if a.startswith("core-")), 1))
        # An anchor that the trail does not have shows.
        group, hash_ = trail["anchor"].split(":")
        forged = self.rest.get("audit:verify", anchors=[f"{group}:{'0' * 64}"]).json
        self.assertFalse(forged.get("intact", False))
        ahead = self.rest.get("audit:verify", anchors=[f"core-{10 ** 9}:{hash_}"]).json
        self.assertEqual(next(t for t in ahead["trails"] if t["group"] == "core")["brokenRecord"], f"core-{10 ** 9}")
        self.assert_problem(self.rest.get("audit:verify", anchors=["nonsense"]), 400)
        shown = self.node.cli("audit", "verify", "--anchors", trail["anchor"])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout.decode(), "RECORDS.PAST.ANCHOR")

    def test_the_command_line_searches_and_verifies(self):
        self.rest.post("services", {"id": "by-cli", "serviceName": "cli", "address": "10.0.0.1", "port": 1})
        found = self.node.cli("audit", "search", "--method", "Register", "-o", "json")
        self.assertEqual(found.returncode, 0, found)
        self.assertIn(b"uccp.v1.ServiceDiscovery/Register", found.stdout)
        verified = self.node.cli("audit", "verify")
        self.assertEqual(verified.returncode, 0, verified)
        self.assertIn(b"core", verified.stdout)


class Generated(SurfaceTest):
    """schemathesis makes requests from the document and compares the answers with it."""

    def test_what_is_built_answers_as_described(self):
        program = pathlib.Path(sys.executable).with_name("schemathesis")
        if not program.exists():
            self.skipTest("schemathesis is not installed: it is in tests/clients/requirements.txt (tools/setup test)")
        # Streams have no end.
        chosen = [operation["operationId"] for _, _, operation in operations(self.document())
                  if not operation.get("x-uccp-unbuilt") and not operation.get("x-uccp-stream")]
        self.assertIn(WAITING, chosen)
        chosen.remove(WAITING)
        repeatable = ["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--generation-deterministic"]
        rounds = [[(chosen[i::PROGRAMS], repeatable) for i in range(PROGRAMS)],
                  [([WAITING], ["--phases", "examples,coverage", "--generation-deterministic"])] +
                  [([WAITING], ["--phases", "fuzzing", "--max-examples", "1", "--seed", str(n)]) for n in range(int(EXAMPLES))]]
        results = []
        for one in rounds:
            with concurrent.futures.ThreadPoolExecutor(len(one)) as pool:
                results += pool.map(lambda share: self.run_program(program, *share), one)
        text = "\n".join(result.stdout.decode(errors="replace") for result in results)
        log = ROOT / "build" / "test-results" / f"surface-{self._testMethodName}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
        failed = [result.stdout.decode(errors="replace")[-6000:] for result in results if result.returncode != 0]
        self.assertEqual(failed, [], f"the whole of it is in {log}")

    def run_program(self, program, chosen, options):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="uccp-surface-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        context = self.node.context
        (folder / "schemathesis.toml").write_text(SETTINGS)
        command = [program, "run", f"https://{context['https']}/openapi.json", "--tls-verify", context["ca"],
                   *(argument for name in chosen for argument in ("--include-operation-id", name)),
                   "-H", f"Authorization: Bearer {context['token']}", "--exclude-checks", ",".join(IMPOSSIBLE),
                   *options, "--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure", "--no-color",
                   "--request-timeout", "40", "--workers", "1"]
        return subprocess.run([str(part) for part in command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=840, env=clean_environment(COLUMNS="200"))


if __name__ == "__main__":
    unittest.main()
