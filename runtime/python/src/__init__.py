"""Patchbay's runtime for controller plugins: Python's standard library and nothing else.

The name of the package is fixed by the plugins, which say
`from src.controller_plugin import ControllerPlugin`.
"""
