"""The command `voxfetch`: says what is there, cuts out, checks, times and shows it.

`info`, `ls`: what is there · `read`: cut it out · `verify`: check it · `bench`: time it ·
`serve`: show it to other programs · `view`: look at it.

Results go to stdout, as text or with `--json` as one JSON document; remarks, progress and errors go to stderr.

Exit codes: 0 done · 1 `verify` found problems · 2 wrong usage, or a region that does not fit · 3 not found ·
4 damaged or malformed data · 5 the store failed or refused access · 6 legal, but not supported or over a limit ·
70 a bug of voxfetch · 130 interrupted · 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.cli.console import Console

EXIT_CODES = """\
exit codes: 0 done, 1 verify found problems, 2 usage, 3 not found, 4 damaged or malformed data,
5 store or permission, 6 not supported or over a limit, 70 a bug, 130 interrupted, 141 broken pipe"""

_REGION = "one part per axis, such as 10:20,0:64,5, or by name, such as x=0:64,z=5 (default: everything)"
_SOURCE = "path or URL; a path inside a hierarchy works too"
_LEVEL = "number of the level (0 is the finest) or its mag, such as 2-2-1"


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with the command line instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        from voxfetch.cli.text import UsageError

        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line (`argv` without the program's name, None: the process's own); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # noqa: BLE001 - the one place that turns exceptions into exit codes
        return _fail(error, as_json=as_json)
    return code


def _run(arguments: list[str]) -> int:
    args = _parser().parse_args(arguments)
    # Imported late: `--help` and usage errors need none of it.
    from voxfetch.cli import bench, info, read, serve, verify, view
    from voxfetch.cli.console import Console

    console: Console = Console(as_json=args.json)
    commands = {
        "info": info.info,
        "ls": info.ls,
        "read": read.read,
        "verify": verify.verify,
        "bench": bench.bench,
        "serve": serve.serve,
        "view": view.view,
    }
    return commands[args.command](args, console)


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    # SUPPRESS: a subcommand without the option must not reset one that was given before its name.
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    parser = _Parser(
        prog="voxfetch",
        description="Reads sub-volumes of very large chunked n-D images.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, summary: str, *, many: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, parents=[common])
        if many:
            sub.add_argument("sources", metavar="SOURCE", nargs="+", help=f"{_SOURCE}; NAME=SOURCE gives it a name")
        else:
            sub.add_argument("source", metavar="SOURCE", help=_SOURCE)
        return sub

    command("info", "say what is there: shape, axes, levels, chunks, codecs, size")

    listing = command("ls", "list a hierarchy")
    listing.add_argument("--depth", type=int, metavar="N", help="how many levels of groups to go down (default: all)")

    reading = command("read", "cut out a region and write it as .npy, .raw (C order, native bytes) or .png (a slice)")
    reading.add_argument("--level", metavar="LEVEL", help=f"{_LEVEL} (default: 0)")
    reading.add_argument("--region", metavar="REGION", help=_REGION)
    reading.add_argument("--as", dest="kind", choices=("npy", "raw", "png"), help="default: by the name of the output")
    reading.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write, - for stdout")

    verifying = command("verify", "decode everything stored, with all checksums; exit code 1 if anything is broken")
    verifying.add_argument("--level", metavar="LEVEL", help=f"{_LEVEL} (default: all levels and labels)")

    timing = command("bench", "time random boxes and planes")
    timing.add_argument("--level", metavar="LEVEL", help=f"{_LEVEL} (default: 0)")
    timing.add_argument("--shape", metavar="SHAPE", help="box in voxels, such as 64,64,64")
    timing.add_argument("--count", type=int, default=200, metavar="N", help="calls per workload (default: 200)")
    timing.add_argument("--seconds", type=float, default=2.0, metavar="S", help="time per workload (default: 2)")
    timing.add_argument("--seed", type=int, default=0, metavar="N", help="of the random places (default: 0)")

    serving = command(
        "serve", "show sources over HTTP, as viewers and other readers want them, until Ctrl-C", many=True
    )
    serving.add_argument(
        "--host", default="127.0.0.1", metavar="HOST", help="address to listen on (default: 127.0.0.1)"
    )
    serving.add_argument("--port", type=int, default=0, metavar="N", help="port to listen on (default: a free one)")
    serving.add_argument("--token", metavar="TOKEN", help="what must stand in each URL (default: a new one)")
    serving.add_argument("--no-auth", action="store_true", help="answer everyone who reaches the port, without a token")
    serving.add_argument(
        "--origin",
        action="append",
        metavar="URL",
        help="web pages that may read answers, * for all; repeatable (default: all where a token is needed, else none)",
    )
    serving.add_argument(
        "--allow-host", action="append", metavar="NAME", help="another name of this server; repeatable"
    )
    serving.add_argument("--immutable", action="store_true", help="the data never changes: readers may keep it")
    serving.add_argument("--follow-links", action="store_true", help="also links that lead out of a folder")
    serving.add_argument("--lazy", action="store_true", help="open each source when it is first asked for")
    serving.add_argument("--cache-bytes", type=int, metavar="N", help="memory for encoded chunks (default: 268435456)")
    serving.add_argument("--workers", type=int, default=1, metavar="N", help="processes that serve (default: 1)")

    viewing = command("view", "look at sources in a browser, until Ctrl-C", many=True)
    viewing.add_argument("--viewer", choices=("page", "neuroglancer"), default="page", help="default: page")
    viewing.add_argument("--port", type=int, default=0, metavar="N", help="port to listen on (default: a free one)")
    viewing.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser


class _Version(argparse.Action):
    """Prints the version; its own action because the compiled module need not be loaded to parse."""

    def __call__(self, *_: object) -> NoReturn:
        import voxfetch as vf

        print(f"voxfetch {vf.__version__}")
        raise SystemExit(0)


def _fail(error: Exception, *, as_json: bool) -> int:
    """Says what went wrong on one line of stderr; returns the exit code. A bug keeps its traceback."""
    from voxfetch.cli.text import plain

    code = _exit_code(error)
    if code == 70 and not as_json:
        import traceback

        traceback.print_exception(error)
    kind = str(getattr(error, "kind", type(error).__name__))
    if as_json:
        fields = {name: getattr(error, name, None) for name in ("key", "byte_range", "chunk", "status", "hint")}
        document = {"error": {"kind": kind, "message": str(error), "exit_code": code, **fields}}
        print(json.dumps(document), file=sys.stderr)
    else:
        print(f"voxfetch: {plain(error) or kind}", file=sys.stderr)
    return code


def _exit_code(error: Exception) -> int:
    """The exit code of an exception: the first row that fits."""
    import voxfetch as vf
    from voxfetch.cli.text import UsageError

    table: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
        ((UsageError, vf.SelectionError), 2),
        ((vf.NotFoundError, FileNotFoundError), 3),
        ((vf.MetadataError, vf.DataError), 4),
        ((vf.UnsupportedError, vf.LimitExceededError, MemoryError), 6),
        ((vf.InternalError,), 70),
        ((vf.VoxfetchError, OSError), 5),
    )
    return next((code for kinds, code in table if isinstance(error, kinds)), 70)
