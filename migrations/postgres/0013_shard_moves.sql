-- Users on their way to another shard (docs/adr/0007-sharding-by-user.md).

-- Until when writers are kept from a namespace that moves, by this database's clock. After that the one who moves it is gone, and writers ask the
-- directory where it is. Without a time nobody is kept out: the row is a copy that has just come, and the directory says whether it is the one that counts.
ALTER TABLE owners ADD COLUMN moving_until BIGINT;
ALTER TABLE namespaces ADD COLUMN moving_until BIGINT;

-- In the directory: moves that are not finished. No reference to the user: one who is deleted meanwhile leaves something to clear away.
CREATE TABLE shard_moves (
    user_id     BYTEA PRIMARY KEY CHECK (length(user_id) = 16),
    from_shard  SMALLINT NOT NULL,
    to_shard    SMALLINT NOT NULL,
    -- The directory leads to to_shard; what is left in from_shard is to be removed.
    is_switched BOOLEAN NOT NULL DEFAULT false,
    started_at  BIGINT NOT NULL
);
