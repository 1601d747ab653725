"""Checks the list of commands that a plugin advertises.

Unknown keys are let through; wrong types of known ones are not. Strictness about bool is on
purpose: to Python True is a number, to everyone who reads the list it is not.
"""

import json

# Stands in for commands that could not be read, so that people see that something is wrong.
PLACEHOLDER = {
    "CommandName": "Functionality Error",
    "Tooltip": "The plugin's list of commands could not be loaded",
    "Output": False,
    "Inputs": [],
    "OptionalInputs": [],
}

_INPUT_FIELDS = ("Name", "Type", "Tooltip", "Value")


class SchemaError(ValueError):
    """A list of commands that cannot be advertised. Its text names the place and the remedy."""


def advertisable(commands):
    """The commands as they are sent: checked, and of equal names only the last.

    Raises SchemaError at the first thing that is wrong.
    """
    if not isinstance(commands, list):
        raise SchemaError(_wrong("the list of commands", commands, "a list"))
    for index, command in enumerate(commands):
        _check_command("command %d" % index, command)
    by_name = {}
    for command in commands:
        by_name[command["CommandName"]] = command
    try:
        json.dumps(commands, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(
            "the list of commands cannot be written as JSON (%s): use text, numbers, lists "
            "and dicts only" % error
        ) from error
    return list(by_name.values())


def _check_command(place, command):
    if not isinstance(command, dict):
        raise SchemaError(_wrong(place, command, "a dict"))
    _check_field(place, command, "CommandName", str)
    if not command["CommandName"]:
        raise SchemaError("%s has an empty CommandName; expected a name" % place)
    place = "command %r" % command["CommandName"]
    _check_field(place, command, "Tooltip", str)
    _check_field(place, command, "Output", bool)
    if "id" in command:
        _check_field(place, command, "id", str)
    for key in ("Inputs", "OptionalInputs"):
        inputs = command.get(key, [])
        if not isinstance(inputs, list):
            raise SchemaError(_wrong("%s of %s" % (key, place), inputs, "a list"))
        for index, item in enumerate(inputs):
            where = "%s[%d] of %s" % (key, index, place)
            if not isinstance(item, dict):
                raise SchemaError(_wrong(where, item, "a dict"))
            for field in _INPUT_FIELDS:
                _check_field(where, item, field, str)


def _check_field(place, holder, field, kind):
    if field not in holder:
        raise SchemaError("%s lacks %s; expected %s" % (place, field, kind.__name__))
    if type(holder[field]) is not kind:
        raise SchemaError(_wrong("%s of %s" % (field, place), holder[field], kind.__name__))


def _wrong(what, found, expected):
    return "%s is of type %s; expected %s" % (what, type(found).__name__, expected)
