"""Tables of the database. `event` is the log and the truth; `object` is what follows from it, kept for speed."""

from typing import Final

VERSION: Final = 1
"""Of the tables below; kept in the database as `user_version`."""

APPLICATION: Final = 0x4C4D4C31
"""Marks an SQLite file as LabelMeLite's ("LML1")."""

SEALS: Final = "CREATE TABLE IF NOT EXISTS event_seal (seq INTEGER PRIMARY KEY, sha256 BLOB NOT NULL);"
"""Checksums of the events (`labelmelite.seals`); a database of an older LabelMeLite has no such table yet."""

SCHEMA: Final = (
    SEALS
    + """
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE annotator (
  id TEXT PRIMARY KEY,
  role TEXT NOT NULL CHECK (role IN ('owner', 'annotator', 'reader')),
  adapter TEXT NOT NULL DEFAULT 'lab',
  outside TEXT UNIQUE,                      -- salted hash of a crowd platform's id
  created REAL NOT NULL,
  keys TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;

-- The one place where a name stands; `segloop forget` empties it, the answers stay.
CREATE TABLE name (annotator TEXT PRIMARY KEY REFERENCES annotator (id), name TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE invite (
  id TEXT PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  kind TEXT NOT NULL DEFAULT 'lab',          -- lab: for one person, once; else for all whom a platform sends
  annotator TEXT REFERENCES annotator (id),  -- who it made, once used
  created REAL NOT NULL,
  expires REAL NOT NULL,
  used REAL,
  revoked REAL
) WITHOUT ROWID;

CREATE TABLE session (
  hash TEXT PRIMARY KEY,
  annotator TEXT NOT NULL REFERENCES annotator (id),
  invite TEXT,
  crowd TEXT NOT NULL DEFAULT '{}',          -- what the platform said: submission id, where to submit
  created REAL NOT NULL,
  expires REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE dataset (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('coco', 'folder', 'loop', 'bundle')),
  source TEXT NOT NULL UNIQUE,               -- what it was read from
  fingerprint TEXT NOT NULL,                 -- of the source when it was read
  root TEXT NOT NULL,                        -- folder or URL base of the images
  info TEXT NOT NULL DEFAULT '{}',
  created REAL NOT NULL,
  ready INTEGER NOT NULL DEFAULT 0           -- 1 once it was read whole
);

CREATE TABLE category (
  id INTEGER PRIMARY KEY,
  dataset INTEGER NOT NULL REFERENCES dataset (id),
  number INTEGER NOT NULL,                   -- the id in files
  name TEXT NOT NULL,
  definition TEXT NOT NULL DEFAULT '',
  UNIQUE (dataset, number),
  UNIQUE (dataset, name)
);

CREATE TABLE image (
  id INTEGER PRIMARY KEY,
  dataset INTEGER NOT NULL REFERENCES dataset (id),
  number INTEGER NOT NULL,                   -- the id in files
  file_name TEXT NOT NULL,
  width INTEGER,                             -- null until the file was opened
  height INTEGER,
  objects INTEGER NOT NULL DEFAULT 0,
  state TEXT NOT NULL DEFAULT 'untouched' CHECK (state IN ('untouched', 'started', 'finished')),
  UNIQUE (dataset, number)
);
CREATE INDEX image_state ON image (dataset, state);

CREATE TABLE object (
  dataset INTEGER NOT NULL,
  id TEXT NOT NULL,
  image INTEGER NOT NULL REFERENCES image (id),
  category INTEGER NOT NULL REFERENCES category (id),
  height INTEGER NOT NULL,
  width INTEGER NOT NULL,
  counts BLOB NOT NULL,
  crowd INTEGER NOT NULL DEFAULT 0,
  score REAL,
  provenance TEXT,
  deleted INTEGER NOT NULL DEFAULT 0,
  seq INTEGER,                               -- of the last event; null: as it was read
  PRIMARY KEY (dataset, id)
) WITHOUT ROWID;
CREATE INDEX object_image ON object (image);
CREATE INDEX object_category ON object (category, image) WHERE deleted = 0;

CREATE TABLE event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  annotator TEXT NOT NULL,
  client TEXT NOT NULL,
  client_no INTEGER NOT NULL,
  kind TEXT NOT NULL,
  dataset INTEGER,
  image INTEGER,
  object TEXT,
  task TEXT,
  item TEXT,
  payload TEXT NOT NULL,
  undoes INTEGER,
  redoes INTEGER,
  seconds REAL,
  tool TEXT,
  time TEXT NOT NULL,
  UNIQUE (annotator, client, client_no)
);
CREATE INDEX event_image ON event (image, seq) WHERE image IS NOT NULL;
CREATE INDEX event_task ON event (task, seq) WHERE task IS NOT NULL;
CREATE TRIGGER event_stays BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER event_kept BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
"""
)
