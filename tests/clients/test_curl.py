"""curl, as somebody would use it who has read the README: REST, streams, client certificates."""
import json
import shutil
import subprocess
import unittest

from lib.uccp import NodeTest


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class Curl(NodeTest):
    def curl(self, path, *arguments, certificate=False, timeout=60):
        context = self.node.context
        who = (["--cert", context["cert"], "--key", context["key"]] if certificate else
               ["-H", f"Authorization: Bearer {context['token']}"])
        return subprocess.run(["curl", "-sS", "--cacert", context["ca"], *who, *arguments,
                               f"https://{context['https']}/api/v1/{path}"], capture_output=True, timeout=timeout)

    def json(self, path, *arguments, **options):
        done = self.curl(path, "--fail-with-body", *arguments, **options)
        self.assertEqual(done.returncode, 0, done)
        return json.loads(done.stdout)

    def test_token_and_certificate_are_both_taken_and_nothing_is_not(self):
        self.assertEqual(self.json("services")["services"], self.json("services", certificate=True)["services"])
        context = self.node.context
        bare = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{ssl_verify_result}", "--cacert",
                               context["ca"], f"https://{context['https']}/api/v1/services"], capture_output=True)
        self.assertEqual(bare.stdout, b"401 0")
        untrusted = subprocess.run(["curl", "-sS", f"https://{context['https']}/api/v1/services"], capture_output=True)
        self.assertEqual(untrusted.returncode, 60, "the authority is not one that everybody trusts")

    def test_register_discover_deregister(self):
        made = self.curl("services", "-i", "-H", "Content-Type: application/json", "-d",
                         '{"serviceName":"curl","address":"10.0.0.7","port":8080}').stdout.decode()
        self.assertRegex(made.splitlines()[0], "^HTTP/1.1 201")
        self.assertIn("Location: /api/v1/services/svc_", made)
        found = self.json("services/discover?name=curl")["services"]
        self.assertEqual([s["address"] for s in found], ["10.0.0.7"])
        gone = self.curl(f"services/{found[0]['id']}", "-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}")
        self.assertEqual(gone.stdout, b"204")
        self.assertEqual(self.json("services/discover?name=curl&health=any")["services"], [])

    def test_answers_come_compressed_to_who_takes_it(self):
        for encoding in ("br", "gzip"):
            packed = self.curl("config", "-H", f"Accept-Encoding: {encoding}", "-D", "-").stdout
            self.assertIn(f"Content-Encoding: {encoding}\r\n".encode(), packed)
        # curl asks for all that it can take and unpacks the answer.
        unpacked = self.json("config", "--compressed")
        self.assertEqual({s["name"] for s in unpacked["settings"]}, {s["name"] for s in self.json("config")["settings"]})

    def test_post_without_a_content_type_of_json_is_refused(self):
        # What curl -d sends by itself.
        refused = self.curl("services", "-d", '{"serviceName":"x"}', "-w", "%{http_code}").stdout.decode()
        self.assertTrue(refused.endswith("415"), refused)

    def test_a_task_and_its_log_as_it_is_written(self):
        gate = self.node.gate("curl")
        task = self.json("tasks", "--json", json.dumps({"command": ["sh", "-c", f"echo first; {gate.wait}; echo last"]}))
        context = self.node.context
        follower = subprocess.Popen(
            ["curl", "-sSN", "--cacert", context["ca"], "-H", f"Authorization: Bearer {context['token']}",
             f"https://{context['https']}/api/v1/tasks/{task['id']}/logs?follow=true"], stdout=subprocess.PIPE)
        self.addCleanup(follower.stdout.close)
        self.addCleanup(follower.wait)
        self.addCleanup(follower.kill)
        self.assertEqual(json.loads(follower.stdout.readline())["text"], "first")
        gate.open()
        rest = [json.loads(line) for line in follower.stdout]
        self.assertEqual([item.get("text") for item in rest], ["last", None])
        self.assertEqual(rest[-1]["end"]["reason"], "COMPLETED")
        self.assertEqual(follower.wait(30), 0)
        self.assertEqual(self.json(f"tasks/{task['id']}?wait=30s")["status"], "SUCCEEDED")

    def test_an_artifact_is_downloaded_and_can_be_taken_up_again(self):
        task = self.node.run("seq 1 100000 > numbers", outputs=["numbers"])
        target = self.node.shared / "numbers"
        done = self.curl(f"tasks/{task['id']}/artifacts/numbers", "-o", str(target))
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(target.read_bytes(), b"".join(b"%d\n" % n for n in range(1, 100001)))

    def test_a_head_request_has_no_body(self):
        done = self.curl("services", "-I")
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stdout.decode().splitlines()[0], "^HTTP/1.1 200")

    def test_one_connection_serves_many_requests(self):
        context = self.node.context
        url = f"https://{context['https']}/api/v1/services"
        done = subprocess.run(["curl", "-sS", "--cacert", context["ca"], "-H", f"Authorization: Bearer {context['token']}",
                               "-o", "/dev/null", "-w", "%{num_connects} ", *[url] * 1, *sum([["-o", "/dev/null", url]
                                                                                             for _ in range(19)], [])],
                              capture_output=True)
        self.assertEqual([int(n) for n in done.stdout.split()], [1] + [0] * 19, done)

    def test_a_large_upload_is_told_413(self):
        big = self.node.shared / "big.json"
        big.write_text(json.dumps({"serviceName": "x", "address": "1.1.1.1", "port": 1, "type": "x" * (20 << 20)}))
        done = self.curl("services", "--json", f"@{big}", "-H", "Expect:", "-w", "%{http_code}")
        self.assertTrue(done.stdout.endswith(b"413"), done)
        self.assertIn(b"REQUEST_TOO_LARGE", done.stdout)
