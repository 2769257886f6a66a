"""What the platform keeps of workflows: definitions and their versions, runs and their steps, cached steps.

Records are JSON in keys below `uccp/workflows/`, for whoever wants to read them; graphs with their code, and values of
runs, are objects of the store `workflows`. docs/formats/workflows.md has every field.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from uccp import errors
from uccp.client import Client
from uccp.workflow.errors import WorkflowInvalid

FORMAT = 1
PREFIX = "uccp/workflows/"
OBJECTS = "workflows"
WRITES_MAX = 100  # of one transaction
WRITE_BYTES_MAX = 1 << 20
VERSIONS_MAX = 1000


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encoded(record: Mapping[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **record}, separators=(",", ":"), sort_keys=True).encode()


def decoded(content: bytes, key: str) -> dict[str, Any]:
    """Raises Corruption for what is no record."""
    try:
        record = json.loads(content)
        if not isinstance(record, dict) or not isinstance(record.get("format"), int):
            raise ValueError("it is no object with a format")
    except ValueError as error:
        raise errors.Corruption(f"key {key} is no record of a workflow: {error}", reason="RECORD_INVALID") from error
    if record["format"] > FORMAT:
        raise errors.FailedPrecondition(
            f"key {key} was written by a newer version (format {record['format']}); this one reads up to {FORMAT}",
            reason="FORMAT_UNKNOWN",
        )
    return record


class Store:
    """The records of a namespace."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._ready = False

    # --- records ---

    def read(self, key: str) -> tuple[dict[str, Any], int] | None:
        """A record and its revision."""
        entry = self.client.kv.get(PREFIX + key)
        return None if entry is None else (decoded(entry.value, entry.key), entry.revision)

    def range(self, prefix: str) -> Iterator[dict[str, Any]]:
        for entry in self.client.kv.range(PREFIX + prefix):
            yield decoded(entry.value, entry.key)

    def write(self, key: str, record: Mapping[str, Any], if_revision: int | None = None) -> int:
        """Answers the revision. With `if_revision` only if the key is at that one, else raises Conflict."""
        return self.client.kv.put(PREFIX + key, encoded(record), if_revision=if_revision)

    def write_all(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Many records, in as few changes as may be."""
        puts: list[dict[str, Any]] = []
        size = 0
        for key, record in records:
            content = encoded(record)
            if puts and (len(puts) == WRITES_MAX or size + len(content) > WRITE_BYTES_MAX):
                self.client.call("KeyValue/Txn", within=None, success=puts)
                puts, size = [], 0
            puts.append({"put": {"key": PREFIX + key, "value": content}})
            size += len(content)
        if puts:
            self.client.call("KeyValue/Txn", within=None, success=puts)

    # --- objects ---

    def put_object(self, key: str, value: Any) -> None:
        if not self._ready:
            try:
                self.client.objects.create_store(OBJECTS)
            except errors.AlreadyExists:
                pass
            self._ready = True
        self.client.objects.put(key, value, store=OBJECTS)

    def get_object(self, key: str) -> Any:
        """Raises NotFound."""
        return self.client.objects.get(key, store=OBJECTS)

    # --- runs ---

    def run(self, run_id: str) -> tuple[dict[str, Any], int]:
        """Raises NotFound."""
        found = self.read(f"runs/{run_id}")
        if found is None:
            raise errors.NotFound(f"there is no run {run_id!r} of a workflow", reason="RUN_NOT_FOUND")
        return found

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        return list(self.range(f"steps/{run_id}/"))

    def delete_objects(self, uid: str) -> None:
        for name in ("graph", "result"):
            self.client.objects.delete(f"runs/{uid}/{name}", store=OBJECTS, missing_ok=True)

    def delete_run(self, run_id: str, uid: str) -> None:
        """The record goes last, so that a deletion that was interrupted can be repeated."""
        self.delete_objects(uid)
        self.client.kv.delete_prefix(f"{PREFIX}steps/{run_id}/")
        self.client.kv.delete(f"{PREFIX}control/{run_id}")
        self.client.kv.delete(f"{PREFIX}runs/{run_id}")

    # --- definitions ---

    def definition(self, name: str) -> tuple[dict[str, Any], int]:
        """Raises NotFound."""
        found = self.read(f"definitions/{name}")
        if found is None:
            known = ", ".join(one["name"] for one in self.range("definitions/")) or "none"
            raise errors.NotFound(
                f"there is no workflow {name!r}; there is: {known}", reason="WORKFLOW_NOT_FOUND"
            )
        return found

    def register(self, name: str, digest: str, description: str, content: Any) -> int:
        """Keeps a definition as the newest version, which becomes the current one, unless it is the current one
        already. Answers its number."""
        while True:
            found = self.read(f"definitions/{name}")
            record, revision = found or ({"name": name, "current": 0, "versions": []}, 0)
            versions = record["versions"]
            current = next((one for one in versions if one["version"] == record["current"]), None)
            if current is not None and current["digest"] == digest:
                return int(current["version"])
            if len(versions) >= VERSIONS_MAX:
                raise errors.Exhausted(f"workflow {name} has {VERSIONS_MAX} versions; delete it", reason="VERSIONS_MAX")
            version = 1 + max((one["version"] for one in versions), default=0)
            self.put_object(f"definitions/{name}/{version}", content)
            versions.append({"version": version, "digest": digest, "description": description, "created": now()})
            record["current"] = version
            try:
                self.write(f"definitions/{name}", record, if_revision=revision)
                return version
            except errors.Conflict:
                continue  # somebody else registered one at the same time

    def set_current(self, name: str, version: int | None) -> int:
        """Makes a version the current one, by default the one before it. Answers which it is now."""
        while True:
            record, revision = self.definition(name)
            numbers = [one["version"] for one in record["versions"]]
            if version is None:
                chosen = max((one for one in numbers if one < record["current"]), default=0)
                if not chosen:
                    raise errors.FailedPrecondition(
                        f"workflow {name} has no version before {record['current']}", reason="VERSION_NOT_FOUND"
                    )
            elif version in numbers:
                chosen = version
            else:
                raise errors.NotFound(
                    f"workflow {name} has no version {version}; it has {', '.join(map(str, numbers))}",
                    reason="VERSION_NOT_FOUND",
                )
            try:
                self.write(f"definitions/{name}", {**record, "current": chosen}, if_revision=revision)
                return int(chosen)
            except errors.Conflict:
                continue

    def load_definition(self, name: str, version: int | None) -> tuple[Any, int]:
        """A definition as it was registered, and its version."""
        record, _ = self.definition(name)
        chosen = record["current"] if version is None else version
        if all(one["version"] != chosen for one in record["versions"]):
            raise errors.NotFound(f"workflow {name} has no version {version}", reason="VERSION_NOT_FOUND")
        return self.get_object(f"definitions/{name}/{chosen}"), int(chosen)

    def delete_definition(self, name: str) -> None:
        record, _ = self.definition(name)
        for one in record["versions"]:
            self.client.objects.delete(f"definitions/{name}/{one['version']}", store=OBJECTS, missing_ok=True)
        self.client.kv.delete(f"{PREFIX}definitions/{name}")

    # --- cached steps ---

    def cached(self, key: str) -> str | None:
        """The task of an equal call that succeeded."""
        found = self.read(f"cache/{key}")
        return None if found is None else str(found[0]["task"])

    def keep_cached(self, key: str, task: str, step: str) -> tuple[str, dict[str, Any]]:
        """The record to be written."""
        return f"cache/{key}", {"task": task, "step": step, "created": now()}


def checked_run_id(run_id: str) -> str:
    """Raises WorkflowInvalid."""
    if not run_id or len(run_id) > 63 or not all(one.isalnum() and one.isascii() or one in "-_." for one in run_id):
        raise WorkflowInvalid(
            f"{run_id!r} is no id of a run: 1 to 63 letters, digits, `-`, `_` and `.`", reason="RUN_ID_INVALID"
        )
    if not run_id[0].isalnum() or not run_id[-1].isalnum():
        raise WorkflowInvalid(f"the id of a run begins and ends with a letter or digit, {run_id!r} does not",
                              reason="RUN_ID_INVALID")
    return run_id
