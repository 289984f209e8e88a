-- What a node showed before each change: who wants to go back to a time looks here. Of a new node it says that nothing was there.
CREATE TABLE node_history (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    file_id      BLOB NOT NULL,
    -- The number of the change.
    seq          INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL,
    -- Who made the change, where that is known.
    device_id    BLOB,
    -- What was shown before it.
    parent_id    BLOB NOT NULL,
    file_name    BLOB NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('deleted', 'directory', 'symlink', 'file')),
    link_target  BLOB,
    -- The event that wrote the file's content.
    dot_replica  BLOB,
    dot_counter  INTEGER,
    PRIMARY KEY (namespace_id, file_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX node_history_time ON node_history (namespace_id, changed_at);

-- Since when changes of a namespace are kept this way.
ALTER TABLE namespaces ADD COLUMN history_since INTEGER NOT NULL DEFAULT 0;
UPDATE namespaces SET history_since = unixepoch() * 1000;

-- Rewinds, by the id that the client gave: asked again, one goes on, or answers what it did.
CREATE TABLE rewinds (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    rewind_id    BLOB NOT NULL,
    -- SHA-256 of what was asked.
    digest       BLOB NOT NULL,
    started_at   INTEGER NOT NULL,
    -- The node that was looked at last; NULL at the beginning.
    position     BLOB,
    is_finished  INTEGER NOT NULL,
    -- What was done so far, as JSON.
    counts       TEXT NOT NULL,
    PRIMARY KEY (namespace_id, rewind_id)
) STRICT, WITHOUT ROWID;
