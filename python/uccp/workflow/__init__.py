"""Workflows: steps that need each other, run on the cluster, which go on where they stood after any crash.

from uccp import workflow

@workflow.step(retries=2, cache=True)
def train(rate, data): ...

@workflow.define
def sweep(rates):
    data = load()
    return best(train.map(rates, data=data))

workflow.run(sweep, [0.1, 0.2], id="sweep-1")
workflow.resume("sweep-1")         # after a crash, in any process

docs/workflows.md explains it.
"""

from __future__ import annotations

from uccp.workflow.definition import Step, Workflow, define, step, when
from uccp.workflow.errors import WorkflowCancelled, WorkflowFailed, WorkflowInvalid
from uccp.workflow.graph import Graph, Node
from uccp.workflow.mapreduce import map_reduce
from uccp.workflow.runs import (
    Run,
    RunInfo,
    StepInfo,
    VersionInfo,
    cancel,
    delete,
    get,
    list_runs,
    list_steps,
    list_workflows,
    register,
    result,
    resume,
    rollback,
    run,
    start,
    unregister,
    versions,
)
from uccp.workflow.yaml_format import YamlWorkflow, load_yaml, parse_yaml

__all__ = [
    "Graph",
    "Node",
    "Run",
    "RunInfo",
    "Step",
    "StepInfo",
    "VersionInfo",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowFailed",
    "WorkflowInvalid",
    "YamlWorkflow",
    "cancel",
    "define",
    "delete",
    "get",
    "list_runs",
    "list_steps",
    "list_workflows",
    "load_yaml",
    "map_reduce",
    "parse_yaml",
    "register",
    "result",
    "resume",
    "rollback",
    "run",
    "start",
    "step",
    "unregister",
    "versions",
    "when",
]
