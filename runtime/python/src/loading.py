"""Finds and imports the plugin: a folder, a single file, or a package in a zip or wheel.

What is looked for has the name in PLUGIN, else the one in PLUGIN_NAME, else it is the only one
there. Files are read to see which class they define; only the one that is meant is executed.
"""

import ast
import importlib
import importlib.util
import inspect
import os
import sys
import zipfile
from importlib.machinery import PathFinder

from src.controller_plugin import ControllerPlugin

DEFAULT_PATH = "/plugins"
ARCHIVES = (".zip", ".whl")
# More files than this are not searched for a class.
MOST_FILES = 2000
_MOST_SOURCE_BYTES = 4 * 1024 * 1024


class LoadError(Exception):
    """No plugin can be chosen. Says which variable, what was found, what was expected, the remedy."""


class Wanted:
    """What the environment says about the plugin."""

    def __init__(self, environment):
        self.path = environment.get("PATCHBAY_PLUGIN_PATH") or DEFAULT_PATH
        self.plugin = environment.get("PLUGIN", "")
        self.plugin_name = environment.get("PLUGIN_NAME", "")

    @property
    def names(self):
        """Names that a module or class may have, best first."""
        names = [name for name in (self.plugin, self.plugin_name) if name.isidentifier()]
        return list(dict.fromkeys(names))

    @property
    def strict(self):
        """Whether PLUGIN was chosen by somebody, and not only repeats the Plugin's name."""
        return bool(self.plugin) and self.plugin != self.plugin_name


def load(environment):
    """Returns (instance, place): the plugin, and the file it comes from.

    Raises LoadError, and whatever the plugin's own code raises.
    """
    wanted = Wanted(environment)
    if wanted.strict and not wanted.plugin.isidentifier():
        raise LoadError(
            "PLUGIN is %r; expected the name of a class, such as Scraper: correct "
            "protocol.pcpController.className" % wanted.plugin)
    entries = _search_path(wanted.path)
    name, entry = _choose_module(wanted, entries)
    module = _import(name, entry, entries)
    place = getattr(module, "__file__", None) or entry
    return _choose_instance(module, place, wanted), place


def _search_path(path):
    """The entries for sys.path: the folder and the archives in it, or what is named itself."""
    if os.path.isdir(path):
        inside = sorted(_visible(os.listdir(path)))
        archives = [os.path.join(path, item) for item in inside if item.endswith(ARCHIVES)]
        entries = [path] + archives
    elif os.path.isfile(path) and path.endswith(ARCHIVES + (".py",)):
        entries = [path]
    else:
        found = "a file of another kind" if os.path.exists(path) else "nothing"
        raise LoadError(
            "PATCHBAY_PLUGIN_PATH is %s, where there is %s; expected a folder, a .py file, or a "
            "zip or wheel: mount the plugin there, for example as a ConfigMap volume" % (path, found))
    for entry in entries:
        if entry.endswith(ARCHIVES) and not zipfile.is_zipfile(entry):
            raise LoadError(
                "%s (from PATCHBAY_PLUGIN_PATH %s) is no zip archive; expected a zip or wheel: "
                "build it again, and put it into binaryData of a ConfigMap, not data" % (entry, path))
    return entries


def _visible(names):
    """Without hidden ones: a ConfigMap volume keeps its real content in folders named so."""
    return [name for name in names if not name.startswith(".")]


def _choose_module(wanted, entries):
    """(module name, entry) of the module to import."""
    modules = [(name, entry) for entry in entries for name in _modules(entry)]
    for name in wanted.names:
        # Upstream keeps a plugin in a package with two underscores before its name.
        for same in (lambda m: m == name, lambda m: m == "__" + name,
                     lambda m: m.lower() == name.lower()):
            for module, entry in modules:
                if same(module):
                    return module, entry
    public = [(module, entry) for module, entry in modules if not module.startswith("_")]
    if len(public) == 1 and not _is_package(*public[0]):
        return public[0]
    sources = _sources(entries)
    for name in wanted.names:
        holders = [(module, entry) for module, entry, defined in sources if name in defined]
        if len(holders) == 1:
            return holders[0]
        if holders:
            raise LoadError(
                "PLUGIN is %s, and that class is defined in %s below %s; expected one place: "
                "keep one of them" % (name, _listed(m for m, _ in holders), wanted.path))
    derived = [(module, entry) for module, entry, defined in sources
               if any("ControllerPlugin" in bases for bases in defined.values())]
    if len(derived) == 1 and not wanted.strict:
        return derived[0]
    found = _listed(module for module, _ in modules) or "no Python module"
    if wanted.strict:
        raise LoadError(
            "PLUGIN is %s, but %s holds %s and none of them defines that class; expected %s.py, or "
            "a module with class %s: correct protocol.pcpController.className or mount that module"
            % (wanted.plugin, wanted.path, found, wanted.plugin, wanted.plugin))
    raise LoadError(
        "PLUGIN is not set, and %s holds %s; expected exactly one module with a class derived "
        "from ControllerPlugin: set protocol.pcpController.className" % (wanted.path, found))


def _modules(entry):
    """Names of the modules and packages that lie directly in an entry."""
    if entry.endswith(".py"):
        return [os.path.basename(entry)[:-3]]
    if entry.endswith(ARCHIVES):
        with zipfile.ZipFile(entry) as archive:
            names = archive.namelist()
        top = [name for name in names if name.endswith(".py") and "/" not in name]
        packages = [name[:-12] for name in names
                    if name.endswith("/__init__.py") and name.count("/") == 1]
    else:
        inside = sorted(_visible(os.listdir(entry)))
        top = [name for name in inside if name.endswith(".py")]
        packages = [name for name in inside
                    if os.path.isfile(os.path.join(entry, name, "__init__.py"))]
    # A vendored copy of this package is not the plugin; ours is imported already.
    return [name for name in [item[:-3] for item in top] + packages
            if name.isidentifier() and name != "src" and name not in ("__init__", "__main__")]


def _is_package(name, entry):
    found = PathFinder.find_spec(name, [entry]) if not entry.endswith(".py") else None
    return bool(found and found.submodule_search_locations)


def _sources(entries):
    """(dotted module, entry, {class: names of its bases}) for every source file."""
    found = []
    for entry in entries:
        for name, read in _source_files(entry):
            if len(found) >= MOST_FILES:
                return found
            found.append((name, entry, _classes(read())))
    return found


def _source_files(entry):
    if entry.endswith(".py"):
        yield os.path.basename(entry)[:-3], lambda: _read(entry)
    elif entry.endswith(ARCHIVES):
        with zipfile.ZipFile(entry) as archive:
            for item in archive.infolist():
                name = _dotted(item.filename)
                if name and item.file_size <= _MOST_SOURCE_BYTES:
                    yield name, lambda item=item: archive.read(item)
    else:
        for folder, folders, names in os.walk(entry, followlinks=False):
            folders[:] = sorted(name for name in _visible(folders) if name != "__pycache__")
            for file in sorted(_visible(names)):
                path = os.path.join(folder, file)
                name = _dotted(os.path.relpath(path, entry).replace(os.sep, "/"))
                if name:
                    yield name, lambda path=path: _read(path)


def _dotted(path):
    """The module name of a path such as a/b.py, or None for what cannot be imported."""
    if not path.endswith(".py"):
        return None
    parts = path[:-3].split("/")
    if parts[-1] == "__init__":
        parts.pop()
    usable = parts and parts[0] != "src" and all(part.isidentifier() for part in parts)
    return ".".join(parts) if usable else None


def _read(path):
    with open(path, "rb") as opened:
        return opened.read(_MOST_SOURCE_BYTES)


def _classes(source):
    """The classes that a file defines at its top, with the names of their bases."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {node.name: {_last_name(base) for base in node.bases}
            for node in tree.body if isinstance(node, ast.ClassDef)}


def _last_name(node):
    return getattr(node, "attr", None) or getattr(node, "id", None)


def _import(name, entry, entries):
    """Executes the module. Its neighbours can be imported by it."""
    folder = os.path.dirname(os.path.abspath(entry)) if entry.endswith(".py") else entry
    for item in [folder] + [item for item in entries if item not in (entry, folder)]:
        if not item.endswith(".py") and item not in sys.path:
            sys.path.insert(0 if item == folder else len(sys.path), item)
    importlib.invalidate_caches()
    if "." in name:
        return importlib.import_module(name)
    # By its place and not by name alone: a plugin may be called like a module of Python's own.
    spec = (importlib.util.spec_from_file_location(name, entry) if entry.endswith(".py")
            else PathFinder.find_spec(name, [entry]))
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def _choose_instance(module, place, wanted):
    """The instance that the module made at import, else a new one of its class."""
    members = dict(vars(module))
    classes = {name: member for name, member in members.items()
               if inspect.isclass(member) and issubclass(member, ControllerPlugin)
               and member is not ControllerPlugin and not inspect.isabstract(member)}
    made = {name: member for name, member in members.items()
            if isinstance(member, ControllerPlugin)}
    chosen = _choose_class(classes, made, module.__name__, place, wanted)
    own = {id(member): name for name, member in made.items() if type(member) is chosen}
    if len(own) > 1:
        # The usual name settles it.
        if type(members.get("plugin")) is chosen:
            return members["plugin"]
        raise LoadError(
            "%s makes %d plugins of the class %s at import (%s); expected one: keep one, or call "
            "one of them plugin" % (place, len(own), chosen.__name__, _listed(own.values())))
    if own:
        return members[next(iter(own.values()))]
    return chosen()


def _choose_class(classes, made, module, place, wanted):
    for name in wanted.names:
        if name in classes:
            return classes[name]
    kinds = set(classes.values()) | {type(member) for member in made.values()}
    # A base class that the module imports is not what it is about.
    kinds = {kind for kind in kinds if kind.__module__ == module} or kinds
    if len(kinds) == 1 and not wanted.strict:
        return next(iter(kinds))
    found = _listed(sorted(kind.__name__ for kind in kinds)) or "no class derived from ControllerPlugin"
    if wanted.strict:
        raise LoadError(
            "PLUGIN is %s, but %s holds %s; expected a class of that name derived from "
            "ControllerPlugin that implements _start: correct protocol.pcpController.className or the "
            "plugin" % (wanted.plugin, place, found))
    raise LoadError(
        "PLUGIN is not set, and %s holds %s; expected exactly one class derived from "
        "ControllerPlugin that implements _start: set protocol.pcpController.className" % (place, found))


def _listed(names):
    names = sorted(set(names))
    more = len(names) - 10
    return ", ".join(names[:10]) + (" and %d more" % more if more > 0 else "")
