"""The command line of workflows: `uccp-cli workflow ...`, or `python -m uccp.workflow ...`."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from typing import Any

import uccp
from uccp import workflow
from uccp.workflow.expressions import ExpressionInvalid
from uccp.workflow.store import Store
from uccp.workflow.svg import draw
from uccp.workflow.yaml_reader import read

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: list[str]) -> int:
    """Answers the exit code: 0, 1 when a run failed or a request was refused, 2 for wrong usage."""
    given = _parser().parse_args(arguments)
    try:
        uccp.init(
            context_file=given.context_file, context=given.context, namespace=given.namespace, token=given.token
        )
        return int(given.work(given) or 0)
    except (uccp.UccpError, ExpressionInvalid) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        uccp.shutdown()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="uccp-cli workflow", description="Workflows: docs/workflows.md")
    parser.add_argument("--context-file")
    parser.add_argument("--context")
    parser.add_argument("--namespace", "-n")
    parser.add_argument("--token", help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, work: Any, text: str, *names: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        for one in names:
            made.add_argument(one)
        made.set_defaults(work=work)
        return made

    run = verb("run", _run, "run a file, or a registered workflow by its name, and print its value", "workflow")
    run.add_argument("--id", help="of the run; default: one is made")
    run.add_argument("--version", type=int, help="of a registered workflow; default: the current one")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter; the value is YAML")
    resume = verb("resume", _resume, "go on with a run, and print its value", "id")
    for one in (run, resume):
        one.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    runs = verb("list", _list, "list runs")
    runs.add_argument("--workflow")
    runs.add_argument("--status")
    show = verb("show", _show, "show a run with its steps, or draw it", "id")
    show.add_argument("--svg", metavar="FILE", nargs="?", const="-", help="draw it into a file, or to the output")
    for one in (runs, show):
        one.add_argument("--output", "-o", choices=["text", "json"], default="text")
    verb("check", _check, "say what is wrong with a file", "file")
    cancel = verb("cancel", _cancel, "ask a run to stop", "id")
    cancel.add_argument("--reason", default="it was cancelled")
    verb("delete", _delete, "remove a run that is over", "id")
    verb("register", _register, "keep a file under the name of its workflow, as the current version", "file")
    verb("versions", _versions, "list the versions of a registered workflow", "name")
    back = verb("rollback", _rollback, "make an earlier version the current one", "name")
    back.add_argument("version", type=int, nargs="?", help="default: the one before the current one")
    return parser


def _is_file(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or pathlib.Path(text).is_file()


def _run(given: argparse.Namespace) -> None:
    parameters: dict[str, Any] = {}
    for one in given.set:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise workflow.WorkflowInvalid(f"--set takes NAME=VALUE, not {one!r}")
        parameters[name] = read(value or "''", f"--set {name}").plain()
    if _is_file(given.workflow):
        chosen: Any = workflow.load_yaml(given.workflow)
    else:
        chosen = given.workflow
    _print(
        workflow.run(
            chosen, id=given.id, version=given.version, progress=False if given.quiet else True, **parameters
        )
    )


def _resume(given: argparse.Namespace) -> None:
    _print(workflow.resume(given.id, progress=False if given.quiet else True))


def _print(value: Any) -> None:
    if value is not None:
        print(value if isinstance(value, str) else json.dumps(value, default=repr, indent=2))


def _table(rows: list[list[str]]) -> None:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip())


def _list(given: argparse.Namespace) -> None:
    found = list(workflow.list_runs(workflow=given.workflow, status=given.status and given.status.upper()))
    if given.output == "json":
        return print(json.dumps([vars(one) for one in found], indent=2))
    rows = [["ID", "WORKFLOW", "VERSION", "STATUS", "STEPS", "STARTED", "ENDED"]]
    for one in found:
        done = f"{one.counts.get('SUCCEEDED', 0)}/{sum(one.counts.values())}"
        version = str(one.version) if one.version else "-"
        rows.append([one.id, one.workflow, version, one.status, done, one.started, one.ended or "-"])
    return _table(rows)


def _show(given: argparse.Namespace) -> None:
    run = workflow.get(given.id)
    records = Store(uccp.current()).steps(given.id)
    if given.svg is not None:
        picture = draw(f"{run.id}: {run.workflow}, {run.status.lower()}", records)
        if given.svg == "-":
            return print(picture, end="")
        try:
            pathlib.Path(given.svg).write_text(picture)
        except OSError as error:
            raise workflow.WorkflowInvalid(f"cannot be written: {error.strerror}", where=given.svg) from None
        return None
    if given.output == "json":
        return print(json.dumps({**vars(run), "steps": records}, indent=2))
    for name in ("id", "workflow", "version", "status", "arguments", "created", "started", "ended", "resumes"):
        value = getattr(run, name)
        if value not in ("", 0):
            print(f"{name}: {value}")
    if run.error:
        print(f"error: {run.error.get('step', '')}: {run.error.get('message', '')}".replace(": : ", ": "))
    if records:
        print()
        rows = [["STEP", "KIND", "STATUS", "TASK", "AFTER"]]
        for one in records:
            status = one["status"] + (" (cached)" if one.get("cached") else "")
            after = ", ".join(one.get("after", [])) or "-"
            rows.append([one["id"], one["kind"], status, one.get("task") or "-", after])
        _table(rows)
    return None


def _check(given: argparse.Namespace) -> None:
    found = workflow.load_yaml(given.file)
    print(f"{given.file}: workflow {found.name} with {len(found.document.steps)} steps")


def _cancel(given: argparse.Namespace) -> None:
    workflow.cancel(given.id, reason=given.reason)


def _delete(given: argparse.Namespace) -> None:
    workflow.delete(given.id)


def _register(given: argparse.Namespace) -> None:
    found = workflow.load_yaml(given.file)
    print(f"{found.name} is at version {workflow.register(found)}")


def _versions(given: argparse.Namespace) -> None:
    rows = [["VERSION", "CURRENT", "CREATED", "DESCRIPTION"]]
    for one in workflow.versions(given.name):
        rows.append([str(one.version), "yes" if one.current else "", one.created, one.description])
    _table(rows)


def _rollback(given: argparse.Namespace) -> None:
    print(f"{given.name} is at version {workflow.rollback(given.name, given.version)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
