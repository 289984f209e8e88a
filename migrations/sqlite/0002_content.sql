-- Content: namespaces, node states, versions, chunks. Times are milliseconds since 1970; ids and hashes are raw bytes.

-- One row: which life of which relay this database is.
CREATE TABLE relay (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    epoch      BLOB NOT NULL,
    replica    BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE namespaces (
    namespace_id BLOB PRIMARY KEY NOT NULL,
    owner_id     BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    is_home      INTEGER NOT NULL DEFAULT 0,
    head_seq     INTEGER NOT NULL DEFAULT 0,
    max_counter  INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX namespaces_owner ON namespaces (owner_id);
CREATE UNIQUE INDEX namespaces_home ON namespaces (owner_id) WHERE is_home = 1;

CREATE TABLE members (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    user_id      BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    role         TEXT NOT NULL CHECK (role IN ('viewer', 'editor', 'owner')),
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_user ON members (user_id);

-- One row per node. `state` is the truth (the protocol's encoding of a node state); the columns after it are derived from it for listing.
CREATE TABLE files (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    file_id      BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    state        BLOB NOT NULL,
    user_id      BLOB NOT NULL,
    parent_id    BLOB NOT NULL,
    file_name    BLOB NOT NULL,
    file_size    INTEGER NOT NULL,
    file_type    TEXT NOT NULL,
    file_hash    BLOB,
    is_deleted   INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, file_id)
) STRICT;
CREATE UNIQUE INDEX files_feed ON files (namespace_id, seq);
CREATE INDEX files_by_id ON files (file_id);
CREATE INDEX files_parent ON files (namespace_id, parent_id);
CREATE INDEX files_hash ON files (file_hash) WHERE file_hash IS NOT NULL;
CREATE INDEX files_updated ON files (namespace_id, updated_at);

-- Where each file stands at its newest move; conflict names are not in it.
CREATE VIEW file_paths AS
WITH RECURSIVE walk (namespace_id, file_id, file_path, depth) AS (
    SELECT namespace_id, file_id, CAST(file_name AS TEXT), 1 FROM files WHERE parent_id = zeroblob(16)
    UNION ALL
    SELECT f.namespace_id, f.file_id, w.file_path || '/' || CAST(f.file_name AS TEXT), w.depth + 1
    FROM walk w JOIN files f ON f.namespace_id = w.namespace_id AND f.parent_id = w.file_id
    WHERE w.depth < 1024
)
SELECT namespace_id, file_id, file_path FROM walk;

-- Every content that a file ever had: one row per writing event with a file's content.
CREATE TABLE file_versions (
    version_id     BLOB PRIMARY KEY NOT NULL,
    namespace_id   BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    file_id        BLOB NOT NULL,
    version_number INTEGER NOT NULL,
    dot_replica    BLOB NOT NULL,
    dot_counter    INTEGER NOT NULL,
    storage_path   TEXT,
    file_hash      BLOB NOT NULL,
    file_size      INTEGER NOT NULL,
    mtime_ns       INTEGER NOT NULL,
    author_device  BLOB NOT NULL,
    author_name    TEXT NOT NULL,
    wall_ms        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX file_versions_dot ON file_versions (namespace_id, file_id, dot_replica, dot_counter);

CREATE TABLE file_chunks (
    chunk_id     INTEGER PRIMARY KEY,
    version_id   BLOB NOT NULL REFERENCES file_versions (version_id) ON DELETE CASCADE,
    chunk_index  INTEGER NOT NULL,
    chunk_hash   BLOB NOT NULL,
    chunk_size   INTEGER NOT NULL,
    storage_path TEXT,
    UNIQUE (version_id, chunk_index)
) STRICT;

CREATE TABLE shared_files (
    share_id            BLOB PRIMARY KEY NOT NULL,
    namespace_id        BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    file_id             BLOB NOT NULL,
    owner_id            BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    shared_with_user_id BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    permission          TEXT NOT NULL,
    created_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX shared_files_with ON shared_files (shared_with_user_id);

-- Commits of the recent past: a repeated one gets the same answer.
CREATE TABLE commits (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    user_id      BLOB NOT NULL,
    commit_id    BLOB NOT NULL,
    digest       BLOB NOT NULL,
    head_seq     INTEGER NOT NULL,
    gapless      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, user_id, commit_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX commits_age ON commits (created_at);

-- One blob: the chunk frames of one request. Written to the blob store before its row.
CREATE TABLE packs (
    pack_id    BLOB PRIMARY KEY NOT NULL,
    length     INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE chunks (
    chunk_hash  BLOB PRIMARY KEY NOT NULL,
    length      INTEGER NOT NULL,
    pack_id     BLOB NOT NULL REFERENCES packs (pack_id),
    offset      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    orphaned_at INTEGER,
    damaged_at  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX chunks_pack ON chunks (pack_id);
CREATE INDEX chunks_orphaned ON chunks (orphaned_at) WHERE orphaned_at IS NOT NULL;
CREATE INDEX chunks_damaged ON chunks (damaged_at) WHERE damaged_at IS NOT NULL;

-- What a namespace may read (refs > 0: that many rows of file_chunks name it) or holds for a commit to come (refs = 0, until the lease ends).
CREATE TABLE namespace_chunks (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    chunk_hash   BLOB NOT NULL REFERENCES chunks (chunk_hash),
    refs         INTEGER NOT NULL,
    lease_until  INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, chunk_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX namespace_chunks_chunk ON namespace_chunks (chunk_hash);
CREATE INDEX namespace_chunks_lease ON namespace_chunks (lease_until) WHERE refs = 0;

-- Uploads of the plain API: chunks by index, then one commit. `version_id` becomes the version's id.
CREATE TABLE uploads (
    version_id   BLOB PRIMARY KEY NOT NULL,
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    user_id      BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    file_id      BLOB NOT NULL,
    path         BLOB NOT NULL,
    file_hash    BLOB NOT NULL,
    file_size    INTEGER NOT NULL,
    mtime_ns     INTEGER,
    chunk_size   INTEGER NOT NULL,
    num_chunks   INTEGER NOT NULL,
    completed_at INTEGER,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_expiry ON uploads (expires_at);

CREATE TABLE upload_chunks (
    version_id  BLOB NOT NULL REFERENCES uploads (version_id) ON DELETE CASCADE,
    chunk_index INTEGER NOT NULL,
    chunk_hash  BLOB NOT NULL,
    chunk_size  INTEGER NOT NULL,
    PRIMARY KEY (version_id, chunk_index)
) STRICT, WITHOUT ROWID;

-- What verification or a reader found to be wrong, for operators.
CREATE TABLE damage (
    chunk_hash BLOB PRIMARY KEY NOT NULL,
    pack_id    BLOB NOT NULL,
    reason     TEXT NOT NULL,
    found_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
