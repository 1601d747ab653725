"""Reads parts of a job's document. Plain functions; nothing here talks to anyone."""


def get_command(job):
    """The name of the job's command."""
    return job["JobCommand"]["CommandName"]


def get_job_id(job):
    """The job's id."""
    return job["id"]


def get_status(job):
    """The job's status when it was handed over; it is not read anew."""
    return job["Status"]


def job_location(job):
    """Which client the job is for."""
    return job["JobTarget"]["Location"]


def job_port(job):
    """The plugin's port that the job names, as text."""
    return job["JobTarget"]["Port"]


def has_output(job):
    """Whether the command is expected to have output."""
    return job["JobCommand"]["Output"]


def value_of(job, name):
    """The value of the input of that name, else of the optional input, else None."""
    if not isinstance(name, str):
        return None
    value = value_of_input(job, name)
    return value if value is not None else value_of_option(job, name)


def value_of_input(job, which):
    """The value of an input by position or name, or None when there is no such input."""
    return _value(job["JobCommand"]["Inputs"], which)


def value_of_option(job, which):
    """The value of an optional input by position or name, or None when there is none."""
    return _value(job["JobCommand"]["OptionalInputs"], which)


def get_args(job):
    """All values: a list for the inputs, a list for the optional inputs."""
    command = job["JobCommand"]
    return (
        [item["Value"] for item in command["Inputs"]],
        [item["Value"] for item in command["OptionalInputs"]],
    )


def _value(items, which):
    if isinstance(which, str):
        for item in items:
            if item["Name"] == which:
                return item["Value"]
        return None
    try:
        return items[which]["Value"]
    except (IndexError, TypeError):
        return None
