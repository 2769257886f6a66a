"""The contract: messages, services and how each method is repeated, read from the descriptor set in this package.

Nothing of a method is written down twice: the request field of its deduplication key and the field of its cursor come
from the options of the contract. The descriptors are in a pool of their own, so that other packages may bring theirs.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

PACKAGE = "uccp.v1."
_NANOS = 1_000_000_000


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    data = importlib.resources.files("uccp").joinpath("contract.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


@functools.cache
def message_class(name: str) -> Any:
    """The class of a message, by its full name."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


@dataclasses.dataclass(frozen=True)
class Method:
    """One method: its path, its messages, and why it may be repeated."""

    path: str
    request: Any
    response: Any
    key_field: str  # of the request, where the deduplication key goes; empty: it needs none
    mutates: bool
    resume_field: str  # of the request, where the cursor goes; empty: the stream cannot be resumed


@functools.cache
def method(name: str) -> Method:
    """A method by `Service/Name`."""
    service, _, short = name.partition("/")
    found = _pool().FindServiceByName(PACKAGE + service).FindMethodByName(short)
    options = message_class("google.protobuf.MethodOptions").FromString(found.GetOptions().SerializeToString())
    policy = options.Extensions[_pool().FindExtensionByName(PACKAGE + "method")]
    key = policy.idempotency.key_field
    return Method(
        path=f"/{PACKAGE}{service}/{short}",
        request=message_factory.GetMessageClass(found.input_type),
        response=message_factory.GetMessageClass(found.output_type),
        key_field=key if "." not in key else "",
        mutates=policy.HasField("idempotency"),
        resume_field=policy.resume_field,
    )


def enum_name(message: Any, field: str) -> str:
    """The value of an enum field without its prefix: `RUNNING`."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    value = descriptor.enum_type.values_by_number.get(getattr(message, field))
    return str(value.name).removeprefix(_prefix(descriptor.enum_type)) if value else str(getattr(message, field))


def _prefix(enum: Any) -> str:
    return str(enum.values_by_number[0].name).removesuffix("UNSPECIFIED")


def _scalar(field: Any, value: Any) -> Any:
    if field.enum_type is not None and isinstance(value, str):
        return field.enum_type.values_by_name[_prefix(field.enum_type) + value.upper()].number
    if field.type == field.TYPE_BYTES and isinstance(value, str):
        return value.encode()
    return value


def _duration(out: Any, value: Any) -> None:
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else float(value)
    nanos = round(seconds * _NANOS)
    out.seconds, out.nanos = divmod(nanos, _NANOS)


def _set_message(out: Any, value: Any) -> None:
    name = out.DESCRIPTOR.full_name
    if name == "google.protobuf.Duration":
        _duration(out, value)
    elif name == "google.protobuf.Timestamp" and isinstance(value, datetime.datetime):
        out.FromDatetime(value)
    elif name == "google.protobuf.Value":
        json_format.ParseDict(value, out)
    elif isinstance(value, Mapping):
        fill(out, value)
    else:
        out.CopyFrom(value)
    out.SetInParent()


def fill(message: Any, values: Mapping[str, Any]) -> None:
    """Sets fields of a message from Python values; None leaves a field absent. Durations are seconds or timedeltas,
    enums their names without prefix, messages dictionaries.

    Raises TypeError for a field that does not exist or a value that it cannot hold."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if value is None:
            continue
        if name not in fields:
            raise TypeError(f"{message.DESCRIPTOR.name} has no field {name!r}; it has {', '.join(sorted(fields))}")
        field = fields[name]
        try:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                entries = getattr(message, name)
                if field.message_type.fields_by_name["value"].message_type is None:
                    entries.update(value)
                else:
                    for key, one in value.items():
                        _set_message(entries[key], one)
            elif field.is_repeated:
                for one in value:
                    if field.message_type is not None:
                        _set_message(getattr(message, name).add(), one)
                    else:
                        getattr(message, name).append(_scalar(field, one))
            elif field.message_type is not None:
                _set_message(getattr(message, name), value)
            else:
                setattr(message, name, _scalar(field, value))
        except (KeyError, ValueError, AttributeError) as error:
            raise TypeError(f"{message.DESCRIPTOR.name}.{name} cannot be {value!r}: {error}") from error


def build(name: str, **values: Any) -> Any:
    """A message of the contract by its short name, with fields set as fill() does."""
    message = message_class(PACKAGE + name)()
    fill(message, values)
    return message


def seconds(duration: Any) -> float:
    """A Duration in seconds."""
    return float(duration.seconds + duration.nanos / _NANOS)


def time_of(message: Any, field: str) -> datetime.datetime | None:
    """A Timestamp field as a time in UTC; None if it is absent."""
    if not message.HasField(field):
        return None
    stamp: datetime.datetime = getattr(message, field).ToDatetime(tzinfo=datetime.UTC)
    return stamp
