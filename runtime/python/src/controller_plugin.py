"""The class that controller plugins inherit from.

A plugin brings a list of commands and a control loop. It asks for jobs, does them, and answers;
where jobs come from and where output goes is the business of the sidecar beside it.

    from src.controller_plugin import ControllerPlugin

    class Greeter(ControllerPlugin):
        def __init__(self):
            super().__init__("Greeter", [{"CommandName": "greet", "Tooltip": "Says hello",
                                          "Output": True, "Inputs": [], "OptionalInputs": []}])

        def _start(self):
            while True:
                job = self.request_job()
                if job:
                    self.respond_output(job, "hello")

Importing this module reads no variable that has to be set, opens no file and connects nowhere.
"""

import inspect
import json
import logging
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod

from src import command_schema, files, job_readers, log_levels, statuses
from src.jobs_client import JobsClient, Refused
from src.locations import location_text, port_text
from src.statuses import InvalidStatus
from src.wire import Unanswered

__all__ = ["ControllerPlugin", "InvalidStatus"]

# A sidecar that is not there by then will not come.
SIDECAR_SECONDS = 20.0


class ControllerPlugin(ABC):
    """Base of all controller plugins. Safe for use by many threads once it is constructed."""

    LOGLEVEL = os.environ.get("LOGLEVEL", "DEBUG")
    LOGGER = log_levels.plugin_logger(LOGLEVEL)

    def __init__(self, name, functionality=None):
        """name: the plugin's own name. functionality: its commands, as a list of dicts.

        Raises KeyError when PORT or PLUGIN_NAME is missing, ValueError when PORT is no number.
        Connects nowhere; constructing a plugin twice does no harm.
        """
        super().__init__()
        self.name = name
        self.port = int(os.environ["PORT"])
        self.serv_name = os.environ["PLUGIN_NAME"]
        self.tracked_jobs = {}
        self.db_conn = None
        self.signal = None
        self.stop_args = {}
        self.__use_level(os.environ.get("LOGLEVEL", "DEBUG"))
        self.__placeholder = False
        self.functionality = functionality or self._read_functionality()
        self.__jobs = JobsClient(logger=self.LOGGER)
        self.__end_on_sigterm()

    # -- the life of a plugin

    def start(self, *args):
        """Waits for the sidecar, advertises the commands, and runs the control loop.

        Ends the process with status 1 when the sidecar does not show within 20 s. Raises
        KeyError when STAGE is missing, ValueError for commands that cannot be advertised.
        """
        # What TESTING changes upstream, the host of the queue, means nothing here.
        stage = os.environ["STAGE"]
        # Constructed twice, the one that runs is the one to stop. A handler of the plugin's
        # own stays.
        installed = signal.getsignal(signal.SIGTERM)
        if getattr(installed, "__func__", None) is ControllerPlugin.__on_sigterm:
            self.__end_on_sigterm()
        try:
            self.__jobs.wait_until_there(SIDECAR_SECONDS)
        except (Unanswered, Refused) as trouble:
            self._log(
                "no sidecar at %s within %d s: %s; look at the sidecar's log, or set "
                "PATCHBAY_JOBS_SOCKET" % (self.__jobs.path, SIDECAR_SECONDS, trouble), 50)
            sys.exit(1)
        self._log("stage %s, port %d" % (stage, self.port), 10)
        self._advertise_functionality()
        self.__run_loop(args)

    @abstractmethod
    def _start(self, *args):
        """The control loop. May take no argument. Returning means that the plugin has ended."""

    def stop(self):
        """Stops the plugin, as SIGTERM does."""
        self._stop(**self.stop_args)

    def _stop(self, **_kwargs):
        """What to do when the plugin is stopped. Overridden by those who have to clean up."""
        sys.exit(0)

    def __run_loop(self, args):
        """Calls `_start` in the way that it can take: plugins declare it in many."""
        try:
            parameters = inspect.signature(self._start).parameters.values()
        except (TypeError, ValueError):
            parameters = ()
        positional, named = [], {}
        for parameter in parameters:
            required = parameter.default is parameter.empty
            if parameter.kind is parameter.VAR_POSITIONAL:
                # The arguments of start() have always come as one tuple.
                positional = positional or [args]
            elif parameter.kind is parameter.KEYWORD_ONLY:
                if required:
                    named[parameter.name] = None
            elif parameter.kind is not parameter.VAR_KEYWORD:
                if not positional:
                    positional.append(args)
                elif required:
                    positional.append(None)
        self._start(*positional, **named)

    def __end_on_sigterm(self):
        # Python lets only the main thread do this.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.__on_sigterm)

    def __on_sigterm(self, _number, _frame):
        try:
            self.stop()
        except Exception:
            self.LOGGER.exception("stopping %s after SIGTERM failed", self.name)
            sys.exit(1)
        sys.exit(0)

    # -- commands

    def _read_functionality(self):
        """The commands from `__<name>/<name>.json`, or a placeholder that tells of the trouble."""
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        brought = os.environ.get("PATCHBAY_PLUGIN_PATH") or "/plugins"
        beside = os.path.join("__%s" % self.name, "%s.json" % self.name)
        tried = [os.path.join(here, "plugins", beside), os.path.join(brought, beside)]
        for path in tried:
            try:
                with open(path, encoding="utf-8") as opened:
                    commands = json.load(opened)
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(commands, list) and commands:
                return commands
        self._log(
            "%s has no commands: none were given, and no list could be read from %s"
            % (self.name, " or ".join(tried)), 40)
        self.__placeholder = True
        return [dict(command_schema.PLACEHOLDER)]

    def _advertise_functionality(self):
        """Sends the commands. Raises ValueError, and logs, when they are not well formed."""
        try:
            commands = command_schema.advertisable(self.functionality)
            self.__jobs.advertise({
                "version": 1,
                "name": self.name,
                "serviceName": self.serv_name,
                "port": self.port,
                "stage": os.environ.get("STAGE", "PROD"),
                "commands": commands,
                "placeholder": self.__placeholder,
            })
        except (command_schema.SchemaError, Refused, Unanswered) as error:
            self._log("advertising the commands of %s: %s" % (self.name, error), 40)
            raise ValueError("advertising the commands: %s" % error) from error

    # -- jobs

    def request_job(self):
        """The next job of this plugin for any client, or None.

        Trouble on the way to the queue is no job, not an exception.
        """
        return self.__request(None, None)

    def request_job_for_client(self, location, port=None):
        """The next job for one client, or None; jobs for other clients are passed over.

        location: text, or the address that accept() returned. port: the plugin's port as text.
        Raises ValueError for an empty location and TypeError for what is no location or port.
        """
        if not location and port_text(port) is not None:
            raise ValueError("a port without a location; give both, or use request_job()")
        return self.__request(location_text(location), port_text(port))

    def get_job_for_client(self, location, port=None):
        """The same as `request_job_for_client`."""
        return self.request_job_for_client(location, port)

    def respond_output(self, job, output, transition_state=True):
        """Answers a job. With transition_state=False the output is a part, and more may follow.

        output: text, bytes, or a number. Raises TypeError for anything else, ValueError when
        the output could not be stored for a minute.
        """
        if isinstance(output, bytes):
            content, kind = output, "bytes"
        elif isinstance(output, (str, int, float)):
            content, kind = _bytes_of(str(output)), "text"
        else:
            text = "output of type %s; expected text, bytes or a number" % type(output).__name__
            self._log(text, 40)
            raise TypeError(text)
        job_id = job["id"]
        self.__answered(job_id, lambda: self.__jobs.row(job_id, content, kind, bool(transition_state)))

    def respond_error(self, job, msg=""):
        """Ends a job as failed, with a message. Raises as `respond_output` does."""
        if not isinstance(msg, (bytes, str, int, float)):
            text = "an error message of type %s; expected text" % type(msg).__name__
            self._log(text, 40)
            raise TypeError(text)
        content = msg if isinstance(msg, bytes) else _bytes_of(str(msg))
        job_id = job["id"]
        self.__answered(job_id, lambda: self.__jobs.error(job_id, content))

    def __request(self, location, port):
        try:
            return self.__jobs.request(location, port)
        except Refused as refusal:
            raise ValueError("requesting a job: %s" % refusal) from refusal

    def __answered(self, job_id, send):
        try:
            answer = send()
        except (Refused, Unanswered) as trouble:
            self._log("answering job %s: %s" % (job_id, trouble), 40)
            raise ValueError("answering job %s: %s" % (job_id, trouble)) from trouble
        if answer.get("dropped"):
            self._log("job %s is gone; its answer was dropped" % job_id, 30)
        elif answer.get("tooLarge"):
            self._log("the output of job %s is too large; the job has failed" % job_id, 40)
        elif answer.get("late"):
            self._log("job %s had ended already; its answer is kept as late output" % job_id, 30)

    def _update_job(self, job_id):
        """Moves a job to the status that follows its own, and returns that."""
        status = self.__known(job_id, self.__jobs.status, job_id)
        return self._update_job_status(job_id, statuses.SUCCESSOR.get(status, status))

    def _update_job_status(self, job_id, status):
        """Writes a job's status and returns what it is then.

        Raises InvalidStatus, a ValueError, for a word that is none.
        """
        try:
            statuses.check(status)
        except InvalidStatus as error:
            self._log("job %s: %s" % (job_id, error), 40)
            raise
        return self.__known(job_id, self.__jobs.set_status, job_id, status)

    @staticmethod
    def __known(job_id, call, *arguments):
        try:
            status = call(*arguments)
        except (Refused, Unanswered) as trouble:
            raise ValueError("status of job %s: %s" % (job_id, trouble)) from trouble
        if status is None:
            raise ValueError("status of job %s: no such job is known" % job_id)
        return status

    # -- files, telemetry, state over restarts

    def get_file(self, file_name, encoding=None):
        """The content of a file that was laid out for plugins: bytes, or text in an encoding."""
        return files.read(file_name, encoding)

    def send_telemetry(self, location, common=None, specific=None):
        """Tells the state of a client; also a sign of life of it. Never fails for being late."""
        for name, value in (("common", common), ("specific", specific)):
            if value and not isinstance(value, dict):
                raise TypeError("%s is of type %s; expected a dict" % (name, type(value).__name__))
        document = {
            "name": self.name,
            "port": str(self.port),
            "location": location_text(location),
            "common": dict(common or {}, Checkin=time.time()),
            "specific": dict(specific or {}),
        }
        try:
            if not self.__jobs.telemetry(document):
                self._log("no target %(name)s at %(location)s, port %(port)s" % document, 40)
        except Unanswered as trouble:
            self._log("telemetry of %s is lost: %s" % (document["location"], trouble), 30)
        except Refused as refusal:
            raise ValueError("telemetry of %s: %s" % (document["location"], refusal)) from refusal

    def record_tracker(self):
        """Saves `tracked_jobs`, so that a restarted plugin can answer jobs it took before."""
        try:
            self.__jobs.put_tracker({"service": self.serv_name, "jobs": self.tracked_jobs})
        except (Refused, Unanswered) as trouble:
            raise ValueError("saving tracked_jobs: %s" % trouble) from trouble

    def recover(self):
        """Restores `tracked_jobs`. Leaves them alone when nothing was saved."""
        try:
            document = self.__jobs.tracker()
        except (Refused, Unanswered) as trouble:
            raise ValueError("restoring tracked_jobs: %s" % trouble) from trouble
        if document is None:
            return
        if not isinstance(document.get("jobs"), dict):
            raise ValueError("restoring tracked_jobs: what was saved holds none")
        self.tracked_jobs = document["jobs"]

    # -- logs

    def log(self, entry):
        """Logs [component, message, level, time]; the level is a number."""
        component, message, level = (list(entry) + ["", "", logging.INFO])[:3]
        if not isinstance(level, int):
            level = log_levels.level_of(level)
        self.LOGGER.log(level, "%s: %s", component, message)

    def _log(self, msg, level):
        self.LOGGER.log(level, "%s", msg)

    @classmethod
    def __use_level(cls, name):
        log_levels.plugin_logger(name)
        if not log_levels.is_known(name):
            cls.LOGGER.warning("LOGLEVEL is %r, which is no level; using DEBUG", name)

    # -- reading jobs

    get_command = staticmethod(job_readers.get_command)
    get_job_id = staticmethod(job_readers.get_job_id)
    get_status = staticmethod(job_readers.get_status)
    job_location = staticmethod(job_readers.job_location)
    job_port = staticmethod(job_readers.job_port)
    has_output = staticmethod(job_readers.has_output)
    value_of = staticmethod(job_readers.value_of)
    value_of_input = staticmethod(job_readers.value_of_input)
    value_of_option = staticmethod(job_readers.value_of_option)
    get_args = staticmethod(job_readers.get_args)


def _bytes_of(text):
    """Text as bytes. What came from undecodable bytes becomes those bytes again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
