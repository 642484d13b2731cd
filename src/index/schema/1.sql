-- Version 1. Never edited once released: a change is the next file.
--
-- 64-bit numbers without a sign (epochs, filesystems, inodes, clock readings, sizes) are stored as
-- the signed number of the same bits. Times are nanoseconds since 1970. Kinds of objects: 1 file,
-- 2 directory, 3 symbolic link, 4 special.

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    dir BLOB NOT NULL,              -- the path is dir/name; empty for the share's root
    name BLOB NOT NULL,
    record BLOB NOT NULL,           -- as the protocol's codec writes it
    seq INTEGER,                    -- position in the log; NULL: not in it
    via INTEGER,                    -- peers.id
    changed_ns INTEGER NOT NULL,
    pending INTEGER NOT NULL,       -- 1: the record's winner is not what is installed
    live INTEGER NOT NULL,          -- 1: the record has a value
    winner_bytes INTEGER NOT NULL,  -- size of the record's winning file
    content INTEGER,                -- kind of what is installed; NULL: nothing is, as in all below
    content_size INTEGER,
    hash BLOB,                      -- of a file
    target BLOB,                    -- of a symbolic link
    kind INTEGER,                   -- how a stat showed it
    fs INTEGER,
    ino INTEGER,
    size INTEGER,
    mtime_ns INTEGER,
    ctime_ns INTEGER,
    mode INTEGER,
    uid INTEGER,
    gid INTEGER,
    nlink INTEGER,
    want_mtime_ns INTEGER,          -- what it stands for
    want_mode INTEGER,
    want_owner TEXT,                -- USER:GROUP; NULL: not known
    let_go INTEGER NOT NULL         -- 1: deleted here, lives on elsewhere
) STRICT;

CREATE UNIQUE INDEX path ON entries (dir, name);
-- Holds all that the backlog and the cursor need, so that a walk of the log reads no entries.
CREATE INDEX log ON entries (seq, via, winner_bytes, changed_ns) WHERE seq IS NOT NULL;
CREATE INDEX pending ON entries (seq) WHERE pending;
CREATE INDEX spent ON entries (seq) WHERE NOT live AND content IS NULL;
CREATE INDEX live ON entries (dir) WHERE live;
CREATE INDEX installed ON entries (dir) WHERE content IS NOT NULL;
-- Conflict copies, by their name alone: x'2e636f6e666c6963742d' is `.conflict-`.
CREATE INDEX copies ON entries (dir, name)
    WHERE content IS NOT NULL AND instr(name, x'2e636f6e666c6963742d') > 0;
CREATE INDEX installed_hash ON entries (substr(hash, 1, 8)) WHERE hash IS NOT NULL;
CREATE INDEX installed_inode ON entries (ino) WHERE ino IS NOT NULL;

-- Names of peers, and how far each has acknowledged the log. A name may be here for `via` alone.
CREATE TABLE peers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    epoch INTEGER,                  -- the peer's, with the last head that it told; NULL: unknown
    head INTEGER,
    acked INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Acknowledged positions above `acked`, and held ones anywhere.
CREATE TABLE acks (
    seq INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    held INTEGER NOT NULL,
    PRIMARY KEY (seq, peer)
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    kind INTEGER NOT NULL,          -- what is expected there
    fs INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    nlink INTEGER NOT NULL,
    place INTEGER NOT NULL,         -- where it goes: 1 the share, 2 temporary, 3 trash
    place_path BLOB,                -- for 1 and 3
    place_text TEXT,                -- the temporary's name, the trash's day
    content INTEGER,                -- what was staged; NULL: nothing
    content_size INTEGER,
    hash BLOB,
    target BLOB,
    made INTEGER NOT NULL           -- 1: it was made; the path is still to be looked at
) STRICT;

-- What may be in place under a free name and is not noted as installed.
CREATE TABLE unnoted (
    path BLOB NOT NULL,
    seq INTEGER NOT NULL,           -- position in the log of the record; 0: a directory for what is below
    record BLOB NOT NULL,           -- whose winner it is
    PRIMARY KEY (path, seq)
) STRICT, WITHOUT ROWID;

-- What the mass-delete guards remember. Guards: 1 files that vanish here, 2 files that peers delete.
CREATE TABLE guards (
    guard INTEGER PRIMARY KEY,
    stand INTEGER NOT NULL,         -- 0 watching, 1 tripped, 2 released, 3 restoring
    gone INTEGER NOT NULL,          -- for 1: how many vanished
    files INTEGER NOT NULL          -- of how many
) STRICT;

-- Deletes that passed, by the wall clock's second.
CREATE TABLE passed (
    guard INTEGER NOT NULL,
    second INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (guard, second)
) STRICT, WITHOUT ROWID;

-- What lies in the trash, oldest first; the files are the truth, this finds them without a walk.
CREATE TABLE trash (
    since_ns INTEGER NOT NULL,      -- when it was displaced
    id INTEGER NOT NULL,            -- the operation that displaced it
    day TEXT NOT NULL,              -- it lies at day/at below the trash
    at BLOB NOT NULL,
    path BLOB NOT NULL,             -- the name that it had
    content INTEGER,                -- what it held; NULL: not known
    content_size INTEGER,
    hash BLOB,
    target BLOB,
    kind INTEGER NOT NULL,          -- how it stood there then
    fs INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    nlink INTEGER NOT NULL,
    why INTEGER NOT NULL,           -- 1 deleted, 2 replaced, 3 found there, 4 resolved
    peer TEXT,                      -- by whom, if it is known
    PRIMARY KEY (since_ns, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX trash_place ON trash (day, at);

-- One row.
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL,
    head INTEGER NOT NULL DEFAULT 0,
    clock INTEGER NOT NULL DEFAULT 0,
    installed_files INTEGER NOT NULL DEFAULT 0,
    installed_bytes INTEGER NOT NULL DEFAULT 0,
    root_id TEXT,
    rules TEXT,                     -- what `pending` was worked out by
    witness INTEGER,                -- what the root says to be of this index's time; NULL: nothing
    witness_next INTEGER,           -- what it says if it took the next one in already
    clean INTEGER NOT NULL DEFAULT 1,   -- 0 while a run is under way
    boot TEXT,                          -- of the machine, when that run began
    trash_files INTEGER NOT NULL DEFAULT 0,
    trash_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
