"""Runs a controller plugin: python3 -m src.run

PATCHBAY_PLUGIN_PATH  where the plugin's code lies (default /plugins): a folder, a .py file,
                      a zip or a wheel
PLUGIN, PLUGIN_NAME   which module and class to take when there are several

Exit status: 0 when the plugin's control loop returns or SIGTERM stopped it, 1 when it fails or
no sidecar shows up, 99 when no plugin can be chosen. Standard output is left to the plugin.
"""

import os
import platform
import sys
import traceback

from src import loading

NO_PLUGIN = 99


def main():
    """Runs the plugin to its end and returns the exit status."""
    try:
        plugin, place = loading.load(os.environ)
        _check_constructed(plugin, place)
        _say("%s from %s, port %s, Python %s" % (
            type(plugin).__name__, place, plugin.port, platform.python_version()))
        plugin.start()
    except loading.LoadError as error:
        _say("%s" % error)
        return NO_PLUGIN
    except Exception as error:
        traceback.print_exception(type(error), error, _frames_of_the_plugin(error.__traceback__))
        _say(_remedy(error))
        return 1
    _say("%s has ended of its own" % type(plugin).__name__)
    return 0


def _check_constructed(plugin, place):
    if not hasattr(plugin, "functionality"):
        raise loading.LoadError(
            "%s from %s was not constructed whole; expected that its __init__ calls "
            "super().__init__(name, functionality): add that" % (type(plugin).__name__, place))


def _frames_of_the_plugin(frames):
    """Without the runner's own, which tell the plugin's author nothing."""
    own = os.path.dirname(os.path.abspath(__file__)) + os.sep
    inner = frames
    while inner is not None:
        file = inner.tb_frame.f_code.co_filename
        if not file.startswith((own, "<frozen importlib")):
            return inner
        inner = inner.tb_next
    return frames


def _remedy(error):
    if isinstance(error, ModuleNotFoundError):
        return ("the plugin needs the module %s, which is not there; the runtime image has "
                "Python's standard library only: make an image FROM it with that module, or "
                "mount it beside the plugin" % error.name)
    if isinstance(error, KeyError) and error.args and error.args[0] in ("PORT", "PLUGIN_NAME", "STAGE"):
        return ("the variable %s is not set; expected it from the pod: run the plugin as a Plugin "
                "of Patchbay, or set it by hand" % error.args[0])
    return "the plugin failed: %s: %s" % (type(error).__name__, error)


def _say(text):
    print("patchbay: " + text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
