-- A relay that begins to serve a database goes on with numbers far above those that were given: a cursor in between is of a life of the feed that a
-- restore from a backup has ended. `run_id` is the run of a relay that wrote last.
ALTER TABLE namespaces ADD COLUMN run_id BLOB;

CREATE TABLE feed_gaps (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    -- The last number before the gap; the first one after it is to_seq + 1.
    from_seq     INTEGER NOT NULL,
    to_seq       INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, from_seq)
) STRICT, WITHOUT ROWID;
