-- A relay that begins to serve a database goes on with numbers far above those that were given: a cursor in between is of a life of the feed that a
-- restore from a backup has ended. `run_id` is the run of a relay that wrote last.
ALTER TABLE namespaces ADD COLUMN run_id BYTEA;

CREATE TABLE feed_gaps (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    -- The last number before the gap; the first one after it is to_seq + 1.
    from_seq     BIGINT NOT NULL,
    to_seq       BIGINT NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, from_seq),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);
