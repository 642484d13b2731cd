-- An index as version 1 made it, by the sqlite3 shell's .dump. Never edited.
PRAGMA application_id = 1920170350;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
INSERT INTO entries VALUES(1,X'61',X'62',X'010101010101010366733101fb0010010101010101010101010101010101010101010101010101010101010101010101010366733100000000',1,NULL,10,0,1,4096,1,4096,X'0101010101010101010101010101010101010101010101010101010101010101',NULL,1,-1,1,1099511627776,-9223372036854775808,9223372036854775807,4095,4294967295,0,1,7,416,'freeswitch:daemon',0);
INSERT INTO entries VALUES(2,X'61',X'78',X'01010101010101036673310105050505050505050505050505050505050505050505050505050505050505050501010366733100000000',2,1,20,1,1,5,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO entries VALUES(3,X'',X'6130',X'01010900000000',3,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO entries VALUES(4,X'64',X'c3bc',X'010203030201010366733100010103667331000202020366733102017801020366733100020303036673310109020202020202020202020202020202020202020202020202020202020202020201030366733100000000',4,NULL,40,0,1,0,3,NULL,NULL,X'78',1,-1,2,1099511627776,-9223372036854775808,9223372036854775807,4095,4294967295,0,1,7,416,'freeswitch:daemon',0);
CREATE TABLE peers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    epoch INTEGER,                  -- the peer's, with the last head that it told; NULL: unknown
    head INTEGER,
    acked INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO peers VALUES(1,'fs2',-1,-1,1);
INSERT INTO peers VALUES(2,'fs3',NULL,NULL,0);
CREATE TABLE acks (
    seq INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    held INTEGER NOT NULL,
    PRIMARY KEY (seq, peer)
) STRICT, WITHOUT ROWID;
INSERT INTO acks VALUES(1,2,1);
INSERT INTO acks VALUES(3,1,0);
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
INSERT INTO intents VALUES(1,X'612f62',1,-1,1,1099511627776,-9223372036854775808,9223372036854775807,4095,4294967295,0,1,3,X'612f627e31','2026-11-22',1,4096,X'0101010101010101010101010101010101010101010101010101010101010101',NULL,1);
CREATE TABLE unnoted (
    path BLOB NOT NULL,
    seq INTEGER NOT NULL,           -- position in the log of the record; 0: a directory for what is below
    record BLOB NOT NULL,           -- whose winner it is
    PRIMARY KEY (path, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO unnoted VALUES(X'612f78',3,X'01010900000000');
CREATE TABLE guards (
    guard INTEGER PRIMARY KEY,
    stand INTEGER NOT NULL,         -- 0 watching, 1 tripped, 2 released, 3 restoring
    gone INTEGER NOT NULL,          -- for 1: how many vanished
    files INTEGER NOT NULL          -- of how many
) STRICT;

CREATE TABLE passed (
    guard INTEGER NOT NULL,
    second INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (guard, second)
) STRICT, WITHOUT ROWID;

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
INSERT INTO state VALUES(1,-81985529216486896,4,-1,1,4096,'6f1c',NULL,-7,8,0,NULL,0,0);
INSERT INTO guards VALUES(2,1,51,100);
INSERT INTO passed VALUES(2,1795341600,50);
CREATE UNIQUE INDEX trash_place ON trash (day, at);
CREATE UNIQUE INDEX path ON entries (dir, name);
CREATE INDEX log ON entries (seq, via, winner_bytes, changed_ns) WHERE seq IS NOT NULL;
CREATE INDEX pending ON entries (seq) WHERE pending;
CREATE INDEX spent ON entries (seq) WHERE NOT live AND content IS NULL;
CREATE INDEX live ON entries (dir) WHERE live;
CREATE INDEX installed ON entries (dir) WHERE content IS NOT NULL;
CREATE INDEX copies ON entries (dir, name)
    WHERE content IS NOT NULL AND instr(name, x'2e636f6e666c6963742d') > 0;
CREATE INDEX installed_hash ON entries (substr(hash, 1, 8)) WHERE hash IS NOT NULL;
CREATE INDEX installed_inode ON entries (ino) WHERE ino IS NOT NULL;
COMMIT;
