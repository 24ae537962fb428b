"""``mdtasks bench``: how fast it is on this machine, beside what it replaces."""

from __future__ import annotations

import argparse
from functools import partial

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import count_of


def add_parser(commands: Commands) -> None:
    """Add the command."""
    run = commands.add("bench", bench, "Measure speed here, side by side with what it replaces", json=True)
    run.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="enqueue, ingest, calendar, slo, trace, policy, read, replay (default: all)",
    )
    run.add_argument("--clients", type=count_of("clients"), metavar="N", help="of replay: clients (default: 1000)")


def bench(args: argparse.Namespace) -> None:
    """Run benchmarks on servers of their own; figures are medians, ratios are what to compare between machines."""
    from mdtasks.cli.output import show_table
    from mdtasks.domain.errors import InvalidRequestError
    from mdtasks.stack.benches.replay import Size, bench_replay
    from mdtasks.stack.benches.runs import BENCHES

    for name in args.names:
        if name not in BENCHES:
            raise InvalidRequestError(f"no benchmark {name!r}", field="name", hint=f"one of {', '.join(BENCHES)}")
    sized = dict(BENCHES)
    if args.clients is not None:
        sized["replay"] = partial(bench_replay, size=Size(clients=args.clients, stalled=max(args.clients // 20, 1)))
    results = [sized[name](say) for name in args.names or sized]
    if args.json:
        documents = [result.as_dict() for result in results]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    for result in results:
        show_table([result.name, result.unit], [[name, round(rate)] for name, rate in result.figures.items()])
        show_table(["ratio", "x"], [[name, f"{ratio:.2f}"] for name, ratio in result.ratios.items()])
