"""The command line: ``mdtasks COMMAND``.

How a command is added: write ``mdtasks/cli/<topic>.py`` with one function and name the module in ``frame.MODULES``::

    def add_parser(commands: Commands) -> None:
        show = commands.add("gaps", gaps, "Show what is missing", json=True)
        show.add_argument("symbols", nargs="+", metavar="SYMBOL")

    def gaps(args: argparse.Namespace) -> int | None:
        from mdtasks.flows.gaps import find_gaps          # heavy imports only inside the functions that need them

        found = find_gaps(settings_of(args), args.symbols)  # one call
        if args.json:
            print_json(found)                             # data: standard output
        else:
            say("3 gaps")                                 # talk: standard error
        return 0                                          # None is 0

``commands.add`` gives every command ``--home`` and ``--traceback``, and ``--json`` where asked for.
``settings_of(args)`` are the settings of the stack that ``--home`` names. What goes wrong is raised as an error of
``mdtasks.domain.errors``: ``main`` prints it as one line with its hint, or as JSON, and exits with its code. A group of
commands (``mdtasks dlq list``) is ``commands.group("dlq", "Dead letters")``, which answers a ``Commands`` of its own.
``mdtasks --help`` imports every command module and shall take less than 0.3 s.
"""

from mdtasks.cli.frame import main

__all__ = ["main"]
