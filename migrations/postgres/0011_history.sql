-- What a node showed before each change: who wants to go back to a time looks here. Of a new node it says that nothing was there.
CREATE TABLE node_history (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    file_id      BYTEA NOT NULL,
    -- The number of the change.
    seq          BIGINT NOT NULL,
    changed_at   BIGINT NOT NULL,
    -- Who made the change, where that is known.
    device_id    BYTEA,
    -- What was shown before it.
    parent_id    BYTEA NOT NULL,
    file_name    BYTEA NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('deleted', 'directory', 'symlink', 'file')),
    link_target  BYTEA,
    -- The event that wrote the file's content.
    dot_replica  BYTEA,
    dot_counter  BIGINT,
    PRIMARY KEY (shard_key, namespace_id, file_id, seq),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
CREATE INDEX node_history_time ON node_history (shard_key, namespace_id, changed_at);

-- Since when changes of a namespace are kept this way.
ALTER TABLE namespaces ADD COLUMN history_since BIGINT NOT NULL DEFAULT 0;
UPDATE namespaces SET history_since = (extract(epoch FROM now()) * 1000)::bigint;

-- Rewinds, by the id that the client gave: asked again, one goes on, or answers what it did.
CREATE TABLE rewinds (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    rewind_id    BYTEA NOT NULL,
    -- SHA-256 of what was asked.
    digest       BYTEA NOT NULL,
    started_at   BIGINT NOT NULL,
    -- The node that was looked at last; NULL at the beginning.
    position     BYTEA,
    is_finished  BOOLEAN NOT NULL,
    -- What was done so far, as JSON.
    counts       TEXT NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, rewind_id),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
