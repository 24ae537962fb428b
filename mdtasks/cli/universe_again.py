"""``mdtasks universe recompute, export``: making a version again from what it was made of, here or elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdtasks.cli.frame import Commands, print_json, say
from mdtasks.cli.inputs import explain
from mdtasks.cli.universe_versions import EXAMPLES, TAG
from mdtasks.domain.errors import InvalidRequestError


def add_again(below: Commands) -> None:
    """Add the two commands to ``mdtasks universe``."""
    again = below.add("recompute", recompute, "Make a version again from the bytes that were kept", json=True)
    again.add_argument("tag", nargs="?", metavar="TAG", help=TAG)
    again.add_argument("--from", dest="file", metavar="FILE", help="what `universe export` wrote; needs no stack")
    again.add_argument("--check", action="store_true", help="exit with 1 when it is not byte for byte the same")
    out = below.add("export", export, "Write a version with all that it is made of, for another machine", json=True)
    out.add_argument("tag", metavar="TAG", help=TAG)
    out.add_argument("--output", required=True, metavar="FILE", help="a zip, written whole or not at all")
    for parser in (again, out):
        explain(parser, EXAMPLES)


def recompute(args: argparse.Namespace) -> int:
    """Make a version again. With --check exit code 1 when it is another one."""
    from mdtasks.cli.opened import opened_database
    from mdtasks.flows.universe_bundle import bundle_of, checked, unpacked
    from mdtasks.store.universe import chosen

    if (args.tag is None) == (args.file is None):
        raise InvalidRequestError("give TAG or --from FILE", field="tag", hint="see --help")
    if args.file is not None:
        bundle = unpacked(Path(args.file))
    else:
        with opened_database(args) as database, database.transaction() as connection:
            bundle = bundle_of(connection, chosen(connection, args.tag))
    again = checked(bundle)
    if args.json:
        print_json(again.as_dict())
    else:
        print(
            f"{again.tag}: {again.members:,} members, {'byte for byte the same' if again.same else 'ANOTHER VERSION'}"
        )
        say(f"hash {again.hash}, members {again.members_sha256}")
    return 1 if args.check and not again.same else 0


def export(args: argparse.Namespace) -> None:
    """Write a version with its inputs."""
    from mdtasks.cli.bar_formats import whole_file
    from mdtasks.cli.opened import opened_database
    from mdtasks.flows.universe_bundle import bundle_of, packed
    from mdtasks.store.universe import chosen

    with opened_database(args) as database, database.transaction() as connection:
        bundle = bundle_of(connection, chosen(connection, args.tag))
    data = packed(bundle)
    with whole_file(Path(args.output)) as stream:
        stream.write(data)
    if args.json:
        print_json({"ok": True, "version_tag": bundle.tag, "file": args.output, "bytes": len(data)})
    else:
        print(f"{bundle.tag} written to {args.output}: {len(data):,} bytes")
        say(f"`mdtasks universe recompute --from {args.output} --check` makes it again on any machine")
