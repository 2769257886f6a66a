# timeout: 300
"""A client that is generated from the server's OpenAPI document compiles and works; the document has no lint."""
import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from lib.uccp import ROOT, NodeTest, clean_environment

SOURCE = ROOT / "tests" / "clients" / "openapi"


def npm_tools():
    """The folder of the pinned tools, installed on first use and when the lock file changes; None with the reason."""
    folder = ROOT / "build" / "openapi-client"
    lock = (SOURCE / "package-lock.json").read_bytes()
    stamp = folder / "installed.json"
    if not stamp.exists() or stamp.read_bytes() != lock:
        if not shutil.which("npm"):
            return None, "npm is not installed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, folder)
        done = subprocess.run(["npm", "install", "--prefix", folder, "--no-save", "--ignore-scripts", "--no-audit",
                               "--no-fund"], stdin=subprocess.DEVNULL, capture_output=True, timeout=240)
        if done.returncode != 0:
            return None, "npm cannot get the packages: " + done.stderr.decode()[-300:]
        stamp.write_bytes(lock)
    return folder, None


class GeneratedClient(NodeTest):
    agent = False

    @classmethod
    def setUpClass(cls):
        tools, why = npm_tools()
        if tools is None:
            raise unittest.SkipTest(why)
        super().setUpClass()
        cls.tools = tools
        # Beside the tools, where the compiler finds their types.
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=tools))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        for name in ("client.ts", "tsconfig.json", "redocly.yaml"):
            shutil.copy(SOURCE / name, cls.folder)
        (cls.folder / "package.json").write_text('{"type": "module"}')
        for name in ("openapi.json", "openapi-3.0.json"):
            status, body = cls.get(f"/{name}")
            assert status == 200, (name, status)
            (cls.folder / name).write_bytes(body)

    @classmethod
    def get(cls, path):
        context = cls.node.context
        done = subprocess.run(["curl", "-sS", "--cacert", context["ca"], "-w", "\n%{http_code}",
                               f"https://{context['https']}{path}"], capture_output=True, timeout=30)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def run_tool(self, name, *arguments, **environment):
        return subprocess.run([self.tools / "node_modules" / ".bin" / name, *map(str, arguments)], cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120, text=True,
                              env=clean_environment(**environment))

    def test_the_documents_have_no_lint(self):
        for name in ("openapi.json", "openapi-3.0.json"):
            done = self.run_tool("redocly", "lint", name, "--config", "redocly.yaml",
                                 REDOCLY_TELEMETRY="off", REDOCLY_SUPPRESS_UPDATE_NOTICE="true")
            self.assertEqual(done.returncode, 0, name + (done.stdout + done.stderr)[-4000:])

    def test_a_typed_client_compiles_and_works(self):
        made = self.run_tool("openapi-typescript", "openapi.json", "-o", "api.d.ts")
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        compiled = self.run_tool("tsc", "-p", ".")
        self.assertEqual(compiled.returncode, 0, compiled.stdout[-4000:])
        context = self.node.context
        done = subprocess.run(["node", "client.js", f"https://{context['https']}", context["token"]], cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60, text=True,
                              env=clean_environment(NODE_EXTRA_CA_CERTS=context["ca"]))
        self.assertEqual(done.returncode, 0, done.stderr)
        seen = json.loads(done.stdout)
        self.assertTrue(seen["registered"].startswith("svc_"), seen)
        self.assertEqual(seen["found"], ["10.1.2.3:8080 gold"])
        self.assertEqual(seen["missing"], [404, "SERVICE_NOT_FOUND"])
        self.assertIn("typed", seen["names"])
        self.assertEqual(seen["removed"], 204)

    def test_a_program_that_misuses_the_document_does_not_compile(self):
        """The types are worth something: a wrong field and a missing one are errors."""
        made = self.run_tool("openapi-typescript", "openapi.json", "-o", "api.d.ts")
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        wrong = self.folder / "wrong.ts"
        wrong.write_text('import createClient from "openapi-fetch";\nimport type { paths } from "./api.js";\n'
                         'const client = createClient<paths>({ baseUrl: "" });\n'
                         'await client.POST("/api/v1/services", { body: { serviceName: "x", adress: "10.0.0.1" } });\n')
        self.addCleanup(wrong.unlink)
        compiled = self.run_tool("tsc", "--noEmit", "-p", ".")
        self.assertNotEqual(compiled.returncode, 0)
        self.assertIn("wrong.ts(4", compiled.stdout)


if __name__ == "__main__":
    unittest.main()
