-- Content: namespaces, node states, versions, chunks. Times are milliseconds since 1970; ids and hashes are raw bytes.
--
-- Every table below the line "by shard" carries `shard_key`, the key of the owner, in front of its own key: all that one transaction touches has one
-- shard_key, and bytes are stored once within it. What is above the line stands in the directory database only and is about users.

-- One row: which life of which relay this database is. `replica` is the run (docs/adr/0004-numbers-of-a-feed.md), which ends when the database is not
-- the one any more whose mark is noted: its cluster, its timeline, and the table itself.
CREATE TABLE relay (
    one        SMALLINT PRIMARY KEY CHECK (one = 1),
    epoch      BYTEA NOT NULL,
    replica    BYTEA NOT NULL,
    mark       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Whose each namespace is; its content stands where its owner's does.
CREATE TABLE placements (
    namespace_id BYTEA PRIMARY KEY,
    owner_id     BYTEA NOT NULL REFERENCES users (user_id) ON DELETE CASCADE
);
CREATE INDEX placements_owner ON placements (owner_id);

CREATE TABLE members (
    namespace_id BYTEA NOT NULL REFERENCES placements (namespace_id) ON DELETE CASCADE,
    user_id      BYTEA NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    role         TEXT NOT NULL CHECK (role IN ('viewer', 'editor', 'owner')),
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (namespace_id, user_id)
);
CREATE INDEX members_user ON members (user_id);

CREATE TABLE shared_files (
    share_id            BYTEA PRIMARY KEY,
    namespace_id        BYTEA NOT NULL REFERENCES placements (namespace_id) ON DELETE CASCADE,
    file_id             BYTEA NOT NULL,
    owner_id            BYTEA NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    shared_with_user_id BYTEA NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    permission          TEXT NOT NULL,
    created_at          BIGINT NOT NULL
);
CREATE INDEX shared_files_with ON shared_files (shared_with_user_id);

-- By shard.

-- A user whose namespaces stand in this shard, with the bytes that they hold. `moving_to`: nothing may be written, the content is on its way to there.
CREATE TABLE owners (
    shard_key    SMALLINT NOT NULL,
    user_id      BYTEA NOT NULL,
    storage_used BIGINT NOT NULL DEFAULT 0 CHECK (storage_used >= 0),
    moving_to    SMALLINT,
    PRIMARY KEY (shard_key, user_id)
);

CREATE TABLE namespaces (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    owner_id     BYTEA NOT NULL,
    name         TEXT NOT NULL,
    is_home      BOOLEAN NOT NULL DEFAULT false,
    head_seq     BIGINT NOT NULL DEFAULT 0,
    max_counter  BIGINT NOT NULL DEFAULT 0,
    created_at   BIGINT NOT NULL,
    moving_to    SMALLINT,
    PRIMARY KEY (shard_key, namespace_id),
    FOREIGN KEY (shard_key, owner_id) REFERENCES owners (shard_key, user_id) ON DELETE CASCADE
);
CREATE INDEX namespaces_owner ON namespaces (shard_key, owner_id);
CREATE UNIQUE INDEX namespaces_home ON namespaces (shard_key, owner_id) WHERE is_home;

-- One row per node. `state` is the truth (the protocol's encoding of a node state); the columns after it are derived from it for listing.
CREATE TABLE files (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    file_id      BYTEA NOT NULL,
    seq          BIGINT NOT NULL,
    state        BYTEA NOT NULL,
    user_id      BYTEA NOT NULL,
    parent_id    BYTEA NOT NULL,
    file_name    BYTEA NOT NULL,
    file_size    BIGINT NOT NULL,
    file_type    TEXT NOT NULL,
    file_hash    BYTEA,
    is_deleted   BOOLEAN NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, file_id),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX files_feed ON files (shard_key, namespace_id, seq);
CREATE INDEX files_by_id ON files (shard_key, file_id);
CREATE INDEX files_parent ON files (shard_key, namespace_id, parent_id);
CREATE INDEX files_hash ON files (shard_key, file_hash) WHERE file_hash IS NOT NULL;
CREATE INDEX files_updated ON files (shard_key, namespace_id, updated_at);

-- Where each file stands at its newest move; conflict names are not in it, and bytes that are no text are escaped.
CREATE VIEW file_paths AS
WITH RECURSIVE walk (shard_key, namespace_id, file_id, file_path, depth) AS (
    SELECT shard_key, namespace_id, file_id, encode(file_name, 'escape'), 1 FROM files
    WHERE parent_id = '\x00000000000000000000000000000000'
    UNION ALL
    SELECT f.shard_key, f.namespace_id, f.file_id, w.file_path || '/' || encode(f.file_name, 'escape'), w.depth + 1
    FROM walk w JOIN files f ON f.shard_key = w.shard_key AND f.namespace_id = w.namespace_id AND f.parent_id = w.file_id
    WHERE w.depth < 1024
)
SELECT shard_key, namespace_id, file_id, file_path FROM walk;

-- Every content that a file ever had: one row per writing event with a file's content.
CREATE TABLE file_versions (
    shard_key      SMALLINT NOT NULL,
    version_id     BYTEA NOT NULL,
    namespace_id   BYTEA NOT NULL,
    file_id        BYTEA NOT NULL,
    version_number BIGINT NOT NULL,
    dot_replica    BYTEA NOT NULL,
    dot_counter    BIGINT NOT NULL,
    storage_path   TEXT,
    file_hash      BYTEA NOT NULL,
    file_size      BIGINT NOT NULL,
    mtime_ns       BIGINT NOT NULL,
    author_device  BYTEA NOT NULL,
    author_name    TEXT NOT NULL,
    wall_ms        BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    PRIMARY KEY (shard_key, version_id),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX file_versions_dot ON file_versions (shard_key, namespace_id, file_id, dot_replica, dot_counter);

CREATE TABLE file_chunks (
    shard_key    SMALLINT NOT NULL,
    version_id   BYTEA NOT NULL,
    chunk_index  BIGINT NOT NULL,
    chunk_hash   BYTEA NOT NULL,
    chunk_size   BIGINT NOT NULL,
    storage_path TEXT,
    PRIMARY KEY (shard_key, version_id, chunk_index),
    FOREIGN KEY (shard_key, version_id) REFERENCES file_versions (shard_key, version_id) ON DELETE CASCADE
);

-- Commits of the recent past: a repeated one gets the same answer.
CREATE TABLE commits (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    user_id      BYTEA NOT NULL,
    commit_id    BYTEA NOT NULL,
    digest       BYTEA NOT NULL,
    head_seq     BIGINT NOT NULL,
    gapless      BOOLEAN NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, user_id, commit_id),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
CREATE INDEX commits_age ON commits (shard_key, created_at);

-- One blob: the chunk frames of one request. Written to the blob store before its row.
CREATE TABLE packs (
    shard_key  SMALLINT NOT NULL,
    pack_id    BYTEA NOT NULL,
    length     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (shard_key, pack_id)
);

CREATE TABLE chunks (
    shard_key   SMALLINT NOT NULL,
    chunk_hash  BYTEA NOT NULL,
    length      BIGINT NOT NULL,
    pack_id     BYTEA NOT NULL,
    "offset"    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    orphaned_at BIGINT,
    damaged_at  BIGINT,
    PRIMARY KEY (shard_key, chunk_hash),
    FOREIGN KEY (shard_key, pack_id) REFERENCES packs (shard_key, pack_id)
);
CREATE INDEX chunks_pack ON chunks (shard_key, pack_id);
CREATE INDEX chunks_orphaned ON chunks (shard_key, orphaned_at) WHERE orphaned_at IS NOT NULL;
CREATE INDEX chunks_damaged ON chunks (shard_key, damaged_at) WHERE damaged_at IS NOT NULL;

-- What a namespace may read (refs > 0: that many rows of file_chunks name it) or holds for a commit to come (refs = 0, until the lease ends).
CREATE TABLE namespace_chunks (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    chunk_hash   BYTEA NOT NULL,
    refs         BIGINT NOT NULL,
    lease_until  BIGINT NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, chunk_hash),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE,
    FOREIGN KEY (shard_key, chunk_hash) REFERENCES chunks (shard_key, chunk_hash)
);
CREATE INDEX namespace_chunks_chunk ON namespace_chunks (shard_key, chunk_hash);
CREATE INDEX namespace_chunks_lease ON namespace_chunks (shard_key, lease_until) WHERE refs = 0;

-- Uploads of the plain API: chunks by index, then one commit. `version_id` becomes the version's id.
CREATE TABLE uploads (
    shard_key    SMALLINT NOT NULL,
    version_id   BYTEA NOT NULL,
    namespace_id BYTEA NOT NULL,
    user_id      BYTEA NOT NULL,
    file_id      BYTEA NOT NULL,
    path         BYTEA NOT NULL,
    file_hash    BYTEA NOT NULL,
    file_size    BIGINT NOT NULL,
    mtime_ns     BIGINT,
    chunk_size   BIGINT NOT NULL,
    num_chunks   BIGINT NOT NULL,
    completed_at BIGINT,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    PRIMARY KEY (shard_key, version_id),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
CREATE INDEX uploads_expiry ON uploads (shard_key, expires_at);
CREATE INDEX uploads_namespace ON uploads (shard_key, namespace_id);

CREATE TABLE upload_chunks (
    shard_key   SMALLINT NOT NULL,
    version_id  BYTEA NOT NULL,
    chunk_index BIGINT NOT NULL,
    chunk_hash  BYTEA NOT NULL,
    chunk_size  BIGINT NOT NULL,
    PRIMARY KEY (shard_key, version_id, chunk_index),
    FOREIGN KEY (shard_key, version_id) REFERENCES uploads (shard_key, version_id) ON DELETE CASCADE
);

-- What verification or a reader found to be wrong, for operators.
CREATE TABLE damage (
    shard_key  SMALLINT NOT NULL,
    chunk_hash BYTEA NOT NULL,
    pack_id    BYTEA NOT NULL,
    reason     TEXT NOT NULL,
    found_at   BIGINT NOT NULL,
    PRIMARY KEY (shard_key, chunk_hash)
);
