"""`unface feedback` and `unface ab`: what users reported, and what a trial showed."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from unface.errors import InvalidOption

KEY_VARIABLE = "UNFACE_QUALITY_KEY"


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `feedback` and `ab` to the commands of `unface`."""
    feedback = commands.add_parser("feedback", help="reports of missed and false faces")
    actions = feedback.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="a line for each report")
    _add_file(listing)
    listing.set_defaults(run=list_reports)
    exporting = actions.add_parser("export", help="a labelled set for unface validate")
    _add_file(exporting)
    exporting.add_argument("out", type=Path, metavar="OUT", help="folder to write, not there yet")
    exporting.add_argument(
        "--key-file", type=Path, metavar="FILE", help=f"key of the crops (or {KEY_VARIABLE})"
    )
    exporting.set_defaults(run=export_reports)
    deleting = actions.add_parser("delete", help="delete reports and their crops for good")
    _add_file(deleting)
    deleting.add_argument("ids", nargs="+", type=int, metavar="ID", help="numbers of reports")
    deleting.set_defaults(run=delete_reports)
    ab = commands.add_parser("ab", help="trials of another profile")
    actions = ab.add_subparsers(metavar="ACTION", required=True)
    reporting = actions.add_parser("report", help="which profile is better, and how sure that is")
    _add_file(reporting)
    reporting.add_argument("--json", action="store_true", help="as JSON")
    reporting.set_defaults(run=report_trials)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("db", type=Path, metavar="DB", help="the server's quality_file")


def list_reports(arguments: argparse.Namespace) -> int:
    """Print a line for each report; returns the exit code."""
    from unface.quality.store import Store

    with Store(arguments.db, create=False) as store:
        crops, reports = store.crop_counts(), store.reports()
    for report in reports:
        kinds = [place.kind for place in report.places]
        when = datetime.fromtimestamp(report.time, timezone.utc).strftime("%Y-%m-%d %H:%M")
        print(
            f"{report.id:>6}  {when}  {report.profile or '-':<10}"
            f"  {kinds.count('missed')} missed  {kinds.count('false')} false"
            f"  {crops.get(report.id, 0)} crops  {report.request_id or '-'}"
        )
    return 0


def delete_reports(arguments: argparse.Namespace) -> int:
    """Delete reports and their crops by number; returns 1 when one of them was not there."""
    from unface.quality.store import Store

    wanted = set(arguments.ids)
    with Store(arguments.db, create=False) as store:
        deleted = store.delete(wanted)
    print(f"{deleted} of {len(wanted)} reports deleted")
    return 0 if deleted == len(wanted) else 1


def export_reports(arguments: argparse.Namespace) -> int:
    """Write a labelled set; returns the exit code."""
    from unface.quality.export import export
    from unface.quality.store import Store
    from unface.sealing import read_key

    key = read_key(arguments.key_file, KEY_VARIABLE)
    with Store(arguments.db, create=False) as store:
        exported = export(store, arguments.out, key)
    print(
        f"{arguments.out}: {exported.reports} reports, {exported.pictures} pictures, "
        f"{exported.faces} faces"
    )
    for sentence in exported.lacks():
        print(f"unface: {sentence}", file=sys.stderr)
    if exported.faces:
        print(f"judge engines on it: unface validate fp32 int8 --data {arguments.out}")
        print(f"calibrate with it: unface calibrate PICTURES {arguments.out}/images --out CACHE")
    return 0


def report_trials(arguments: argparse.Namespace) -> int:
    """Print what each trial says; returns the exit code."""
    from unface.quality.comparison import compare_trials
    from unface.quality.store import Store
    from unface.quality.verdict import to_json, to_text

    with Store(arguments.db, create=False) as store:
        comparisons = compare_trials(store)
    if arguments.json:
        print(json.dumps([to_json(comparison) for comparison in comparisons], indent=1))
    elif comparisons:
        print("\n\n".join(map(to_text, comparisons)))
    else:
        raise InvalidOption(f"{arguments.db} has no trial in it; trial_profile starts one")
    return 0
