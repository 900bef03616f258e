"""Which AWS operations the services call, read from their code: (resource, operation) pairs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

Call = tuple[str, str]

_WRAPPERS = (("table", "Table"), ("queue", "Queue"), ("instance", "Instance"), ("cloudwatch", "CloudWatch"))

# What the services call the things they hold. A new name for one of them must be added here, or its calls are not seen;
# `unknown_holders` finds those.
HOLDERS = {
    "store": "TaskStore",
    "tasks": "TaskStore",
    "table": "Table",
    "records": "Table",
    "leases": "Table",
    "queue": "Queue",
    "source": "Queue",
    "answers": "Queue",
    "dead_letters": "DeadLetters",
    "instance": "Instance",
    "sink": "CloudWatch",
}
# In `dependencies` a look checks tables and queues.
CHECKED = {"client": ("Table", "Queue", "DeadLetters")}
# Dictionaries, headers and the like, which have methods of the same names.
INNOCENT = {
    *("attributes", "connection", "cycle", "fields", "headers", "kind", "members", "message", "part", "session"),
    *("entry", "facts", "known", "node", "submission", "waiting", "walked", ""),
}
RESOURCES = {
    "Table": "table",
    "Queue": "queue",
    "DeadLetters": "dead_letters",
    "Instance": "instance",
    "CloudWatch": "metrics",
}
CLIENTS = {"ec2": "instance", "dynamodb": "table", "sqs": "queue", "sns": "alerts"}


def calls_of_service(name: str, *libraries: str) -> set[Call]:
    """Of a service on `lib.asyncaws`; `libraries`: modules of `lib` whose code runs for it as well."""
    known = _wrapper_calls()
    paths = [*(REPOSITORY / "services" / name).rglob("*.py"), *(REPOSITORY / library for library in libraries)]
    calls: set[Call] = set()
    for path in paths:
        for holder, method in _method_calls(ast.parse(path.read_text())):
            kinds = CHECKED.get(holder, (HOLDERS[holder],) if holder in HOLDERS else ())
            for kind in kinds:
                calls |= known.get((kind, method), set())
    return calls


def unknown_holders(service: str) -> set[Call]:
    """Calls of a method that ours have as well, on something that is neither known as ours nor as innocent."""
    methods = {method for _, method in _wrapper_calls() if not method.startswith("__")}
    expected = {*HOLDERS, *CHECKED, *INNOCENT}
    return {
        (holder, method)
        for path in (REPOSITORY / "services" / service).rglob("*.py")
        for holder, method in _method_calls(ast.parse(path.read_text()))
        if method in methods and holder not in expected
    }


def calls_of_lambda() -> set[Call]:
    """Of the shutdown Lambda, which holds boto3 clients."""
    calls: set[Call] = set()
    for path in (REPOSITORY / "services" / "shutdown").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            resource = CLIENTS.get(_name(node.func.value))
            if resource is None:
                continue
            operation = node.func.attr
            if operation == "get_paginator" and isinstance(node.args[0], ast.Constant):
                operation = str(node.args[0].value)
            calls.add(_placed(resource, "".join(word.title() for word in operation.split("_"))))
    return calls


def _wrapper_calls() -> dict[tuple[str, str], set[Call]]:
    """For each class and method of ours the calls it leads to."""
    found: dict[tuple[str, str], set[Call]] = {}
    for module, kind in _WRAPPERS:
        for method, operations in _operations(REPOSITORY / "lib" / "asyncaws" / f"{module}.py", kind).items():
            found[kind, method] = {_placed(RESOURCES[kind], operation) for operation in operations}
            if kind == "Queue":
                found["DeadLetters", method] = {("dead_letters", operation) for operation in operations}
    store = _class(REPOSITORY / "lib" / "gputask" / "store.py", "TaskStore")
    for method, reached in _closure(store).items():
        calls: set[Call] = set()
        for name in reached:
            for holder, called in _method_calls(store[name]):
                if holder == "table":
                    calls |= found["Table", called]
        found["TaskStore", method] = calls
    return found


def _operations(path: Path, kind: str) -> dict[str, set[str]]:
    """Method -> operations: the text that is given to `call` first."""
    methods = _class(path, kind)
    operations: dict[str, set[str]] = {}
    for method, reached in _closure(methods).items():
        operations[method] = {
            str(node.args[0].value)
            for name in reached
            for node in ast.walk(methods[name])
            if isinstance(node, ast.Call)
            and _name(node.func) == "call"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        }
    return operations


def _class(path: Path, name: str) -> dict[str, ast.AST]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {item.name: item for item in node.body if isinstance(item, ast.AsyncFunctionDef | ast.FunctionDef)}
    raise LookupError(name)


def _closure(methods: dict[str, ast.AST]) -> dict[str, set[str]]:
    """Method -> itself and those of its own class that it reaches, if only through a gatherer."""
    gathered = _gathered(methods)
    direct = {
        name: {called for holder, called in _method_calls(body) if holder == "self" and called in methods}
        | {gathered[holder] for holder, called in _method_calls(body) if holder in gathered and called == "ask"}
        for name, body in methods.items()
    }
    reached = {name: {name} for name in methods}
    for _ in methods:
        for name in methods:
            reached[name] |= set().union(*(direct[other] for other in reached[name]))
    return reached


def _gathered(methods: dict[str, ast.AST]) -> dict[str, str]:
    """Gatherer -> the method it asks with: `self._reads: ... = Gatherer(self._read_all, ...)`."""
    return {
        _name(node.target): node.value.args[0].attr
        for body in methods.values()
        for node in ast.walk(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.value, ast.Call)
        and _name(node.value.func) == "Gatherer"
        and isinstance(node.value.args[0], ast.Attribute)
    }


def _method_calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield _name(node.func.value), node.func.attr


def _name(node: ast.AST) -> str:
    """The last name of `self._store`, `aws.request_table`: `store`, `table`."""
    text = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return text.strip("_").removeprefix("request_")


def _placed(resource: str, operation: str) -> Call:
    # SQS's batches have no action of their own.
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
    operation = operation.removesuffix("Batch") if resource == "queue" else operation
    # Our code queries the index only.
    return ("index" if operation == "Query" else resource, operation)
