"""The command line ``ashnets``: parse, call the function of the public face that has the command's name, print.

It is the top floor and contains no logic of its own. Commands import what they need when they
run, so that ``ashnets --help`` and ``ashnets list`` answer at once.
"""

from ashnets.cli.app import app, main

__all__ = ["app", "main"]
