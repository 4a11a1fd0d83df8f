"""The tables of the file of reports and trials."""

from __future__ import annotations

APPLICATION_ID = 0x756E6671  # "unfq", in the file's header: it is ours
VERSION = 1  # of the tables

# Statements with a semicolon between them, and none elsewhere.
SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE reports (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: crops are sealed for it
    request_id TEXT NOT NULL,
    time REAL NOT NULL,
    profile TEXT NOT NULL,
    width INTEGER,
    height INTEGER
) STRICT;
CREATE INDEX reports_by_time ON reports (time);
CREATE TABLE places (
    report_id INTEGER NOT NULL REFERENCES reports ON DELETE CASCADE,
    place INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('missed', 'false')),
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
    PRIMARY KEY (report_id, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE crops (
    report_id INTEGER NOT NULL,
    place INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (report_id, place),
    FOREIGN KEY (report_id, place) REFERENCES places ON DELETE CASCADE
) STRICT;
CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    profile TEXT NOT NULL, share REAL NOT NULL, shadow INTEGER NOT NULL,
    UNIQUE (profile, share, shadow)
) STRICT;
CREATE TABLE minutes (
    trial_id INTEGER NOT NULL REFERENCES trials,
    writer INTEGER NOT NULL,  -- a process, which writes a row again until its minute is over
    minute INTEGER NOT NULL,  -- since 1970
    arm TEXT NOT NULL CHECK (arm IN ('a', 'b')),
    profile TEXT NOT NULL,
    answers INTEGER NOT NULL, errors INTEGER NOT NULL,
    seconds REAL NOT NULL, faces INTEGER NOT NULL, scores REAL NOT NULL,  -- sums over answers
    latencies TEXT NOT NULL,  -- JSON: answers by bin of unface.quality.latencies
    PRIMARY KEY (trial_id, writer, minute, arm, profile)
) STRICT, WITHOUT ROWID;
CREATE TABLE pairs (
    trial_id INTEGER NOT NULL REFERENCES trials,
    writer INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    pictures INTEGER NOT NULL,
    matched INTEGER NOT NULL, only_a INTEGER NOT NULL, only_b INTEGER NOT NULL, iou REAL NOT NULL,
    seconds_a REAL NOT NULL, seconds_b REAL NOT NULL,
    PRIMARY KEY (trial_id, writer, minute)
) STRICT, WITHOUT ROWID;
"""
